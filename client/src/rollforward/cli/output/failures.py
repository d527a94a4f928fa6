"""The output of errors: one line or one JSON document on standard error, and an exit code."""

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

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2
# Reasons for wrong usage that do not start with INVALID_.
_USAGE_REASONS: Final = frozenset({"SERVICE_UNKNOWN", "UNKNOWN_LOG", "UNKNOWN_EVENT_TYPE", "NOT_INSTALLED"})
# Reasons that start with INVALID_, but are about stored data.
_DATA_REASONS: Final = frozenset({"INVALID_JOURNAL", "INVALID_SERIES"})

# The way out, by reason.
_ADVICE: Final = {
    "CHANGED_SINCE": "run --dry-run again, then pass its new --expect-position",
    "EXPERIMENT_DELETED": "restore it with `rollforward experiments restore`",
    "LOGGED_MODEL_DELETED": "restore it with `rollforward logged-models restore`",
    "MODEL_DELETED": "restore it with `rollforward models restore`",
    "MODEL_RENAMED": "use the new name",
    "PROJECTION_BEHIND": "pass --stale to read the current rows",
    "REASON_REQUIRED": "give a reason with --reason",
    "RUN_DELETED": "restore it with `rollforward runs restore`",
    "VERSION_DELETED": "restore it with `rollforward versions restore`",
    "VERSION_IN_USE": "move or remove them first",
}


class UsageError(Exception):
    """Wrong usage of the command line, or a missing installation."""


def print_error(line: str) -> None:
    """Write one line to standard error."""
    print(f"rollforward: {printable(' '.join(line.split()))}", file=sys.stderr)


def report_usage_error(error: CycloptsError, *, as_json: bool) -> int:
    """Report an invalid command line, and return the exit code."""
    path = " ".join(("rollforward", *(error.command_chain or ())))
    _report(None, f"{f'{error}'.strip().rstrip('., ')} (see {path} --help)", {}, as_json=as_json)
    return EXIT_USAGE


def report_error(error: Exception, *, as_json: bool = False) -> int | None:
    """Report an error, and return the exit code; return None for an unexpected error."""
    if isinstance(error, UsageError):
        _report(None, str(error), {}, as_json=as_json)
        return EXIT_USAGE
    if isinstance(error, OSError):
        text = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
        _report(None, text, {}, as_json=as_json)
        return EXIT_FAILURE
    from rollforward.errors import RollforwardError  # noqa: PLC0415 - gRPC is slow to load

    if not isinstance(error, RollforwardError):
        return None
    _report(error.reason, _message(error), error.metadata, as_json=as_json)
    return EXIT_USAGE if _is_usage(error.reason) else EXIT_FAILURE


def _is_usage(reason: str) -> bool:
    return reason in _USAGE_REASONS or (reason.startswith("INVALID_") and reason not in _DATA_REASONS)


def _report(reason: str | None, message: str, metadata: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        fields: dict[str, Any] = {"reason": reason, "message": " ".join(message.split()), "metadata": dict(metadata)}
        print(json.dumps({"error": fields}), file=sys.stderr)
    else:
        print_error(f"{reason}: {message}" if reason else message)


def _message(error: RollforwardError) -> str:
    from rollforward._transport.default import default_connection  # noqa: PLC0415
    from rollforward.cli.suggestions import near_names  # noqa: PLC0415 - as above
    from rollforward.errors import Conflict, PreconditionFailed, Unavailable  # noqa: PLC0415

    parts = [error.message or "no details"]
    if isinstance(error, Conflict) and error.current is not None:
        parts.append(_current_state(error.current))
    if isinstance(error, PreconditionFailed) and error.evidence is not None:
        parts.append(_gate_inputs(error.evidence))
    if error.reason in _ADVICE:
        parts.append(_ADVICE[error.reason])
    if names := near_names(error):
        parts.append(f"did you mean {' or '.join(names)}?")
    if error.request_id:
        parts.append(f"outcome unknown: repeat it safely with --request-id {error.request_id}")
    address = default_connection().address
    where = f" (server {address})" if isinstance(error, Unavailable) and address not in error.message else ""
    return "; ".join(parts) + where


def _current_state(alias: v1.Alias) -> str:
    state = f"it is {f'v{alias.version}' if alias.version else 'not set'}"
    if not alias.revision:
        return state
    reason = f": {alias.reason}" if alias.reason else ""
    return f"{state} since {alias.moved_at.ToJsonString()}, by {alias.actor}{reason}"


def _gate_inputs(evidence: v1.GateEvidence) -> str:
    from rollforward.cli.registry.evidence import inputs  # noqa: PLC0415 - only when a gate failed

    gate = f"policy {evidence.policy}" if evidence.policy else "gate"
    return f"{gate} evaluated {inputs(evidence)} at tracking position {evidence.tracking_position}"
