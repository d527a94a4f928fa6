"""Failures of programs, as the line that they end with."""

from __future__ import annotations

import sys


def report(error: BaseException) -> None:
    """Write an error to standard error as "rollforward: REASON: text", the order in which the client writes it too."""
    reason, message = getattr(error, "reason", ""), getattr(error, "message", None) or str(error)
    text = " ".join(f"{reason}: {message}".split()) if reason else " ".join(message.split())
    print(f"rollforward: {text}", file=sys.stderr)
