"""What went wrong, as one line and an exit code."""

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rollforward import v1
    from rollforward.errors import RollforwardError

REFUSED: Final = 1
USAGE: Final = 2
# What the client refuses by looking at the command line alone.
_WORDING: Final = frozenset(
    {
        "INVALID_ADDRESS",
        "INVALID_CAUSE",
        "INVALID_REFERENCE",
        "INVALID_REVISION",
        "INVALID_SOURCE",
        "INVALID_TIME",
        "INVALID_TIMEOUT",
        "INVALID_VERSION",
    }
)


# What to do about a refusal.
_ADVICE: Final = {
    "CHANGED_SINCE": "look at --dry-run again, then send its new --expect-position",
    "EXPERIMENT_DELETED": "`rollforward experiments restore` brings it back",
    "LOGGED_MODEL_DELETED": "`rollforward logged-models restore` brings it back",
    "MODEL_DELETED": "`rollforward models restore` brings it back",
    "MODEL_RENAMED": "use that name",
    "REASON_REQUIRED": "say why with --reason",
    "RUN_DELETED": "`rollforward runs restore` brings it back",
    "VERSION_DELETED": "`rollforward versions restore` brings it back",
    "VERSION_IN_USE": "move or remove them first",
}


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
    from rollforward.errors import Conflict, PreconditionFailed, Unavailable  # noqa: PLC0415

    parts = [error.message or "no more is known"]
    if isinstance(error, Conflict) and error.current is not None:
        parts.append(_standing(error.current))
    if isinstance(error, PreconditionFailed) and error.evidence is not None:
        parts.append(_seen(error.evidence))
    if error.reason in _ADVICE:
        parts.append(_ADVICE[error.reason])
    where = f" (server {current().address})" if isinstance(error, Unavailable) else ""
    return "; ".join(parts) + where


def _standing(now: "v1.Alias") -> str:
    words = f"it is {f'v{now.version}' if now.version else 'not set'}"
    if not now.revision:
        return words
    why = f": {now.reason}" if now.reason else ""
    return f"{words} since {now.moved_at.ToJsonString()}, by {now.actor}{why}"


def _seen(evidence: "v1.GateEvidence") -> str:
    from rollforward.cli.evidence import inputs  # noqa: PLC0415 - only when a gate refused

    whose = f"policy {evidence.policy} saw" if evidence.policy else "it saw"
    return f"{whose} {inputs(evidence)} at tracking position {evidence.tracking_position}"
