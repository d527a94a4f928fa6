"""The gRPC methods of tracking."""

from __future__ import annotations

from collections.abc import AsyncIterator

from eventstore.decider import CommandHandler
from eventstore.projection import Projector
from rollforward import v1
from services.names import check_digest, check_id
from services.rpc import Context, metadata
from services.tracking import EXPERIMENTS_STREAM, queries, run_stream
from services.tracking.blobs import BlobStore
from services.tracking.decider import Experiments, LogArtifact, RunState
from services.tracking.manifests import describe

HISTORY_POINTS = 50_000


class TrackingServicer(v1.TrackingServiceServicer):
    """Experiments and runs.

    Args:
        experiments: The commands of experiments.
        runs: The commands of runs.
        projector: The rows of tracking.
        blobs: Where artifacts are stored.
    """

    def __init__(
        self,
        experiments: CommandHandler[Experiments],
        runs: CommandHandler[RunState],
        projector: Projector,
        blobs: BlobStore,
    ) -> None:
        self._experiments = experiments
        self._runs = runs
        self._rows = projector
        self._blobs = blobs

    async def CreateExperiment(
        self, request: v1.CreateExperimentRequest, context: Context
    ) -> v1.CreateExperimentResponse:
        """Creates an experiment."""
        done = await self._experiments.handle(EXPERIMENTS_STREAM, request, metadata(request, context))
        created = done.events[0].data
        assert isinstance(created, v1.ExperimentCreated)  # noqa: S101
        return v1.CreateExperimentResponse(experiment_id=created.experiment_id, position=done.position)

    async def GetExperiment(self, request: v1.GetExperimentRequest, context: Context) -> v1.GetExperimentResponse:
        """One experiment, by id or name."""
        found = await self._rows.query(lambda rows: queries.experiment(rows, request))
        return v1.GetExperimentResponse(experiment=found)

    async def ListExperiments(self, request: v1.ListExperimentsRequest, context: Context) -> v1.ListExperimentsResponse:
        """Experiments, newest first."""
        return await self._rows.query(lambda rows: queries.list_experiments(rows, request))

    async def StartRun(self, request: v1.StartRunRequest, context: Context) -> v1.StartRunResponse:
        """Starts a run."""
        check_id(request.run_id, "INVALID_RUN_ID")
        of = v1.GetExperimentRequest(experiment_id=request.experiment_id)
        await self._rows.query(lambda rows: queries.experiment(rows, of))
        done = await self._runs.handle(run_stream(request.run_id), request, metadata(request, context))
        return v1.StartRunResponse(position=done.position)

    async def LogBatch(self, request: v1.LogBatchRequest, context: Context) -> v1.LogBatchResponse:
        """Logs parameters, tags and metric points, all or nothing."""
        check_id(request.run_id, "INVALID_RUN_ID")
        # Only parameters depend on what others wrote: points and tags need no expected revision.
        handle = self._runs.handle if request.params else self._runs.handle_concurrently
        done = await handle(run_stream(request.run_id), request, metadata(request, context))
        return v1.LogBatchResponse(position=done.position)

    async def LogArtifact(self, request: v1.LogArtifactRequest, context: Context) -> v1.LogArtifactResponse:
        """Logs an artifact whose manifest was uploaded."""
        check_id(request.run_id, "INVALID_RUN_ID")
        check_digest(request.digest)
        size, count = await describe(self._blobs, request.digest)
        command = LogArtifact(request, size, count)
        done = await self._runs.handle(run_stream(request.run_id), command, metadata(request, context))
        return v1.LogArtifactResponse(position=done.position)

    async def FinishRun(self, request: v1.FinishRunRequest, context: Context) -> v1.FinishRunResponse:
        """Ends a run."""
        check_id(request.run_id, "INVALID_RUN_ID")
        done = await self._runs.handle(run_stream(request.run_id), request, metadata(request, context))
        return v1.FinishRunResponse(position=done.position)

    async def GetRun(self, request: v1.GetRunRequest, context: Context) -> v1.GetRunResponse:
        """One run."""
        return v1.GetRunResponse(run=await self._rows.query(lambda rows: queries.run(rows, request.run_id)))

    async def ListRuns(self, request: v1.ListRunsRequest, context: Context) -> v1.ListRunsResponse:
        """Runs, newest first."""
        return await self._rows.query(lambda rows: queries.list_runs(rows, request))

    async def GetMetricHistory(
        self, request: v1.GetMetricHistoryRequest, context: Context
    ) -> AsyncIterator[v1.GetMetricHistoryResponse]:
        """All points of one metric, in chunks."""
        points = await self._rows.query(lambda rows: queries.metric_history(rows, request.run_id, request.key))
        for series in queries.history_chunks(request.key, points, HISTORY_POINTS):
            yield v1.GetMetricHistoryResponse(series=series)
