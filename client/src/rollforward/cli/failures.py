"""What went wrong, as one line and an exit code."""

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rollforward.errors import RollforwardError

REFUSED: Final = 1
USAGE: Final = 2
# What the client refuses by looking at the command line alone.
_WORDING: Final = frozenset(
    {
        "INVALID_ADDRESS",
        "INVALID_REFERENCE",
        "INVALID_REVISION",
        "INVALID_SOURCE",
        "INVALID_TIME",
        "INVALID_TIMEOUT",
        "INVALID_VERSION",
    }
)


class UsageError(Exception):
    """The command line is wrong, or asks for what is not installed."""


def say(line: str) -> None:
    """Write one line to standard error."""
    print(f"rollforward: {' '.join(line.split())}", file=sys.stderr)


def explain(error: Exception) -> int | None:
    """Say in one line what went wrong and return the exit code; None for what nobody expected."""
    if isinstance(error, UsageError):
        say(str(error))
        return USAGE
    if isinstance(error, OSError):
        say(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        return REFUSED
    from rollforward.errors import RollforwardError  # noqa: PLC0415 - gRPC is slow to load

    if not isinstance(error, RollforwardError):
        return None
    say(f"{error.reason}: {_words(error)}")
    return USAGE if error.reason in _WORDING else REFUSED


def _words(error: "RollforwardError") -> str:
    from rollforward.connection import current  # noqa: PLC0415 - as above
    from rollforward.errors import Conflict, Unavailable  # noqa: PLC0415

    words = error.message or "no more is known"
    if isinstance(error, Conflict) and (now := error.current) is not None:
        words += f"; it is {f'v{now.version}' if now.version else 'not set'}"
        if now.revision:
            why = f": {now.reason}" if now.reason else ""
            words += f" since {now.moved_at.ToJsonString()}, by {now.actor}{why}"
    if isinstance(error, Unavailable):
        words += f" (server {current().address})"
    return words
