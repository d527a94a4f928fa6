"""Rollbacks: which past assignments of which aliases come back, as one plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import (
    MAX_APPEND_EVENTS,
    Conflict,
    Kind,
    Metadata,
    Plan,
    Projector,
    RecordedEvent,
    Rejected,
    TooManyEvents,
    check_epoch,
    position_of,
)
from rollforward import v1
from services.listings.globs import is_literal
from services.registry import model_stream
from services.registry.commands import Commands, Target
from services.registry.deciders import policies
from services.registry.deciders.aliases import passed, refused
from services.registry.deciders.policies import GateResult, binding_move
from services.registry.deciders.preconditions import alias_not_found, check_reason, model_not_found
from services.registry.live_view import Live
from services.registry.queries import rollback

DAY = 86_400 * 1_000_000_000
RECENT_DAYS = 30

Key = tuple[str, str]
"""An alias: its model's origin, and its name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a rollback looks at, all of one moment, the registry position `computed_at`.

    Attributes:
        held: Every alias in the scope as it stands.
        before: By alias, the assignment to go back to; without one there is none.
        versions: By model and number, the versions to come back.
        ended: By alias that a policy binds, when (ns) the version to come back last stopped holding it.
        policies: Those that bind.
    """

    computed_at: int
    held: Sequence[rollback.Held]
    before: Mapping[Key, v1.AliasChange]
    versions: Mapping[tuple[str, int], rollback.KnownVersion]
    ended: Mapping[Key, int]
    policies: policies.State


@dataclass(slots=True)
class Planned:
    """What a rollback comes to: what it appends, on what condition, and what it changes."""

    seen: Seen
    events: list[tuple[str, Message]] = field(default_factory=list)
    changes: list[v1.RollbackChange] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        """As the log takes it: all of it, unless a gate refuses a part."""
        refusals = [(stream, event) for stream, event in self.events if isinstance(event, v1.AliasMoveRefused)]
        seen = {model_stream(held.origin): held.stream_revision for held in self.seen.held}
        return Plan(refusals or self.events, seen)


def names_positions(request: v1.RollbackRequest) -> bool:
    """Return whether a rollback depends on positions or a revision that its caller has read."""
    expects = request.HasField("expected_position") or request.HasField("expected_revision")
    return expects or (request.WhichOneof("to") == "as_of" and request.as_of.HasField("position"))


class Rollbacks:
    """Plans rollbacks from rows of one moment, and has them done only as long as what they saw still holds.

    Args:
        commands: The registry's commands.
        rows: The registry's rows.
        live: What the log says now.
    """

    def __init__(self, commands: Commands, projector: Projector, live: Live) -> None:
        self._commands = commands
        self._projector = projector
        self._live = live

    async def do(self, request: v1.RollbackRequest, to_position: int | None, metadata: Metadata) -> v1.RollbackResponse:
        """Does a rollback, or says what it would do; `to_position` None for the previous holders.

        Raises:
            Rejected, Conflict: As the contract says of Rollback.
        """
        response = v1.RollbackResponse(to_position=to_position or 0)
        changes: Sequence[v1.RollbackChange]
        if request.dry_run:
            planned = await self.plan(request, to_position)
            changes, response.computed_at = planned.changes, planned.seen.computed_at
            response.position = response.computed_at
        else:
            changes = await self._append(request, to_position, metadata, response)
        response.changes.extend(sorted(changes, key=lambda change: (change.model, change.alias)))
        return response

    async def _append(
        self, request: v1.RollbackRequest, to_position: int | None, metadata: Metadata, response: v1.RollbackResponse
    ) -> Sequence[v1.RollbackChange]:
        planned: list[Planned] = []

        async def plan() -> Plan:
            planned.append(await self.plan(request, to_position))
            return planned[-1].plan

        events, response.position = await self._commands.across(plan, metadata)
        if not events:
            response.computed_at = planned[-1].seen.computed_at
            return planned[-1].changes
        response.revision = events[-1].append_end
        response.computed_at = events[0].position - 1
        if planned and [event.data for event in events] == [event for _, event in planned[-1].events]:
            return planned[-1].changes
        return [_change_of(event) for event in events]  # it was done before, by the same request

    async def plan(self, request: v1.RollbackRequest, to_position: int | None) -> Planned:
        """What the rollback would do now. Raises as `do`."""
        if names_positions(request):
            check_epoch("registry", request.epoch, self._commands.epoch)
        await self._projector.wait_for(await self._projector.store.head())
        bound = self._live.policies
        seen = await self._projector.query(
            lambda connection: _look(connection, request, to_position, bound, self._live.names)
        )
        if not seen.held:
            raise self._nothing_in(request)
        _check_expected(request, seen)
        planned = Planned(seen)
        scope = seen.held if to_position is not None else [held for held in seen.held if _key(held) in seen.before]
        if not scope:
            words = "no alias in the scope has had another version"
            raise Rejected(Kind.PRECONDITION, "NOTHING_TO_RESTORE", words, scope=_scope(request))
        due = [(held, change) for held in scope if (change := _restored(request, held, planned))]
        for (held, change), gate_result in zip(due, await self._gate_results(due, seen), strict=True):
            check_reason(request.reason, gate_result)
            change.skipped_gates.extend(gate_result.skipped)
            change.evidence.extend(gate_result.evidence)
            planned.events.append((model_stream(held.origin), _event(held, change, gate_result)))
        if len(planned.plan.events) > MAX_APPEND_EVENTS:
            raise TooManyEvents(len(planned.plan.events), MAX_APPEND_EVENTS)
        return planned

    def _nothing_in(self, request: v1.RollbackRequest) -> Rejected:
        """Return the refusal of a scope without an alias: whether it is the model or its alias that there is not."""
        models, of_alias = request.models, request.aliases
        if is_literal(models):
            self._live.check_name(models)
            if not self._live.is_model(models):
                return model_not_found(models)
            if is_literal(of_alias):
                return alias_not_found(models, of_alias)
            fault = f"model {models!r} has no alias that matches {of_alias!r}"
        else:
            fault = f"no model that matches {models!r} has an alias that matches {of_alias!r}"
        return Rejected(Kind.NOT_FOUND, "ALIAS_NOT_FOUND", fault, model=models, alias=of_alias)

    async def _gate_results(
        self, due: Sequence[tuple[rollback.Held, v1.RollbackChange]], seen: Seen
    ) -> Sequence[GateResult]:
        moves = [
            Target(held.model, held.alias, change.to_version, self._is_recent(held, seen))
            for held, change in due
            if change.to_version
        ]
        judged = iter(await self._commands.gate_results(moves))
        return [next(judged) if change.to_version else self._of_removal(held, seen) for held, change in due]

    def _of_removal(self, held: rollback.Held, seen: Seen) -> GateResult:
        binding = binding_move(seen.policies, self._live.names(held.model), held.alias)
        return GateResult(seen.policies.revision, tuple(policy.name for policy in binding if policy.reason_required))

    def _is_recent(self, held: rollback.Held, seen: Seen) -> bool:
        """Whether the version to come back held the alias lately enough for every policy that binds it."""
        binding = binding_move(seen.policies, self._live.names(held.model), held.alias)
        days = min((policy.recent_days or RECENT_DAYS for policy in binding), default=0)
        return time.time_ns() - seen.ended.get(_key(held), 0) <= days * DAY


def _restored(request: v1.RollbackRequest, held: rollback.Held, planned: Planned) -> v1.RollbackChange | None:
    """Notes the change that a rollback makes to an alias; None when it makes none, or none that can be made."""
    before = planned.seen.before.get(_key(held), v1.AliasChange())
    version = before.to_version
    if version == held.version:
        return None
    change = v1.RollbackChange(model=held.model, alias=held.alias, from_version=held.version, to_version=version)
    if version:
        change.to_digest, change.restored_revision = before.to_digest, before.revision
    planned.changes.append(change)
    if version and (why := _unusable(held, version, planned.seen)):
        if not request.skip_missing:
            raise why
        change.skipped = True
        return None
    return change


def _key(held: rollback.Held) -> Key:
    return held.origin, held.alias


def _scope(request: v1.RollbackRequest) -> str:
    return f"{request.models}@{request.aliases}"


def _look(
    connection: sa.Connection,
    request: v1.RollbackRequest,
    to_position: int | None,
    bound: policies.State,
    names: Callable[[str], Sequence[str]],
) -> Seen:
    held = rollback.assignments_in(connection, request.models, request.aliases)
    keys = [_key(one) for one in held]
    earlier = (
        rollback.previous_holders(connection, keys)
        if to_position is None
        else rollback.assignments_at(connection, keys, to_position)
    )
    back = {key: change.to_version for key, change in earlier.items() if change.to_version}
    versions = rollback.versions_of(connection, sorted({(origin, version) for (origin, _), version in back.items()}))
    gated = {_key(one) for one in held if binding_move(bound, names(one.model), one.alias)}
    ended = rollback.last_held(connection, {key: version for key, version in back.items() if key in gated})
    return Seen(position_of(connection), held, earlier, versions, ended, bound)


def _check_expected(request: v1.RollbackRequest, seen: Seen) -> None:
    if request.HasField("expected_position"):
        for held in seen.held:
            if held.revision > request.expected_position:
                words = f"{held.model}@{held.alias} was changed at revision {held.revision}"
                raise Conflict("CHANGED_SINCE", words, **_about(held))
    if request.HasField("expected_revision"):
        if len(seen.held) > 1:
            words = f"an expected revision is of one alias; {len(seen.held)} are in the scope"
            raise Rejected(Kind.INVALID, "INVALID_SCOPE", words, scope=_scope(request))
        [held] = seen.held
        if held.revision != request.expected_revision:
            current = v1.Alias(
                model=held.model, alias=held.alias, version=held.version, digest=held.digest, revision=held.revision
            )
            words = f"{held.model}@{held.alias} is at revision {held.revision}, not {request.expected_revision}"
            raise Conflict("WRONG_REVISION", words, current=current, **_about(held))


def _about(held: rollback.Held) -> dict[str, Any]:
    return {"model": held.model, "alias": held.alias, "revision": str(held.revision)}


def _unusable(held: rollback.Held, version: int, seen: Seen) -> Rejected | None:
    about: dict[str, Any] = {"model": held.model, "alias": held.alias, "version": str(version)}
    if held.model_deleted:
        return Rejected(Kind.PRECONDITION, "MODEL_DELETED", f"model {held.model!r} is deleted", **about)
    known = seen.versions.get((held.origin, version))
    if known is None:
        fault = f"version {version} of {held.model!r}, which held {held.alias}, was never registered"
        return Rejected(Kind.NOT_FOUND, "VERSION_NOT_FOUND", fault, **about)
    if known.deleted:
        words = f"version {version} of {held.model!r}, which held {held.alias}, is deleted"
        return Rejected(Kind.PRECONDITION, "VERSION_DELETED", words, **about)
    if known.status != v1.VERSION_STATUS_READY:
        words = f"version {version} of {held.model!r}, which held {held.alias}, is not READY"
        return Rejected(Kind.PRECONDITION, "VERSION_NOT_READY", words, **about)
    return None


def _event(held: rollback.Held, change: v1.RollbackChange, gate_result: GateResult) -> Message:
    if not change.to_version:
        return v1.AliasRemoved(
            model=held.model,
            alias=held.alias,
            from_version=held.version,
            from_digest=held.digest,
            cause=v1.ALIAS_CAUSE_ROLLBACK,
            policy_revision=gate_result.policy_revision,
        )
    moved = v1.AliasMoved(
        model=held.model,
        alias=held.alias,
        from_version=held.version,
        to_version=change.to_version,
        from_digest=held.digest,
        to_digest=change.to_digest,
        cause=v1.ALIAS_CAUSE_ROLLBACK,
        restored_revision=change.restored_revision,
        evidence=gate_result.evidence,
        skipped_gates=gate_result.skipped,
        policy_revision=gate_result.policy_revision,
    )
    return moved if passed(gate_result) else refused(moved)


def _change_of(event: RecordedEvent) -> v1.RollbackChange:
    payload = event.data
    change = v1.RollbackChange(model=payload.model, alias=payload.alias, from_version=payload.from_version)  # type: ignore[attr-defined]
    if isinstance(payload, v1.AliasMoved):
        change.to_version, change.to_digest = payload.to_version, payload.to_digest
        change.restored_revision = payload.restored_revision
        change.skipped_gates.extend(payload.skipped_gates)
        change.evidence.extend(payload.evidence)
    return change
