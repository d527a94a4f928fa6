"""Commands of the registry that take more than one stream's state: names, policies, gates, release sets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from eventstore import (
    CommandHandler,
    Conflict,
    EventTooLarge,
    Kind,
    Metadata,
    Outcome,
    Plan,
    RecordedEvent,
    Rejected,
)
from rollforward import v1
from services.registry import model_stream, origin_of
from services.registry.deciders import aliases
from services.registry.deciders.models import Register, exists
from services.registry.deciders.policies import GateResult, binding_move
from services.registry.deciders.preconditions import check_model, check_usable
from services.registry.deciders.state import State
from services.registry.gates.evaluator import Case, GateEvaluator
from services.registry.live_view import LiveView
from services.registry.near_aliases import new_alias
from services.registry.release_sets import Target, check_release_set, kept_alias, move_of
from services.validation import check_model_name

Events = tuple[RecordedEvent, ...]
T = TypeVar("T")

ATTEMPTS = 16
_STALE = {"EVIDENCE_STALE", "GATE_CHANGED", "NAME_TAKEN"}


MAX_CREATED_COMPARED = 10
"""For how many new aliases of a release set near names are looked for: whoever creates more means it."""


class Commands:
    """Handles the registry's commands.

    Args:
        handler: Of the models' streams.
        judge: Asks gates.
        live: What the log says now.
    """

    def __init__(self, handler: CommandHandler[State], gate_evaluator: GateEvaluator, live: LiveView) -> None:
        self._handler = handler
        self._gate_evaluator = gate_evaluator
        self._live = live

    @property
    def epoch(self) -> int:
        """The epoch of the registry log."""
        return self._live.store.epochs[-1]

    async def stream_of(self, model: str) -> str:
        """Return the stream of the model that has or had this name; that of the name itself when there is none."""
        stream = model_stream(model)
        state = await self._handler.cached_state(stream)
        if not state.name and not state.origin_of_name:
            state, _ = await self._handler.state(stream)
        return model_stream(state.origin_of_name) if state.origin_of_name else stream

    async def handle(self, model: str, command: object, metadata: Metadata) -> Outcome[State]:
        """Handle a command on one model."""

        async def attempt() -> Outcome[State]:
            return await self._handler.handle(await self.stream_of(model), command, metadata)

        return await _while_stale(attempt)

    def new_alias(self, alias: str, state: State) -> v1.NewAlias:
        """Return what is said of an alias of a model that was not set before."""
        return new_alias(alias, state, self._live.policies, self._live.names(state.name))

    async def new_aliases(self, events: Events) -> list[v1.NewAlias]:
        """Return the aliases that events set which were not set before, with the names near the first few of them."""
        moved = [event.data for event in events if _creates(event)]
        created = [v1.NewAlias(model=payload.model, alias=payload.alias) for payload in moved]  # type: ignore[attr-defined]
        for alias in created[:MAX_CREATED_COMPARED]:
            _, state, _ = await self.state(alias.model)
            alias.near.extend(self.new_alias(alias.alias, state).near)
        return created

    async def state(self, model: str) -> tuple[str, State, int]:
        """Return the stream of a model, its newest state and revision."""
        stream = model_stream(model)
        state, revision = await self._handler.state(stream)
        if state.origin_of_name:
            stream = model_stream(state.origin_of_name)
            state, revision = await self._handler.state(stream)
        return stream, state, revision

    async def move(self, request: v1.MoveAliasRequest, metadata: Metadata) -> Outcome[State]:
        """Move an alias, through the gates that bind it."""

        async def attempt() -> Outcome[State]:
            stream = await self.stream_of(request.model)
            [gate_result] = await self.gate_results([Target(request.model, request.alias, request.version)])
            return await self._handler.handle(
                stream, aliases.Move(request, gate_result, time.time_ns(), self.epoch), metadata
            )

        return await _while_stale(attempt)

    async def remove(self, request: v1.RemoveAliasRequest, metadata: Metadata) -> Outcome[State]:
        """Remove an alias."""
        command = aliases.Remove(request, self._reasons(request.model, request.alias), self.epoch)
        return await self.handle(request.model, command, metadata)

    async def schedule(self, request: v1.ScheduleMoveRequest, schedule_id: str, metadata: Metadata) -> Outcome[State]:
        """Schedule a move; its gates are evaluated when it is due."""
        gate_result = self._reasons(request.model, request.alias)
        command = aliases.ScheduleMove(request, schedule_id, gate_result, self.epoch, time.time_ns())
        return await self.handle(request.model, command, metadata)

    async def fire(self, stream: str, schedule_id: str, metadata: Metadata) -> None:
        """Make a due move, or record why it is impossible."""

        async def attempt() -> Outcome[State]:
            state, _ = await self._handler.state(stream)
            schedule = state.schedules.get(schedule_id)
            gate_result = GateResult()
            if schedule:
                [gate_result] = await self.gate_results([Target(state.name, schedule.alias, schedule.version)])
            try:
                return await self._handler.handle(stream, aliases.Fire(state.name, schedule_id, gate_result), metadata)
            except EventTooLarge as error:  # all that its gates have seen: it would be so again and again
                rejection = Rejected(Kind.INVALID, "MESSAGE_TOO_LARGE", str(error))
                unproven = GateResult(gate_result.policy_revision)
                never = aliases.Fire(state.name, schedule_id, unproven, rejection)
                return await self._handler.handle(stream, never, metadata)

        await _while_stale(attempt)

    async def expire(self, stream: str, alias: str, revision: int, metadata: Metadata) -> None:
        """End an assignment that has expired, if it is still current."""
        await self._handler.handle(stream, aliases.Expire("", alias, revision), metadata)

    async def gate_results(self, targets: Sequence[Target]) -> list[GateResult]:
        """Return what the policies that bind moves say of each, by what each model and all runs are at one moment."""
        policies = self._live.policies
        names = {target.model: self._live.names(target.model) for target in targets}
        bound = {target.model for target in targets if binding_move(policies, names[target.model], target.alias)}
        if not bound:
            return [GateResult(policies.revision)] * len(targets)
        states = {model: (await self.state(model))[1] for model in bound}
        cases = [
            Case(states.get(model, State()), names[model], alias, version, skip)
            for model, alias, version, skip in targets
        ]
        return await self._gate_evaluator.moves(policies, cases)

    def _reasons(self, model: str, alias: str) -> GateResult:
        policies = self._live.policies
        binding = binding_move(policies, self._live.names(model), alias)
        return GateResult(policies.revision, tuple(policy.name for policy in binding if policy.reason_required))

    async def register(
        self,
        request: v1.RegisterVersionRequest,
        digest: Callable[[], Awaitable[str]],
        metadata: Metadata,
        copied_from: v1.VersionSource | None = None,
    ) -> Outcome[State]:
        """Register a version if its gates pass; `digest` returns its digest, or raises `Rejected`."""
        check_model_name(request.model)

        async def attempt() -> Outcome[State]:
            stream, state, _ = await self.state(request.model)
            names = self._live.names(request.model)
            try:
                artifact_digest = await digest()
                evidence, gate_result = await self._gate_evaluator.registration(
                    self._live.policies, names, state.gate, request.run_id, request.tags
                )
            except Rejected as refusal:
                return await self._refuse(request.model, refusal, metadata)
            command = Register(request, artifact_digest, evidence, gate_result, copied_from)
            return await self._handler.handle(stream, command, metadata)

        return await _while_stale(attempt)

    async def _refuse(self, model: str, rejection: Rejected, metadata: Metadata) -> Outcome[State]:
        """Raise the rejection of a version, unless the same request registered it before."""
        never = Register(v1.RegisterVersionRequest(model=model), "", rejection=rejection)
        return await self._handler.handle(await self.stream_of(model), never, metadata)

    async def copy(self, request: v1.CopyVersionRequest, metadata: Metadata) -> Outcome[State]:
        """Register a version again under another model."""
        _, state, _ = await self.state(request.model)
        try:
            check_model(request.model, state)
            version = check_usable(request.model, request.version, state)
        except Rejected as refusal:
            return await self._refuse(request.to_model, refusal, metadata)
        again = v1.RegisterVersionRequest(
            model=request.to_model,
            run_id=version.run_id,
            artifact_path=version.artifact_path,
            description=version.description,
            tags=dict(version.tags.items()),
            reason=request.reason,
        )
        source = v1.VersionSource(model=request.model, version=request.version, revision=version.revision)

        async def digest() -> str:
            return version.digest

        return await self.register(again, digest, metadata, source)

    async def rename(self, request: v1.RenameModelRequest, metadata: Metadata) -> int:
        """Rename a model, and return the position to read from."""
        check_model_name(request.new_name)

        async def plan() -> Plan:
            stream, state, revision = await self.state(request.model)
            check_model(request.model, state)
            named = model_stream(request.new_name)
            other, other_revision = await self._handler.state(named)
            seen = {stream: revision, named: other_revision}
            if request.new_name == request.model:
                return Plan((), {stream: revision})
            renamed = v1.ModelRenamed(model=request.model, to_name=request.new_name)
            if stream in (named, model_stream(other.origin_of_name)):  # a name that it had before
                return Plan([(stream, renamed)], {stream: revision})
            if other.name or other.origin_of_name:
                raise exists(request.new_name)
            taken = v1.ModelNameTaken(name=request.new_name, origin=origin_of(stream))
            return Plan([(stream, renamed), (named, taken)], seen)

        return (await self._handler.handle_across(plan, metadata))[1]

    async def move_together(self, request: v1.MoveAliasesRequest, metadata: Metadata) -> tuple[Events, int]:
        """Move a release set, and return its events and the position to read from."""
        check_release_set(request)
        targets = [Target(target.model, target.alias, target.version) for target in request.targets]

        async def attempt() -> tuple[Events, int]:
            judged = await self.gate_results(targets)
            return await self._handler.handle_across(lambda: self._release(request, judged), metadata)

        return await _while_stale(attempt)

    async def _release(self, request: v1.MoveAliasesRequest, judged: Sequence[GateResult]) -> Plan:
        models = await self._states(request)
        moves: list[tuple[str, Message]] = []
        kept: list[tuple[str, Message]] = []
        for target, gate_result in zip(request.targets, judged, strict=True):
            stream, state, _ = models[target.model]
            made = aliases.move(aliases.Move(move_of(target, request), gate_result, epoch=self.epoch), state)
            moves += [(stream, event) for event in made]
            kept += [] if made else [(stream, kept_alias(target, state))]
        seen = {stream: revision for stream, _, revision in models.values()}
        if refused := [(stream, event) for stream, event in moves if isinstance(event, v1.AliasMoveRefused)]:
            return Plan(refused, seen)
        if moves:
            # What stays is written down too, so that the append is refused when it did not.
            return Plan(moves + kept, seen)
        if seen != {stream: revision for stream, _, revision in (await self._states(request)).values()}:
            return await self._release(request, judged)  # they may never have stood so at one time
        return Plan((), seen)

    async def _states(self, request: v1.MoveAliasesRequest) -> dict[str, tuple[str, State, int]]:
        names = dict.fromkeys(target.model for target in request.targets)
        return dict(zip(names, await asyncio.gather(*(self.state(name) for name in names)), strict=True))

    async def across(self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata) -> tuple[Events, int]:
        """Handle a command over several streams that was planned elsewhere."""
        return await _while_stale(lambda: self._handler.handle_across(plan, metadata))


def _creates(event: RecordedEvent) -> bool:
    return isinstance(event.data, v1.AliasMoved) and not event.data.from_version


async def _while_stale(attempt: Callable[[], Awaitable[T]]) -> T:
    """Evaluate the gates again if their input has changed since."""
    for number in range(ATTEMPTS):
        try:
            return await attempt()
        except Conflict as conflict:
            if conflict.reason not in _STALE or number == ATTEMPTS - 1:
                raise
    raise AssertionError
