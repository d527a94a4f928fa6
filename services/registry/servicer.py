"""The registry's gRPC methods."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from google.protobuf.message import Message

from eventstore.decider import CommandHandler, Outcome
from eventstore.errors import Conflict, Kind, Rejected
from eventstore.event import RecordedEvent
from eventstore.projection import Projector
from rollforward import v1
from services.names import check_alias, check_digest, check_model_name
from services.registry import model_stream, queries, runs
from services.registry.decider import Assignment, Register, Rollback, State
from services.registry.gate import check_expression, evaluate
from services.registry.projection import change_of
from services.rpc import Command, Context, metadata, wait_for
from services.times import nanoseconds

BOOKMARK_SECONDS = 5.0


class RegistryServicer(v1.RegistryServiceServicer):
    """Models, versions and aliases.

    Args:
        commands: The registry's commands.
        projector: The registry's rows.
        known_runs: What the registry knows of runs.
        artifact_exists: Whether an artifact of that digest is stored.
    """

    def __init__(
        self,
        commands: CommandHandler[State],
        projector: Projector,
        known_runs: Projector,
        artifact_exists: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._commands = commands
        self._rows = projector
        self._runs = known_runs
        self._artifact_exists = artifact_exists

    async def CreateModel(self, request: v1.CreateModelRequest, context: Context) -> v1.CreateModelResponse:
        """Creates a model."""
        if request.registration_gate:
            check_expression(request.registration_gate)
        done = await self._handle(request.name, request, request, context)
        model = await self._rows.query(lambda rows: queries.model(rows, request.name))
        return v1.CreateModelResponse(model=model, position=done.position)

    async def SetRegistrationGate(
        self, request: v1.SetRegistrationGateRequest, context: Context
    ) -> v1.SetRegistrationGateResponse:
        """Sets, changes or lifts the gate that new versions must pass."""
        if request.expression:
            check_expression(request.expression)
        done = await self._handle(request.model, request, request, context)
        return v1.SetRegistrationGateResponse(position=done.position)

    async def GetModel(self, request: v1.GetModelRequest, context: Context) -> v1.GetModelResponse:
        """One model."""
        return v1.GetModelResponse(model=await self._rows.query(lambda rows: queries.model(rows, request.name)))

    async def ListModels(self, request: v1.ListModelsRequest, context: Context) -> v1.ListModelsResponse:
        """Models, by name."""
        return await self._rows.query(lambda rows: queries.list_models(rows, request))

    async def RegisterVersion(self, request: v1.RegisterVersionRequest, context: Context) -> v1.RegisterVersionResponse:
        """Registers a version, and the model with it when it is new."""
        check_model_name(request.model)
        digest = await self._digest(request)
        evidence = await self._evidence(request)
        done = await self._handle(request.model, Register(request, digest, evidence), request, context)
        number = next(event.data.version for event in done.events if isinstance(event.data, v1.VersionRegistered))
        version = await self._rows.query(lambda rows: queries.version(rows, request.model, number))
        return v1.RegisterVersionResponse(version=version, position=done.position)

    async def _digest(self, request: v1.RegisterVersionRequest) -> str:
        if request.run_id:
            logged = await self._runs.query(lambda rows: runs.artifact(rows, request.run_id, request.artifact_path))
            if request.digest not in ("", logged):
                words = f"the run's artifact has the digest {logged}, not {request.digest}"
                raise Rejected(Kind.INVALID, "INVALID_DIGEST", words, digest=request.digest, logged=logged)
            return logged
        check_digest(request.digest)
        if not await self._artifact_exists(request.digest):
            words = f"no artifact {request.digest} is stored"
            raise Rejected(Kind.NOT_FOUND, "ARTIFACT_NOT_FOUND", words, digest=request.digest)
        return request.digest

    async def _evidence(self, request: v1.RegisterVersionRequest) -> v1.GateEvidence | None:
        state, _ = await self._commands.state(model_stream(request.model))
        if not state.gate:
            return None
        if not request.run_id:
            return v1.GateEvidence(expression=state.gate, detail="there is no run to judge")
        run, position = await self._runs.query(lambda rows: runs.evidence(rows, request.run_id))
        return evaluate(state.gate, run, position)

    async def GetVersion(self, request: v1.GetVersionRequest, context: Context) -> v1.GetVersionResponse:
        """One version."""
        version = await self._rows.query(lambda rows: queries.version(rows, request.model, request.version))
        return v1.GetVersionResponse(version=version)

    async def ListVersions(self, request: v1.ListVersionsRequest, context: Context) -> v1.ListVersionsResponse:
        """A model's versions, newest first."""
        return await self._rows.query(lambda rows: queries.list_versions(rows, request))

    async def MoveAlias(self, request: v1.MoveAliasRequest, context: Context) -> v1.MoveAliasResponse:
        """Moves an alias."""
        done = await self._handle(request.model, request, request, context)
        alias = await self._alias(request.model, request.alias, done)
        return v1.MoveAliasResponse(alias=alias, moved=bool(done.events), position=done.position)

    async def RemoveAlias(self, request: v1.RemoveAliasRequest, context: Context) -> v1.RemoveAliasResponse:
        """Removes an alias."""
        done = await self._handle(request.model, request, request, context)
        return v1.RemoveAliasResponse(position=done.position)

    async def RollbackAlias(self, request: v1.RollbackAliasRequest, context: Context) -> v1.RollbackAliasResponse:
        """Replays a past assignment of an alias as a new event."""
        past = await self._past(request, context) if request.HasField("to") else None
        done = await self._handle(request.model, Rollback(request, past), request, context)
        alias = await self._alias(request.model, request.alias, done)
        restored = [event.data.restored_revision for event in done.events if isinstance(event.data, v1.AliasMoved)]
        return v1.RollbackAliasResponse(
            alias=alias, moved=bool(done.events), restored_revision=sum(restored), position=done.position
        )

    async def _past(self, request: v1.RollbackAliasRequest, context: Context) -> Assignment:
        check_alias(request.alias)
        position = await self._position(request.to, context)
        state, _ = await self._commands.state(model_stream(request.model), until=position)
        return state.alias(request.alias)

    async def ResolveAlias(self, request: v1.ResolveAliasRequest, context: Context) -> v1.ResolveAliasResponse:
        """Which version an alias names, now or as of a position or time."""
        check_alias(request.alias)
        position = await self._position(request.at, context) if request.HasField("at") else None
        return await self._rows.query(lambda rows: queries.resolve(rows, request.model, request.alias, position))

    async def _position(self, at: v1.AsOf, context: Context) -> int:
        if at.WhichOneof("point") is None:
            raise Rejected(Kind.INVALID, "INVALID_AS_OF", "a position or a time is needed")
        if at.HasField("time"):
            return await self._position_at(nanoseconds(at.time), context)
        if at.position > self._rows.position and at.position > await self._rows.store.head():
            words = f"the log has not come to position {at.position}"
            raise Rejected(Kind.INVALID, "POSITION_AHEAD", words, position=str(at.position))
        await wait_for(self._rows, at.position, context)
        return at.position

    async def _position_at(self, time_ns: int, context: Context) -> int:
        position, _ = await self._rows.position_at(time_ns)
        if position < self._rows.position:
            return position
        # The rows know of nothing later: the log may.
        await wait_for(self._rows, await self._rows.store.head(), context)
        return (await self._rows.position_at(time_ns))[0]

    async def ListAliasHistory(
        self, request: v1.ListAliasHistoryRequest, context: Context
    ) -> v1.ListAliasHistoryResponse:
        """The changes of a model's aliases, newest first."""
        return await self._rows.query(lambda rows: queries.list_history(rows, request))

    async def WatchAliases(
        self, request: v1.WatchAliasesRequest, context: Context
    ) -> AsyncIterator[v1.WatchAliasesResponse]:
        """Follows aliases: a snapshot, then every change, in order, each once."""
        if request.HasField("from_revision"):
            after = request.from_revision
        else:
            aliases, after = await self._rows.query(lambda rows: queries.snapshot(rows, request.model, request.alias))
            yield v1.WatchAliasesResponse(snapshot=v1.AliasSnapshot(aliases=aliases), position=after)
        told = time.monotonic()
        async for events, position in self._rows.follow(after, BOOKMARK_SECONDS):
            for changes in _changes_by_append(events, request):
                upto = changes.changes[-1].revision
                yield v1.WatchAliasesResponse(changes=changes, position=upto)
                told = time.monotonic()
            # Others' changes alone must not leave a watcher without a sign of life.
            if not events or time.monotonic() - told > BOOKMARK_SECONDS:
                yield v1.WatchAliasesResponse(bookmark=v1.Bookmark(), position=position)
                told = time.monotonic()

    async def _handle(self, model: str, command: object, request: Command, context: Context) -> Outcome[State]:
        try:
            done = await self._commands.handle(model_stream(model), command, metadata(request, context))
        except Conflict as conflict:
            if isinstance(seen := conflict.current, v1.Alias):
                # Who moved it, when and why, is in the rows.
                await wait_for(self._rows, seen.revision, context)
                conflict.current = await self._rows.query(
                    lambda rows: queries.assignment(rows, model, seen.alias, seen.revision)
                )
            raise
        await wait_for(self._rows, done.position, context)
        return done

    async def _alias(self, model: str, alias: str, done: Outcome[State]) -> v1.Alias:
        return await self._rows.query(lambda rows: queries.assignment(rows, model, alias, done.position))


def _changes_by_append(events: Sequence[RecordedEvent], request: v1.WatchAliasesRequest) -> Iterator[v1.AliasChanges]:
    changes = v1.AliasChanges()
    for event in events:
        if _matches(event.data, request):
            changes.changes.append(change_of(event))
        if event.closes_append and changes.changes:
            yield changes
            changes = v1.AliasChanges()


def _matches(fact: Message, request: v1.WatchAliasesRequest) -> bool:
    if not isinstance(fact, (v1.AliasMoved, v1.AliasRemoved)):
        return False
    return request.model in ("", fact.model) and request.alias in ("", fact.alias)
