"""Failures: one line or one JSON document on standard error, and an exit code."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from rollforward._printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cyclopts import CycloptsError

    from rollforward import v1
    from rollforward.errors import RollforwardError

REFUSED: Final = 1
USAGE: Final = 2
# Reasons of a wrong command line that do not begin with INVALID_.
_USAGE_REASONS: Final = frozenset({"SERVICE_UNKNOWN", "UNKNOWN_LOG", "UNKNOWN_EVENT_TYPE", "NOT_INSTALLED"})
# Reasons that begin so, of what was read rather than typed.
_READ: Final = frozenset({"INVALID_JOURNAL", "INVALID_SERIES"})

# What to do about a refusal.
_ADVICE: Final = {
    "CHANGED_SINCE": "run --dry-run again, then pass its new --expect-position",
    "EXPERIMENT_DELETED": "restore it with `rollforward experiments restore`",
    "LOGGED_MODEL_DELETED": "restore it with `rollforward logged-models restore`",
    "MODEL_DELETED": "restore it with `rollforward models restore`",
    "MODEL_RENAMED": "use that name",
    "PROJECTION_BEHIND": "--stale reads what is there",
    "REASON_REQUIRED": "say why with --reason",
    "RUN_DELETED": "restore it with `rollforward runs restore`",
    "VERSION_DELETED": "restore it with `rollforward versions restore`",
    "VERSION_IN_USE": "move or remove them first",
}


class UsageError(Exception):
    """The command line is wrong, or needs what is not installed."""


def say(line: str) -> None:
    """Write one line to standard error."""
    print(f"rollforward: {printable(' '.join(line.split()))}", file=sys.stderr)


def refuse_usage(error: CycloptsError, *, as_json: bool) -> int:
    """Report a command line that cannot be read, and return its exit code."""
    path = " ".join(("rollforward", *(error.command_chain or ())))
    _report(None, f"{f'{error}'.strip().rstrip('., ')} (see {path} --help)", {}, as_json=as_json)
    return USAGE


def explain(error: Exception, *, as_json: bool = False) -> int | None:
    """Report an error and return the exit code; None for one that nobody expected."""
    if isinstance(error, UsageError):
        _report(None, str(error), {}, as_json=as_json)
        return USAGE
    if isinstance(error, OSError):
        text = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        _report(None, text, {}, as_json=as_json)
        return REFUSED
    from rollforward.errors import RollforwardError  # noqa: PLC0415 - gRPC is slow to load

    if not isinstance(error, RollforwardError):
        return None
    _report(error.reason, _message(error), error.metadata, as_json=as_json)
    return USAGE if _is_usage(error.reason) else REFUSED


def _is_usage(reason: str) -> bool:
    return reason in _USAGE_REASONS or (reason.startswith("INVALID_") and reason not in _READ)


def _report(reason: str | None, message: str, metadata: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"reason": reason, "message": " ".join(message.split()), "metadata": dict(metadata)}
        print(json.dumps({"error": fields}), file=sys.stderr)
    else:
        say(f"{reason}: {message}" if reason else message)


def _message(error: RollforwardError) -> str:
    from rollforward._transport.default import default_connection  # noqa: PLC0415
    from rollforward.cli.suggestions import near_names  # noqa: PLC0415 - as above
    from rollforward.errors import Conflict, PreconditionFailed, Unavailable  # noqa: PLC0415

    parts = [error.message or "no more is known"]
    if isinstance(error, Conflict) and error.current is not None:
        parts.append(_standing(error.current))
    if isinstance(error, PreconditionFailed) and error.evidence is not None:
        parts.append(_seen(error.evidence))
    if error.reason in _ADVICE:
        parts.append(_ADVICE[error.reason])
    if names := near_names(error):
        parts.append(f"did you mean {' or '.join(names)}?")
    if error.request_id:
        parts.append(f"whether it was done is not known: repeat it with --request-id {error.request_id}")
    address = default_connection().address
    where = f" (server {address})" if isinstance(error, Unavailable) and address not in error.message else ""
    return "; ".join(parts) + where


def _standing(now: v1.Alias) -> str:
    text = f"it is {f'v{now.version}' if now.version else 'not set'}"
    if not now.revision:
        return text
    why = f": {now.reason}" if now.reason else ""
    return f"{text} since {now.moved_at.ToJsonString()}, by {now.actor}{why}"


def _seen(evidence: v1.GateEvidence) -> str:
    from rollforward.cli.registry.evidence import inputs  # noqa: PLC0415 - only when a gate refused

    whose = f"policy {evidence.policy} saw" if evidence.policy else "it saw"
    return f"{whose} {inputs(evidence)} at tracking position {evidence.tracking_position}"
