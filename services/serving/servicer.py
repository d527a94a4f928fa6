"""The gRPC methods of serving."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from eventstore import CommandHandler, Kind, Projector, Rejected, check_epoch, on_wire
from rollforward import v1
from services.rpc.context import Command, Context, metadata
from services.rpc.positions import wait_for
from services.serving import pod_stream, queries
from services.serving.assignments import current, names_of, snapshot
from services.serving.decider import Acknowledge, State, check_targets
from services.serving.watch import ConnectedPods, watch
from services.validation import check_id


class ServingServicer(v1.ServingServiceServicer):
    """Pods, their assignments and their reports.

    Args:
        commands: The commands of pods.
        projector: The projector of the pods' reports.
        assignments: The projector of the aliases' assignments.
    """

    def __init__(self, commands: CommandHandler[State], projector: Projector, assignments: Projector) -> None:
        self._commands = commands
        self._projector = projector
        self._assignments = assignments
        self._connected = ConnectedPods()

    async def StartPod(self, request: v1.StartPodRequest, context: Context) -> v1.StartPodResponse:
        """Record that a pod starts."""
        return v1.StartPodResponse(position=await self._handle(request.pod_id, request, context))

    async def AcknowledgeAssignment(
        self, request: v1.AcknowledgeAssignmentRequest, context: Context
    ) -> v1.AcknowledgeAssignmentResponse:
        """Record that a pod serves an assignment, or why it does not."""
        command = Acknowledge(request, self._assignments.store.epochs[-1])
        return v1.AcknowledgeAssignmentResponse(position=await self._handle(request.pod_id, request, context, command))

    async def StopPod(self, request: v1.StopPodRequest, context: Context) -> v1.StopPodResponse:
        """Record that a pod stops."""
        return v1.StopPodResponse(position=await self._handle(request.pod_id, request, context))

    async def WatchAssignments(
        self, request: v1.WatchAssignmentsRequest, context: Context
    ) -> AsyncIterator[v1.WatchAssignmentsResponse]:
        """Yield the assignments of a pod's aliases, and their changes."""
        check_id(request.pod_id, "INVALID_POD_ID")
        check_targets(request.targets)
        if not request.HasField("epoch"):  # a pod older than epochs compares revisions only
            check_epoch("registry", 0, self._assignments.store.epochs[-1])
        with self._connected.connected(request.pod_id):
            async for step in watch(self._assignments, request.targets):
                yield step

    async def ListDeployments(self, request: v1.ListDeploymentsRequest, context: Context) -> v1.ListDeploymentsResponse:
        """Return the followed aliases and the pods that serve them."""
        names = await self._names(request.model, context) if request.model else []
        models = {*names, request.model} if request.model else None
        reports = await self._projector.query(
            lambda connection: queries.pods_by_alias(connection, models, include_stopped=request.include_stopped)
        )
        if request.model and not names and not reports:
            fault = f"no model has the name {request.model[:300]!r}, and no pod follows it"
            raise Rejected(Kind.NOT_FOUND, "MODEL_NOT_FOUND", fault, model=request.model[:300])
        followed = {model for model, _ in reports}
        if request.model:
            shown: Mapping[str, str] = dict.fromkeys(followed, request.model)
        else:
            shown = await self._assignments.query(lambda connection: current(connection, followed))
        merged = queries.by_shown_name(reports, shown)
        wanted = [v1.Target(model=model, alias=alias) for model, alias in merged]
        desired, _ = await self._assignments.query(lambda connection: snapshot(connection, wanted))
        for assignment in desired:
            assignment.epoch = on_wire(self._assignments.store.epochs[-1])
        return queries.deployments(merged, desired, self._connected.ids(), request)

    async def _names(self, model: str, context: Context) -> list[str]:
        """Return all names of a model; none if no model has this name at the log's head."""
        names = await self._assignments.query(lambda connection: names_of(connection, model))
        if not names:
            await wait_for(self._assignments, await self._assignments.store.head(), context)
            names = await self._assignments.query(lambda connection: names_of(connection, model))
        return names

    async def _handle(self, pod_id: str, request: Command, context: Context, command: object = None) -> int:
        check_id(pod_id, "INVALID_POD_ID")
        done = await self._commands.handle(pod_stream(pod_id), command or request, metadata(request, context))
        return done.position
