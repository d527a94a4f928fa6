"""The plan of a rollback: current assignments, restored ones, and the events between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import (
    Conflict,
    Kind,
    Plan,
    RecordedEvent,
    Rejected,
    position_of,
)
from rollforward import v1
from services.registry import model_stream
from services.registry.deciders import policies
from services.registry.deciders.aliases import passed, refused
from services.registry.deciders.policies import GateResult, binding_move
from services.registry.queries import rollback

Key = tuple[str, str]
"""An alias: its model's origin, and its name."""


@dataclass(frozen=True, slots=True)
class RollbackState:
    """The state that a rollback reads, consistent at the registry position `computed_at`.

    Attributes:
        current: The current assignment of every alias in the scope.
        before: By alias, the assignment to restore, if any.
        versions: By model and number, the versions to restore.
        ended: By alias with a policy, when (ns) the version to restore last lost it.
        policies: The policies.
    """

    computed_at: int
    current: Sequence[rollback.CurrentAssignment]
    before: Mapping[Key, v1.AliasChange]
    versions: Mapping[tuple[str, int], rollback.KnownVersion]
    ended: Mapping[Key, int]
    policies: policies.State


@dataclass(slots=True)
class PlannedRollback:
    """A planned rollback: its events, their condition, and its changes."""

    seen: RollbackState
    events: list[tuple[str, Message]] = field(default_factory=list)
    changes: list[v1.RollbackChange] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        """The events to append: all of them, or only the refusals if a gate refuses any."""
        refusals = [(stream, event) for stream, event in self.events if isinstance(event, v1.AliasMoveRefused)]
        seen = {model_stream(current.origin): current.stream_revision for current in self.seen.current}
        return Plan(refusals or self.events, seen)


def restored_change(
    request: v1.RollbackRequest, current: rollback.CurrentAssignment, planned: PlannedRollback
) -> v1.RollbackChange | None:
    """Return the change that a rollback makes to an alias, and add it to the plan; None without a change."""
    before = planned.seen.before.get(key_of(current), v1.AliasChange())
    version = before.to_version
    if version == current.version:
        return None
    change = v1.RollbackChange(
        model=current.model, alias=current.alias, from_version=current.version, to_version=version
    )
    if version:
        change.to_digest, change.restored_revision = before.to_digest, before.revision
    planned.changes.append(change)
    if version and (rejection := _unusable(current, version, planned.seen)):
        if not request.skip_missing:
            raise rejection
        change.skipped = True
        return None
    return change


def key_of(current: rollback.CurrentAssignment) -> Key:
    """Return the key of an alias."""
    return current.origin, current.alias


def scope_of(request: v1.RollbackRequest) -> str:
    """Return the scope of a rollback as text: models@aliases."""
    return f"{request.models}@{request.aliases}"


def read_state(
    connection: sa.Connection,
    request: v1.RollbackRequest,
    to_position: int | None,
    bound: policies.State,
    names: Callable[[str], Sequence[str]],
) -> RollbackState:
    """Read the state that a rollback depends on.

    Args:
        connection: The registry's rows.
        request: The rollback.
        to_position: The position to go back to; None for the previous assignment of each alias.
        bound: The policies.
        names: Returns all names that a model ever had.
    """
    current = rollback.assignments_in(connection, request.models, request.aliases)
    keys = [key_of(assignment) for assignment in current]
    earlier = (
        rollback.previous_holders(connection, keys)
        if to_position is None
        else rollback.assignments_at(connection, keys, to_position)
    )
    back = {key: change.to_version for key, change in earlier.items() if change.to_version}
    versions = rollback.versions_of(connection, sorted({(origin, version) for (origin, _), version in back.items()}))
    gated = {
        key_of(assignment) for assignment in current if binding_move(bound, names(assignment.model), assignment.alias)
    }
    ended = rollback.last_assigned(connection, {key: version for key, version in back.items() if key in gated})
    return RollbackState(position_of(connection), current, earlier, versions, ended, bound)


def check_expected(request: v1.RollbackRequest, seen: RollbackState) -> None:
    """Check the condition of a rollback.

    Raises:
        Conflict: CHANGED_SINCE or WRONG_REVISION.
        Rejected: INVALID_SCOPE.
    """
    if request.HasField("expected_position"):
        for current in seen.current:
            if current.revision > request.expected_position:
                message = f"{current.model}@{current.alias} changed at revision {current.revision}"
                raise Conflict("CHANGED_SINCE", message, **_details(current))
    if request.HasField("expected_revision"):
        if len(seen.current) > 1:
            message = f"expected_revision needs a scope of one alias, got {len(seen.current)}"
            raise Rejected(Kind.INVALID, "INVALID_SCOPE", message, scope=scope_of(request))
        [current] = seen.current
        if current.revision != request.expected_revision:
            now = v1.Alias(
                model=current.model,
                alias=current.alias,
                version=current.version,
                digest=current.digest,
                revision=current.revision,
            )
            message = (
                f"{current.model}@{current.alias} is at revision {current.revision}, not {request.expected_revision}"
            )
            raise Conflict("WRONG_REVISION", message, current=now, **_details(current))


def _details(current: rollback.CurrentAssignment) -> dict[str, Any]:
    return {"model": current.model, "alias": current.alias, "revision": str(current.revision)}


def _unusable(current: rollback.CurrentAssignment, version: int, seen: RollbackState) -> Rejected | None:
    details: dict[str, Any] = {"model": current.model, "alias": current.alias, "version": str(version)}
    if current.model_deleted:
        return Rejected(Kind.PRECONDITION, "MODEL_DELETED", f"model {current.model!r} is deleted", **details)
    known = seen.versions.get((current.origin, version))
    if known is None:
        fault = f"version {version} of {current.model!r}, which had the alias {current.alias}, was never registered"
        return Rejected(Kind.NOT_FOUND, "VERSION_NOT_FOUND", fault, **details)
    if known.deleted:
        message = f"version {version} of {current.model!r}, which had the alias {current.alias}, is deleted"
        return Rejected(Kind.PRECONDITION, "VERSION_DELETED", message, **details)
    if known.status != v1.VERSION_STATUS_READY:
        message = f"version {version} of {current.model!r}, which had the alias {current.alias}, is not READY"
        return Rejected(Kind.PRECONDITION, "VERSION_NOT_READY", message, **details)
    return None


def event_of(current: rollback.CurrentAssignment, change: v1.RollbackChange, gate_result: GateResult) -> Message:
    """Return the event of a change: a move, a removal, or a move that a gate refuses."""
    if not change.to_version:
        return v1.AliasRemoved(
            model=current.model,
            alias=current.alias,
            from_version=current.version,
            from_digest=current.digest,
            cause=v1.ALIAS_CAUSE_ROLLBACK,
            policy_revision=gate_result.policy_revision,
        )
    moved = v1.AliasMoved(
        model=current.model,
        alias=current.alias,
        from_version=current.version,
        to_version=change.to_version,
        from_digest=current.digest,
        to_digest=change.to_digest,
        cause=v1.ALIAS_CAUSE_ROLLBACK,
        restored_revision=change.restored_revision,
        evidence=gate_result.evidence,
        skipped_gates=gate_result.skipped,
        policy_revision=gate_result.policy_revision,
    )
    return moved if passed(gate_result) else refused(moved)


def change_of(event: RecordedEvent) -> v1.RollbackChange:
    """Return the change that an event made."""
    payload = event.data
    change = v1.RollbackChange(model=payload.model, alias=payload.alias, from_version=payload.from_version)  # type: ignore[attr-defined]
    if isinstance(payload, v1.AliasMoved):
        change.to_version, change.to_digest = payload.to_version, payload.to_digest
        change.restored_revision = payload.restored_revision
        change.skipped_gates.extend(payload.skipped_gates)
        change.evidence.extend(payload.evidence)
    return change
