"""The registry's gRPC methods."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from eventstore import Conflict, Kind, Outcome, Projector, Rejected, Tail
from rollforward import v1
from services.registry import origin_of, watch
from services.registry.commands import Commands
from services.registry.deciders.state import State
from services.registry.gates.expression import check_expression
from services.registry.live_view import LiveView
from services.registry.past_positions import PastPositions, described
from services.registry.projection import runs
from services.registry.projection.apply import new_version
from services.registry.queries import aliases as alias_queries
from services.registry.queries import models
from services.registry.rollback import Rollbacks
from services.registry.scheduler import schedule_of
from services.rpc.context import Command, Context, metadata
from services.rpc.positions import wait_for
from services.validation import check_alias, check_digest

T = TypeVar("T")


class _OnModel(Command, Protocol):
    @property
    def model(self) -> str: ...


class RegistryServicer(v1.RegistryServiceServicer):
    """Models, versions and aliases.

    Args:
        commands: The registry's commands.
        rollbacks: The rollbacks.
        live: The live view of the registry.
        projector: The projector of the registry's rows.
        tail: The tail of the registry log.
        known_runs: The projector of the runs that the registry knows.
        artifact_exists: Returns whether an artifact with a digest is stored.
        compose: Creates the artifact at a path from a run's artifacts by path; returns None if there is none. Without
            it only artifacts that were logged as a whole are registered.
    """

    def __init__(
        self,
        commands: Commands,
        rollbacks: Rollbacks,
        live: LiveView,
        projector: Projector,
        tail: Tail,
        known_runs: Projector,
        artifact_exists: Callable[[str], Awaitable[bool]],
        compose: Callable[[Mapping[str, str], str], Awaitable[str | None]] | None = None,
    ) -> None:
        self._commands = commands
        self._rollbacks = rollbacks
        self._live = live
        self._shared = watch.Shared(live)
        self._projector = projector
        self._positions = PastPositions(projector)
        self._tail = tail
        self._runs = known_runs
        self._artifact_exists = artifact_exists
        self._compose = compose

    async def CreateModel(self, request: v1.CreateModelRequest, context: Context) -> v1.CreateModelResponse:
        """Create a model."""
        if request.registration_gate:
            check_expression(request.registration_gate, of_move=False)
        done = await self._commands.handle(request.name, request, metadata(request, context))
        await wait_for(self._projector, done.position, context)
        # By origin: it may have been given another name meanwhile, and it was created nonetheless.
        origin = origin_of(done.events[0].stream)
        model = await self._projector.query(lambda connection: models.model_of(connection, origin))
        return v1.CreateModelResponse(model=model, position=done.position)

    async def RenameModel(self, request: v1.RenameModelRequest, context: Context) -> v1.RenameModelResponse:
        """Rename a model."""
        return v1.RenameModelResponse(position=await self._commands.rename(request, metadata(request, context)))

    async def SetDescription(self, request: v1.SetDescriptionRequest, context: Context) -> v1.SetDescriptionResponse:
        """Change the description of a model or a version."""
        return v1.SetDescriptionResponse(position=await self._done(request, context))

    async def ChangeTags(self, request: v1.ChangeTagsRequest, context: Context) -> v1.ChangeTagsResponse:
        """Set and remove tags of a model or a version."""
        return v1.ChangeTagsResponse(position=await self._done(request, context))

    async def DeleteModel(self, request: v1.DeleteModelRequest, context: Context) -> v1.DeleteModelResponse:
        """Delete a model."""
        done = await self._commands.handle(request.model, request, metadata(request, context))
        return v1.DeleteModelResponse(position=done.position, scheduled_aliases=done.state.scheduled_for())

    async def RestoreModel(self, request: v1.RestoreModelRequest, context: Context) -> v1.RestoreModelResponse:
        """Restore a deleted model."""
        return v1.RestoreModelResponse(position=await self._done(request, context))

    async def SetRegistrationGate(
        self, request: v1.SetRegistrationGateRequest, context: Context
    ) -> v1.SetRegistrationGateResponse:
        """Set, change or remove the gate that new versions must pass."""
        if request.expression:
            check_expression(request.expression, of_move=False)
        return v1.SetRegistrationGateResponse(position=await self._done(request, context))

    async def _done(self, request: _OnModel, context: Context) -> int:
        return (await self._commands.handle(request.model, request, metadata(request, context))).position

    async def GetModel(self, request: v1.GetModelRequest, context: Context) -> v1.GetModelResponse:
        """Return a model."""
        return v1.GetModelResponse(
            model=await self._projector.query(lambda connection: models.model(connection, request.name))
        )

    async def ListModels(self, request: v1.ListModelsRequest, context: Context) -> v1.ListModelsResponse:
        """Return models by filter."""
        return await self._projector.query(lambda connection: models.list_models(connection, request))

    async def RegisterVersion(self, request: v1.RegisterVersionRequest, context: Context) -> v1.RegisterVersionResponse:
        """Register a version, and the model with it when it is new."""
        done = await self._commands.register(request, lambda: self._digest(request), metadata(request, context))
        return v1.RegisterVersionResponse(version=await self._registered(done, context), position=done.position)

    async def CopyVersion(self, request: v1.CopyVersionRequest, context: Context) -> v1.CopyVersionResponse:
        """Register a version of another model under this one."""
        done = await self._commands.copy(request, metadata(request, context))
        return v1.CopyVersionResponse(version=await self._registered(done, context), position=done.position)

    async def _registered(self, done: Outcome[State], context: Context) -> v1.Version:
        [(event, payload)] = [
            (candidate, candidate.data) for candidate in done.events if isinstance(candidate.data, v1.VersionRegistered)
        ]
        await wait_for(self._projector, done.position, context)  # who is told of it by the caller finds it
        # Just appended, nobody has changed it yet; the log says when it was.
        if not event.time and (received := self._tail.kept_at(event.position)):
            return new_version(received)
        origin = origin_of(event.stream)
        return await self._projector.query(lambda connection: models.version_of(connection, origin, payload.version))

    async def _digest(self, request: v1.RegisterVersionRequest) -> str:
        if request.run_id:
            logged = await self._run_digest(request.run_id, request.artifact_path)
            if request.digest not in ("", logged):
                message = f"digest mismatch: the run's artifact has {logged}, got {request.digest}"
                raise Rejected(Kind.INVALID, "INVALID_DIGEST", message, digest=request.digest, logged=logged)
            return logged
        check_digest(request.digest)
        if not await self._artifact_exists(request.digest):
            message = f"no artifact with the digest {request.digest} is stored. Upload it first"
            raise Rejected(Kind.NOT_FOUND, "ARTIFACT_NOT_FOUND", message, digest=request.digest)
        return request.digest

    async def _run_digest(self, run_id: str, path: str) -> str:
        known = await self._runs.query(lambda connection: runs.artifacts_of(connection, run_id))
        digest = known.get(path) or (await self._compose(known, path) if self._compose else None)
        if digest is None:
            raise runs.no_artifact(run_id, path, known)
        return digest

    async def SetVersionStatus(
        self, request: v1.SetVersionStatusRequest, context: Context
    ) -> v1.SetVersionStatusResponse:
        """Set whether a version can be used."""
        done = await self._commands.handle(request.model, request, metadata(request, context))
        return v1.SetVersionStatusResponse(
            position=done.position,
            changed=bool(done.events),
            aliases=done.state.names_of(request.version),
            scheduled_aliases=done.state.scheduled_for(request.version),
        )

    async def DeleteVersion(self, request: v1.DeleteVersionRequest, context: Context) -> v1.DeleteVersionResponse:
        """Delete a version."""
        done = await self._commands.handle(request.model, request, metadata(request, context))
        scheduled = done.state.scheduled_for(request.version)
        return v1.DeleteVersionResponse(position=done.position, scheduled_aliases=scheduled)

    async def RestoreVersion(self, request: v1.RestoreVersionRequest, context: Context) -> v1.RestoreVersionResponse:
        """Restore a deleted version."""
        return v1.RestoreVersionResponse(position=await self._done(request, context))

    async def GetVersion(self, request: v1.GetVersionRequest, context: Context) -> v1.GetVersionResponse:
        """Return a version."""
        version = await self._projector.query(
            lambda connection: models.version(connection, request.model, request.version)
        )
        return v1.GetVersionResponse(version=version)

    async def ListVersions(self, request: v1.ListVersionsRequest, context: Context) -> v1.ListVersionsResponse:
        """Return versions by filter."""
        return await self._projector.query(lambda connection: models.list_versions(connection, request))

    async def MoveAlias(self, request: v1.MoveAliasRequest, context: Context) -> v1.MoveAliasResponse:
        """Move an alias."""
        done = await self._with_conflict_details(self._commands.move(request, metadata(request, context)), context)
        alias = await self._assignment_after(request.model, request.alias, done, context)
        response = v1.MoveAliasResponse(alias=alias, moved=bool(done.events), position=done.position)
        for created in await self._commands.new_aliases(done.events):
            response.created.CopyFrom(created)
        return response

    async def _assignment_after(self, model: str, alias: str, done: Outcome[State], context: Context) -> v1.Alias:
        # A repeated request returns its first result: the state may have changed since.
        revision = done.events[-1].append_end if done.events else done.state.alias(alias).revision
        return await self._assignment(model, alias, revision, context)

    async def _assignment(self, model: str, alias: str, revision: int, context: Context) -> v1.Alias:
        """Return an alias at one of its revisions: from memory, unless it has changed since."""
        await wait_for(self._live, revision, context)
        if (now := self._live.assignment(model, alias)).revision == revision:
            return now
        await wait_for(self._projector, revision, context)
        return await self._projector.query(
            lambda connection: alias_queries.assignment(connection, model, alias, revision)
        )

    async def _with_conflict_details(self, doing: Awaitable[T], context: Context) -> T:
        """Await a command, and add who moved the alias, when and why to a conflict."""
        try:
            return await doing
        except Conflict as conflict:
            if isinstance(seen := conflict.current, v1.Alias) and seen.revision:
                conflict.current = await self._assignment(seen.model, seen.alias, seen.revision, context)
            raise

    async def MoveAliases(self, request: v1.MoveAliasesRequest, context: Context) -> v1.MoveAliasesResponse:
        """Move several aliases at one revision."""
        doing = self._commands.move_together(request, metadata(request, context))
        events, position = await self._with_conflict_details(doing, context)
        revision = events[-1].append_end if events else 0
        await wait_for(self._projector, position, context)
        aliases = await self._projector.query(
            lambda connection: [
                alias_queries.assignment(connection, target.model, target.alias, position) for target in request.targets
            ]
        )
        created = await self._commands.new_aliases(events)
        return v1.MoveAliasesResponse(aliases=aliases, revision=revision, position=position, created=created)

    async def RemoveAlias(self, request: v1.RemoveAliasRequest, context: Context) -> v1.RemoveAliasResponse:
        """Remove an alias."""
        done = await self._with_conflict_details(self._commands.remove(request, metadata(request, context)), context)
        return v1.RemoveAliasResponse(position=done.position)

    async def ScheduleMove(self, request: v1.ScheduleMoveRequest, context: Context) -> v1.ScheduleMoveResponse:
        """Schedule a move of an alias."""
        done = await self._commands.schedule(request, uuid.uuid4().hex, metadata(request, context))
        recorded = await self._projector.store.event_at(done.position)
        schedule = schedule_of(recorded) if recorded else None
        is_set = done.state.alias(request.alias).version
        creates = None if is_set else self._commands.new_alias(request.alias, done.state)
        return v1.ScheduleMoveResponse(schedule=schedule, position=done.position, creates=creates)

    async def CancelSchedule(self, request: v1.CancelScheduleRequest, context: Context) -> v1.CancelScheduleResponse:
        """Cancel a scheduled move."""
        return v1.CancelScheduleResponse(position=await self._done(request, context))

    async def ListSchedules(self, request: v1.ListSchedulesRequest, context: Context) -> v1.ListSchedulesResponse:
        """Return the pending scheduled moves."""
        return await self._projector.query(lambda connection: alias_queries.list_schedules(connection, request))

    async def Rollback(self, request: v1.RollbackRequest, context: Context) -> v1.RollbackResponse:
        """Restore past assignments by new events."""
        if not request.models or not request.aliases:
            raise Rejected(
                Kind.INVALID, "INVALID_SCOPE", 'the scope is empty: expected models and aliases, "*" for all'
            )
        to_position = await self._positions.goal(request, context)
        return await self._with_conflict_details(
            self._rollbacks.do(request, to_position, metadata(request, context)), context
        )

    async def ResolveAlias(self, request: v1.ResolveAliasRequest, context: Context) -> v1.ResolveAliasResponse:
        """Return the version that an alias names, now or as of a position or time."""
        check_alias(request.alias)
        if not request.HasField("at"):
            return self._live.resolve(request.model, request.alias)
        position = await self._positions.past(request.at, context)
        return await self._projector.query(
            lambda connection: alias_queries.resolve(
                connection, request.model, request.alias, position, described(request.at)
            ),
            small=True,
        )

    async def ResolveAliases(self, request: v1.ResolveAliasesRequest, context: Context) -> v1.ResolveAliasesResponse:
        """Return the versions that the aliases of one or all models name, now or as of a position or time."""
        position = await self._positions.past(request.at, context) if request.HasField("at") else None
        return await self._projector.query(
            lambda connection: alias_queries.resolve_aliases(connection, request, position)
        )

    async def ListAliasHistory(
        self, request: v1.ListAliasHistoryRequest, context: Context
    ) -> v1.ListAliasHistoryResponse:
        """Return the changes of aliases by filter, newest first."""
        return await self._projector.query(lambda connection: alias_queries.list_history(connection, request))

    async def ListAliasIntervals(
        self, request: v1.ListAliasIntervalsRequest, context: Context
    ) -> v1.ListAliasIntervalsResponse:
        """Return the versions that an alias named, and when."""
        now = time.time_ns()
        return await self._projector.query(lambda connection: alias_queries.list_intervals(connection, request, now))

    async def WatchAliases(
        self, request: v1.WatchAliasesRequest, context: Context
    ) -> AsyncIterator[v1.WatchAliasesResponse]:
        """Yield a snapshot of aliases, then every change once, in order."""
        async for step in watch.steps(self._projector, self._tail, self._live, self._shared, request):
            yield step
