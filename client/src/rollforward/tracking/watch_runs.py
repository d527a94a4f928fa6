"""Watches of runs: every event once, in order, across lost connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward._transport.resumable_stream import ResumableStream
from rollforward.errors import InvalidRequest
from rollforward.references import RunLike, revision, run_id_of
from rollforward.tracking.experiments import ExperimentLike, experiment_id_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rollforward._transport.channel import ResponseStream


class RunWatcher(Resource):
    """Watches of runs."""

    def watch(
        self,
        run: RunLike | None = None,
        *,
        experiment: ExperimentLike | None = None,
        from_position: int | None = None,
        epoch: int | None = None,
        metrics: bool = True,
    ) -> RunsWatch:
        """Watch one run, or all runs of an experiment.

        `for change in watch_runs(...)` returns each event once, in order. `apply_change` applies a change to a run, and
        `points_of` returns its metric points.

        Args:
            run: The run to watch.
            experiment: The experiment to watch, instead of a run.
            from_position: Start after this position of the tracking log. By default the watch starts now, and `runs`
                has the current state.
            epoch: The tracking log's epoch when you read the position, if not by this connection.
            metrics: Whether to receive metric points.

        Raises:
            InvalidRequest: INVALID_ARGUMENTS, INVALID_REVISION, POSITION_AHEAD.
            NotFound: RUN_NOT_FOUND, EXPERIMENT_NOT_FOUND.
            Conflict: LOG_EPOCH_CHANGED.
            Unavailable: No response at all.
        """
        if (run is None) == (experiment is None):
            raise InvalidRequest("INVALID_ARGUMENTS", "expected either a run or an experiment to watch")
        query = v1.WatchRunsRequest(
            run_id="" if run is None else run_id_of(run),
            experiment_id="" if experiment is None else experiment_id_of(self._connection, experiment),
            without_metrics=not metrics,
        )
        return RunsWatch(self._connection, query, revision(from_position, "from_position"), epoch)


class RunsWatch(ResumableStream[v1.WatchRunsResponse, v1.RunChange]):
    """An endless iterator over events of runs; its `position` is a `from_position`. See ResumableStream."""

    def __init__(
        self, connection: Connection, query: v1.WatchRunsRequest, from_position: int | None, epoch: int | None = None
    ) -> None:
        self._wanted = query
        self.runs: tuple[v1.Run, ...] = ()
        """The runs when the watch started, oldest first; empty with `from_position`."""
        super().__init__(connection, "tracking", from_position, epoch)

    def _open(self, position: int | None) -> ResponseStream[v1.WatchRunsResponse]:
        request = v1.WatchRunsRequest(from_position=position, epoch=self.epoch)
        request.MergeFrom(self._wanted)
        if position is None:
            self.runs = ()
        return self._connection.tracking.WatchRuns(request, metadata=self._connection.metadata())

    def _take_snapshot(self, step: v1.WatchRunsResponse) -> bool:
        fresh = list(step.snapshot.runs)
        if fresh and self.runs and self.runs[-1].run_id == fresh[0].run_id:
            # Its metrics did not fit into the previous part.
            rest = fresh.pop(0)
            self.runs[-1].metrics.MergeFrom(rest.metrics)
            self.runs[-1].next_metrics_token = rest.next_metrics_token
        self.runs += tuple(fresh)
        return step.snapshot.continues

    def _changes_of(self, step: v1.WatchRunsResponse) -> Iterator[tuple[int, v1.RunChange]]:
        return ((step.position, change) for change in step.changes.changes)


watch_runs = default_client_function("watch_runs", RunWatcher, RunWatcher.watch)
