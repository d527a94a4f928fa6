"""The settings of a connection: actor, timeouts, and the metadata of every call."""

from __future__ import annotations

import getpass
import os
from urllib.parse import quote

from rollforward.errors import InvalidRequest


def fixed_metadata(actor: str, correlation_id: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of every call. Raises InvalidRequest (INVALID_CORRELATION_ID)."""
    fixed = (("rollforward-actor", quote(actor, safe="")),)
    if not correlation_id:
        return fixed
    if not (correlation_id.isascii() and correlation_id.isprintable()):
        raise InvalidRequest(
            "INVALID_CORRELATION_ID", f"invalid correlation id {correlation_id[:80]!r}: expected printable ASCII"
        )
    return (*fixed, ("rollforward-correlation-id", correlation_id))


def checked_timeout(seconds: float) -> float:
    """Return a timeout in seconds. Raises InvalidRequest (INVALID_TIMEOUT)."""
    if not seconds > 0:
        raise InvalidRequest("INVALID_TIMEOUT", f"invalid timeout {seconds}: expected a number of seconds > 0")
    return seconds


def os_user() -> str:
    """Return the name of the operating system's user, else the user id."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # In a container, the user id often has no name.
        return str(os.getuid())
