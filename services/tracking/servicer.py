"""The gRPC methods of tracking: experiments and runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from eventstore import Projector, Rejected
from rollforward import v1
from services.artifacts.manifests import describe
from services.artifacts.store import BlobStore
from services.rpc.context import Context, metadata
from services.tracking import watch
from services.tracking.commands import Commands
from services.tracking.deciders.experiments import ExperimentCommand
from services.tracking.deciders.run_commands import LogArtifact, RunRequest
from services.tracking.liveness import Liveness
from services.tracking.queries import metric_history, metric_intervals, runs
from services.validation import check_digest, check_id


class TrackingServicer(v1.TrackingServiceServicer):
    """Experiments and runs.

    Args:
        commands: The commands of tracking.
        liveness: Whether the jobs of runs live.
        rows: The rows of tracking.
        blobs: Where artifacts are stored.
    """

    def __init__(self, commands: Commands, liveness: Liveness, projector: Projector, blobs: BlobStore) -> None:
        self._commands = commands
        self._liveness = liveness
        self._projector = projector
        self._blobs = blobs

    async def CreateExperiment(
        self, request: v1.CreateExperimentRequest, context: Context
    ) -> v1.CreateExperimentResponse:
        """Create an experiment."""
        done = await self._commands.on_experiments(request, metadata(request, context))
        created = done.events[0].data
        assert isinstance(created, v1.ExperimentCreated)  # noqa: S101
        return v1.CreateExperimentResponse(experiment_id=created.experiment_id, position=done.position)

    async def GetExperiment(self, request: v1.GetExperimentRequest, context: Context) -> v1.GetExperimentResponse:
        """Return one experiment, by id or name."""
        experiment = await self._projector.query(lambda connection: runs.experiment(connection, request))
        return v1.GetExperimentResponse(experiment=experiment)

    async def ListExperiments(self, request: v1.ListExperimentsRequest, context: Context) -> v1.ListExperimentsResponse:
        """Return experiments by filter."""
        return await self._projector.query(lambda connection: runs.list_experiments(connection, request))

    async def RenameExperiment(
        self, request: v1.RenameExperimentRequest, context: Context
    ) -> v1.RenameExperimentResponse:
        """Rename an experiment."""
        return v1.RenameExperimentResponse(position=await self._on_experiments(request, context))

    async def ChangeExperimentTags(
        self, request: v1.ChangeExperimentTagsRequest, context: Context
    ) -> v1.ChangeExperimentTagsResponse:
        """Set and remove tags of an experiment."""
        return v1.ChangeExperimentTagsResponse(position=await self._on_experiments(request, context))

    async def DeleteExperiment(
        self, request: v1.DeleteExperimentRequest, context: Context
    ) -> v1.DeleteExperimentResponse:
        """Delete an experiment."""
        return v1.DeleteExperimentResponse(position=await self._on_experiments(request, context))

    async def RestoreExperiment(
        self, request: v1.RestoreExperimentRequest, context: Context
    ) -> v1.RestoreExperimentResponse:
        """Restore a deleted experiment."""
        return v1.RestoreExperimentResponse(position=await self._on_experiments(request, context))

    async def _on_experiments(self, request: ExperimentCommand, context: Context) -> int:
        return (await self._commands.on_experiments(request, metadata(request, context))).position

    async def StartRun(self, request: v1.StartRunRequest, context: Context) -> v1.StartRunResponse:
        """Start a run."""
        done = await self._commands.start_run(request, metadata(request, context))
        return v1.StartRunResponse(position=done.position)

    async def ResumeRun(self, request: v1.ResumeRunRequest, context: Context) -> v1.ResumeRunResponse:
        """Set a run to RUNNING."""
        return v1.ResumeRunResponse(position=await self._on_run(request.run_id, request, context))

    async def AttendRun(self, request: v1.AttendRunRequest, context: Context) -> AsyncIterator[v1.AttendRunResponse]:
        """Send heartbeats for as long as the call lasts, until the run ends."""
        async with self._liveness.attended(request.run_id, metadata(request, context)) as call:
            yield v1.AttendRunResponse(patience_seconds=round(self._liveness.timeout))
            await call.ended()

    async def LogBatch(self, request: v1.LogBatchRequest, context: Context) -> v1.LogBatchResponse:
        """Log parameters, tags and metric points, all or nothing."""
        done = await self._commands.log(request, metadata(request, context))
        return v1.LogBatchResponse(position=done.position)

    async def LogLineage(self, request: v1.LogLineageRequest, context: Context) -> v1.LogLineageResponse:
        """Log the datasets that a run reads and the logged models that it produces."""
        return v1.LogLineageResponse(position=await self._on_run(request.run_id, request, context))

    async def LogArtifact(self, request: v1.LogArtifactRequest, context: Context) -> v1.LogArtifactResponse:
        """Log an artifact whose manifest was uploaded."""
        check_id(request.run_id, "INVALID_RUN_ID")
        check_digest(request.digest)
        try:
            command = LogArtifact(request, *await describe(self._blobs, request.digest))
        except Rejected as refusal:  # a repeated request was done when the artifact was there
            command = LogArtifact(request, rejection=refusal)
        done = await self._commands.on_run(request.run_id, command, metadata(request, context))
        return v1.LogArtifactResponse(position=done.position)

    async def FinishRun(self, request: v1.FinishRunRequest, context: Context) -> v1.FinishRunResponse:
        """End a run."""
        return v1.FinishRunResponse(position=await self._on_run(request.run_id, request, context))

    async def RenameRun(self, request: v1.RenameRunRequest, context: Context) -> v1.RenameRunResponse:
        """Rename a run."""
        return v1.RenameRunResponse(position=await self._on_run(request.run_id, request, context))

    async def DescribeRun(self, request: v1.DescribeRunRequest, context: Context) -> v1.DescribeRunResponse:
        """Change a run's description."""
        return v1.DescribeRunResponse(position=await self._on_run(request.run_id, request, context))

    async def DeleteRun(self, request: v1.DeleteRunRequest, context: Context) -> v1.DeleteRunResponse:
        """Delete a run."""
        return v1.DeleteRunResponse(position=await self._on_run(request.run_id, request, context))

    async def RestoreRun(self, request: v1.RestoreRunRequest, context: Context) -> v1.RestoreRunResponse:
        """Restore a deleted run."""
        return v1.RestoreRunResponse(position=await self._on_run(request.run_id, request, context))

    async def _on_run(self, run_id: str, request: RunRequest, context: Context) -> int:
        return (await self._commands.on_run(run_id, request, metadata(request, context))).position

    async def GetRun(self, request: v1.GetRunRequest, context: Context) -> v1.GetRunResponse:
        """Return one run."""
        with_metrics = not request.without_metrics
        run = await self._projector.query(
            lambda connection: runs.run(connection, request.run_id, with_metrics=with_metrics)
        )
        return v1.GetRunResponse(run=run)

    async def ListRunMetrics(self, request: v1.ListRunMetricsRequest, context: Context) -> v1.ListRunMetricsResponse:
        """Return the metrics of one run, a page at a time."""
        return await self._projector.query(lambda connection: runs.run_metrics(connection, request))

    async def ListRuns(self, request: v1.ListRunsRequest, context: Context) -> v1.ListRunsResponse:
        """Return runs by filter."""
        return await self._projector.query(lambda connection: runs.list_runs(connection, request))

    async def GetMetricHistory(
        self, request: v1.GetMetricHistoryRequest, context: Context
    ) -> AsyncIterator[v1.GetMetricHistoryResponse]:
        """Yield all points of one metric, in chunks."""
        async with aclosing(metric_history.history(self._projector, request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def ListMetricPoints(
        self, request: v1.ListMetricPointsRequest, context: Context
    ) -> v1.ListMetricPointsResponse:
        """Return all points of one metric, a page at a time."""
        return await self._projector.query(lambda connection: metric_history.page(connection, request))

    async def GetMetricIntervals(
        self, request: v1.GetMetricIntervalsRequest, context: Context
    ) -> AsyncIterator[v1.GetMetricIntervalsResponse]:
        """Yield metrics of many runs in intervals."""
        async with aclosing(metric_intervals.intervals(self._projector, request)) as charts:
            async for chart in charts:
                yield chart

    async def WatchRuns(self, request: v1.WatchRunsRequest, context: Context) -> AsyncIterator[v1.WatchRunsResponse]:
        """Follow a run, or all runs of an experiment."""
        async with aclosing(watch.steps(self._projector, request)) as steps:
            async for step in steps:
                yield step
