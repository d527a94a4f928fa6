"""Rollbacks: which past assignments of which aliases come back, as one plan."""

from __future__ import annotations

import time
from collections.abc import Sequence

from eventstore import (
    MAX_APPEND_EVENTS,
    Kind,
    Metadata,
    Plan,
    Projector,
    Rejected,
    TooManyEvents,
    check_epoch,
)
from rollforward import v1
from services.listings.globs import is_literal
from services.registry import model_stream
from services.registry.commands import Commands
from services.registry.deciders.policies import GateResult, binding_move
from services.registry.deciders.preconditions import alias_not_found, check_reason, model_not_found
from services.registry.live_view import LiveView
from services.registry.queries import rollback
from services.registry.release_sets import Target
from services.registry.rollback_plan import (
    PlannedRollback,
    RollbackState,
    change_of,
    check_expected,
    event_of,
    key_of,
    read_state,
    restored_change,
    scope_of,
)

DAY = 86_400 * 1_000_000_000
RECENT_DAYS = 30


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

    def __init__(self, commands: Commands, projector: Projector, live: LiveView) -> None:
        self._commands = commands
        self._projector = projector
        self._live = live

    async def do(self, request: v1.RollbackRequest, to_position: int | None, metadata: Metadata) -> v1.RollbackResponse:
        """Roll back, or return what a rollback would do; `to_position` None for the previous assignments.

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
        planned: list[PlannedRollback] = []

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
        return [change_of(event) for event in events]  # it was done before, by the same request

    async def plan(self, request: v1.RollbackRequest, to_position: int | None) -> PlannedRollback:
        """Return what the rollback would do now. Raises as `do`."""
        if names_positions(request):
            check_epoch("registry", request.epoch, self._commands.epoch)
        await self._projector.wait_for(await self._projector.store.head())
        bound = self._live.policies
        seen = await self._projector.query(
            lambda connection: read_state(connection, request, to_position, bound, self._live.names)
        )
        if not seen.current:
            raise self._nothing_in(request)
        check_expected(request, seen)
        planned = PlannedRollback(seen)
        scope = (
            seen.current
            if to_position is not None
            else [current for current in seen.current if key_of(current) in seen.before]
        )
        if not scope:
            message = "nothing to restore: no alias in the scope had another version before"
            raise Rejected(Kind.PRECONDITION, "NOTHING_TO_RESTORE", message, scope=scope_of(request))
        due = [(current, change) for current in scope if (change := restored_change(request, current, planned))]
        for (current, change), gate_result in zip(due, await self._gate_results(due, seen), strict=True):
            check_reason(request.reason, gate_result)
            change.skipped_gates.extend(gate_result.skipped)
            change.evidence.extend(gate_result.evidence)
            planned.events.append((model_stream(current.origin), event_of(current, change, gate_result)))
        if len(planned.plan.events) > MAX_APPEND_EVENTS:
            raise TooManyEvents(len(planned.plan.events), MAX_APPEND_EVENTS)
        return planned

    def _nothing_in(self, request: v1.RollbackRequest) -> Rejected:
        """Return the error for a scope without aliases: the model or the alias does not exist."""
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
        self, due: Sequence[tuple[rollback.CurrentAssignment, v1.RollbackChange]], seen: RollbackState
    ) -> Sequence[GateResult]:
        moves = [
            Target(current.model, current.alias, change.to_version, self._is_recent(current, seen))
            for current, change in due
            if change.to_version
        ]
        judged = iter(await self._commands.gate_results(moves))
        return [next(judged) if change.to_version else self._of_removal(current, seen) for current, change in due]

    def _of_removal(self, current: rollback.CurrentAssignment, seen: RollbackState) -> GateResult:
        binding = binding_move(seen.policies, self._live.names(current.model), current.alias)
        return GateResult(seen.policies.revision, tuple(policy.name for policy in binding if policy.reason_required))

    def _is_recent(self, current: rollback.CurrentAssignment, seen: RollbackState) -> bool:
        """Return whether the restored version had the alias recently enough for all of its policies."""
        binding = binding_move(seen.policies, self._live.names(current.model), current.alias)
        days = min((policy.recent_days or RECENT_DAYS for policy in binding), default=0)
        return time.time_ns() - seen.ended.get(key_of(current), 0) <= days * DAY
