"""Stored runs: find, change and delete them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward._validation import checked_input_tags, checked_run_tags, checked_step
from rollforward.references import RunLike, run_id_of
from rollforward.tracking.experiments import ExperimentLike, Lifecycle, experiment_id_of, lifecycle_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rollforward._validation import StepLike


class StoredRuns(Resource):
    """Stored runs of a service: find, change and delete them."""

    def get(self, run: RunLike) -> v1.Run:
        """Return one run with everything that was logged to it, and a summary of each metric.

        Raises:
            NotFound: RUN_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        return complete(
            self._connection,
            self._connection.call(self._connection.tracking.GetRun, v1.GetRunRequest(run_id=run_id_of(run))).run,
        )

    def search(
        self,
        experiments: ExperimentLike | Iterable[ExperimentLike] = (),
        filter: str = "",  # noqa: A002 - the contract's word
        *,
        order_by: str = "",
        lifecycle: Lifecycle = "active",
        limit: int | None = None,
        brief: bool = False,
    ) -> list[v1.Run]:
        """Search runs of some experiments, or of all; newest first or in the order of `order_by`.

        `filter` is an expression such as "metrics.auc > 0.9 AND params.depth = '3' AND status = 'FINISHED'", `order_by`
        such as "metrics.auc DESC, start_time": see docs/search.md. A `brief` result omits what the runs logged. `limit`
        None returns all.

        Raises:
            InvalidRequest: INVALID_FILTER, INVALID_ORDER, INVALID_LIFECYCLE, INVALID_LIMIT.
            NotFound: EXPERIMENT_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        some = [experiments] if isinstance(experiments, str | v1.Experiment) else experiments
        query = v1.ListRunsRequest(
            experiment_ids=[experiment_id_of(self._connection, one) for one in some],
            filter=filter,
            order_by=order_by,
            lifecycle=lifecycle_of(lifecycle),
            brief=brief,
        )

        def fetch(size: int, token: str) -> tuple[Iterable[v1.Run], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.tracking.ListRuns, query)
            return (complete(self._connection, run) for run in page.runs), page.next_page_token

        return collect(fetch, limit)

    def rename(
        self,
        run: RunLike,
        new_name: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Rename a run; the name has at most 500 characters.

        Raises:
            InvalidRequest: INVALID_NAME, REQUEST_ID_REUSED.
            NotFound: RUN_NOT_FOUND.
            PreconditionFailed: RUN_DELETED.
            Unavailable: No result within the timeout.
        """
        chosen = request_id or new_request_id()
        request = v1.RenameRunRequest(run_id=run_id_of(run), new_name=new_name, reason=reason, request_id=chosen)
        self._connection.call(self._connection.tracking.RenameRun, request)

    def describe(
        self,
        run: RunLike,
        description: str,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Change a run's description, of at most 20,000 characters.

        Raises:
            InvalidRequest: INVALID_DESCRIPTION, REQUEST_ID_REUSED.
            NotFound: RUN_NOT_FOUND.
            PreconditionFailed: RUN_DELETED.
            Unavailable: No result within the timeout.
        """
        chosen = request_id or new_request_id()
        request = v1.DescribeRunRequest(
            run_id=run_id_of(run), description=description, reason=reason, request_id=chosen
        )
        self._connection.call(self._connection.tracking.DescribeRun, request)

    def set_tags(
        self,
        run: RunLike,
        tags: Mapping[str, object],
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Set tags of a run; its other tags stay. For a live run, use its own `set_tags`, which does not wait.

        Raises:
            InvalidRequest: INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED.
            NotFound: RUN_NOT_FOUND.
            PreconditionFailed: RUN_DELETED, RUN_FULL.
            Unavailable: No result within the timeout.
        """
        labels = checked_run_tags(tags)
        chosen = request_id or new_request_id()
        request = v1.LogBatchRequest(run_id=run_id_of(run), tags=labels, reason=reason, request_id=chosen)
        self._connection.call(self._connection.tracking.LogBatch, request)

    def remove_tags(
        self,
        run: RunLike,
        keys: Iterable[str],
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Remove tags of a run; unknown keys are ignored. Raises as set_run_tags."""
        removed = [keys] if isinstance(keys, str) else keys
        chosen = request_id or new_request_id()
        request = v1.LogBatchRequest(run_id=run_id_of(run), removed_tags=removed, reason=reason, request_id=chosen)
        self._connection.call(self._connection.tracking.LogBatch, request)

    def log_input(
        self,
        run: RunLike,
        dataset: v1.Dataset,
        *,
        context: str = "",
        tags: Mapping[str, object] | None = None,
        request_id: str | None = None,
    ) -> None:
        """Log a dataset that a run reads; `context` is its purpose, such as "training".

        For a live run, use its own `log_input`. get_run returns the datasets as `inputs`.

        Raises:
            InvalidRequest: INVALID_DATASET, INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED.
            NotFound: RUN_NOT_FOUND.
            PreconditionFailed: RUN_DELETED, RUN_FULL.
            Unavailable: No result within the timeout.
        """
        labels = checked_input_tags(context, tags)
        request = v1.LogLineageRequest(
            run_id=run_id_of(run),
            inputs=[v1.DatasetInput(dataset=dataset, tags=labels)],
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.tracking.LogLineage, request)

    def log_output(
        self,
        run: RunLike,
        model: v1.LoggedModel | str,
        step: StepLike = 0,
        *,
        request_id: str | None = None,
    ) -> None:
        """Log a logged model that a run produced, at a step. For a live run, use its own `log_output`.

        Raises:
            InvalidRequest: INVALID_MODEL_ID, INVALID_STEP, REQUEST_ID_REUSED.
            NotFound: RUN_NOT_FOUND.
            PreconditionFailed: RUN_DELETED.
            Unavailable: No result within the timeout.
        """
        model_id = model if isinstance(model, str) else model.model_id
        request = v1.LogLineageRequest(
            run_id=run_id_of(run),
            outputs=[v1.ModelOutput(model_id=model_id, step=checked_step(step))],
            request_id=request_id or new_request_id(),
        )
        self._connection.call(self._connection.tracking.LogLineage, request)

    def delete(self, run: RunLike, *, reason: str = "", request_id: str | None = None) -> None:
        """Delete a run; the history stays, and it can be restored.

        Raises:
            InvalidRequest: REQUEST_ID_REUSED.
            NotFound: RUN_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        request = v1.DeleteRunRequest(run_id=run_id_of(run), reason=reason, request_id=request_id or new_request_id())
        self._connection.call(self._connection.tracking.DeleteRun, request)

    def restore(self, run: RunLike, *, reason: str = "", request_id: str | None = None) -> None:
        """Restore a deleted run. Raises as delete_run."""
        request = v1.RestoreRunRequest(run_id=run_id_of(run), reason=reason, request_id=request_id or new_request_id())
        self._connection.call(self._connection.tracking.RestoreRun, request)


def complete(connection: Connection, run: v1.Run) -> v1.Run:
    """Add to a run the metrics that did not fit into the response.

    Raises:
        NotFound: RUN_NOT_FOUND.
        Unavailable: No result within the timeout.
    """
    while run.next_metrics_token:
        request = v1.ListRunMetricsRequest(run_id=run.run_id, page_token=run.next_metrics_token)
        page = connection.call(connection.tracking.ListRunMetrics, request)
        run.metrics.MergeFrom(page.metrics)
        run.next_metrics_token = page.next_page_token
    return run


get_run = default_client_function("get_run", StoredRuns, StoredRuns.get)
search_runs = default_client_function("search_runs", StoredRuns, StoredRuns.search)
rename_run = default_client_function("rename_run", StoredRuns, StoredRuns.rename)
describe_run = default_client_function("describe_run", StoredRuns, StoredRuns.describe)
set_run_tags = default_client_function("set_run_tags", StoredRuns, StoredRuns.set_tags)
remove_run_tags = default_client_function("remove_run_tags", StoredRuns, StoredRuns.remove_tags)
log_input = default_client_function("log_input", StoredRuns, StoredRuns.log_input)
log_output = default_client_function("log_output", StoredRuns, StoredRuns.log_output)
delete_run = default_client_function("delete_run", StoredRuns, StoredRuns.delete)
restore_run = default_client_function("restore_run", StoredRuns, StoredRuns.restore)
