"""The NATS subjects of streams."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote, unquote

MAX_SUBJECT_BYTES = 3_800
"""NATS ends the connection at a protocol line of more than 4,096 bytes, and a line is more than a subject."""


@lru_cache(maxsize=4096)
def subject_of(log: str, stream: str) -> str:
    """Return the subject of a stream: a token for each "/"-separated part; no name can escape its token."""
    # An empty token is not allowed; "%" alone is what no other part is encoded as.
    return f"rf.{log}." + ".".join(quote(part, safe="").replace(".", "%2E") or "%" for part in stream.split("/"))


@lru_cache(maxsize=4096)
def stream_of(log: str, subject: str) -> str:
    """Return the stream of a subject; the inverse of `subject_of`."""
    parts = subject.removeprefix(f"rf.{log}.").split(".")
    return "/".join("" if part == "%" else unquote(part) for part in parts)
