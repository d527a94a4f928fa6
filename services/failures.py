"""Failures of programs, as the line that they end with."""

from __future__ import annotations

import sys

from eventstore import error_text


def report(error: BaseException) -> None:
    """Write an error to standard error as "rollforward: REASON: text", the order in which the client writes it too."""
    reason = getattr(error, "reason", "")
    message = " ".join(str(getattr(error, "message", "")).split()) or error_text(error)
    prefix = f"{reason}: " if reason else ""
    print(f"rollforward: {prefix}{message.removeprefix(prefix)}", file=sys.stderr)
