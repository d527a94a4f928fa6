"""Runs that are there: find them, and change what is said of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, current, new_request_id
from rollforward._transport.paging import collect
from rollforward._validation import checked_input_tags, checked_run_tags, checked_step
from rollforward.references import RunLike, run_id_of
from rollforward.tracking.experiments import ExperimentLike, Lifecycle, experiment_id_of, lifecycle_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rollforward._validation import StepLike


def get_run(run: RunLike, *, connection: Connection | None = None) -> v1.Run:
    """Return one run with its parameters, tags, artifacts, inputs and outputs, and each metric's summary, however many.

    Raises NotFound (RUN_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    return complete(link, link.call(link.tracking.GetRun, v1.GetRunRequest(run_id=run_id_of(run))).run)


def complete(link: Connection, run: v1.Run) -> v1.Run:
    """Add the metrics that did not fit an answer to a run. Raises NotFound (RUN_NOT_FOUND), Unavailable."""
    while run.next_metrics_token:
        request = v1.ListRunMetricsRequest(run_id=run.run_id, page_token=run.next_metrics_token)
        page = link.call(link.tracking.ListRunMetrics, request)
        run.metrics.MergeFrom(page.metrics)
        run.next_metrics_token = page.next_page_token
    return run


def search_runs(
    experiments: ExperimentLike | Iterable[ExperimentLike] = (),
    filter: str = "",  # noqa: A002 - the contract's word
    *,
    order_by: str = "",
    lifecycle: Lifecycle = "active",
    limit: int | None = None,
    brief: bool = False,
    connection: Connection | None = None,
) -> list[v1.Run]:
    """Runs of some experiments, by name, or of all; newest first or in the order asked for. `limit` None for all.

    `filter` such as "metrics.auc > 0.9 AND params.depth = '3' AND status = 'FINISHED'", `order_by` such as
    "metrics.auc DESC, start_time": see docs/search.md. A `brief` answer leaves out what the runs logged.
    Raises InvalidRequest (INVALID_FILTER, INVALID_ORDER, INVALID_LIFECYCLE, INVALID_LIMIT), NotFound
    (EXPERIMENT_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    some = [experiments] if isinstance(experiments, str | v1.Experiment) else experiments
    query = v1.ListRunsRequest(
        experiment_ids=[experiment_id_of(link, one) for one in some],
        filter=filter,
        order_by=order_by,
        lifecycle=lifecycle_of(lifecycle),
        brief=brief,
    )

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Run], str]:
        query.page_size, query.page_token = size, token
        page = link.call(link.tracking.ListRuns, query)
        return (complete(link, run) for run in page.runs), page.next_page_token

    return collect(fetch, limit)


def rename_run(
    run: RunLike,
    new_name: str,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Give a run another name, of at most 500 characters.

    Raises InvalidRequest (INVALID_NAME, REQUEST_ID_REUSED), NotFound (RUN_NOT_FOUND), PreconditionFailed (RUN_DELETED),
    Unavailable.
    """
    link = current(connection)
    chosen = request_id or new_request_id()
    request = v1.RenameRunRequest(run_id=run_id_of(run), new_name=new_name, reason=reason, request_id=chosen)
    link.call(link.tracking.RenameRun, request)


def describe_run(
    run: RunLike,
    description: str,
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Say what a run is for, in at most 20,000 characters.

    Raises InvalidRequest (INVALID_DESCRIPTION, REQUEST_ID_REUSED), NotFound (RUN_NOT_FOUND), PreconditionFailed
    (RUN_DELETED), Unavailable.
    """
    link = current(connection)
    chosen = request_id or new_request_id()
    request = v1.DescribeRunRequest(run_id=run_id_of(run), description=description, reason=reason, request_id=chosen)
    link.call(link.tracking.DescribeRun, request)


def set_run_tags(
    run: RunLike,
    tags: Mapping[str, object],
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Set tags of a run; its other tags stay. A live run does it with its own `set_tags`, without waiting.

    Raises InvalidRequest (INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED), NotFound (RUN_NOT_FOUND), PreconditionFailed
    (RUN_DELETED, RUN_FULL), Unavailable.
    """
    link = current(connection)
    labels = checked_run_tags(tags)
    chosen = request_id or new_request_id()
    request = v1.LogBatchRequest(run_id=run_id_of(run), tags=labels, reason=reason, request_id=chosen)
    link.call(link.tracking.LogBatch, request)


def remove_run_tags(
    run: RunLike,
    keys: Iterable[str],
    *,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Remove tags of a run; keys that are not there are passed over. Raises as set_run_tags."""
    link = current(connection)
    removed = [keys] if isinstance(keys, str) else keys
    chosen = request_id or new_request_id()
    request = v1.LogBatchRequest(run_id=run_id_of(run), removed_tags=removed, reason=reason, request_id=chosen)
    link.call(link.tracking.LogBatch, request)


def log_input(
    run: RunLike,
    dataset: v1.Dataset,
    *,
    context: str = "",
    tags: Mapping[str, object] | None = None,
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Log a dataset that a run has read; `context` says what for, such as "training".

    A live run does it with its own `log_input`; get_run shows the `inputs`.
    Raises InvalidRequest (INVALID_DATASET, INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED), NotFound (RUN_NOT_FOUND),
    PreconditionFailed (RUN_DELETED, RUN_FULL), Unavailable.
    """
    link = current(connection)
    labels = checked_input_tags(context, tags)
    request = v1.LogLineageRequest(
        run_id=run_id_of(run),
        inputs=[v1.DatasetInput(dataset=dataset, tags=labels)],
        request_id=request_id or new_request_id(),
    )
    link.call(link.tracking.LogLineage, request)


def log_output(
    run: RunLike,
    model: v1.LoggedModel | str,
    step: StepLike = 0,
    *,
    request_id: str | None = None,
    connection: Connection | None = None,
) -> None:
    """Log a logged model that a run has produced, at a step. A live run does it with its own `log_output`.

    Raises InvalidRequest (INVALID_MODEL_ID, INVALID_STEP, REQUEST_ID_REUSED), NotFound (RUN_NOT_FOUND),
    PreconditionFailed (RUN_DELETED), Unavailable.
    """
    link = current(connection)
    model_id = model if isinstance(model, str) else model.model_id
    request = v1.LogLineageRequest(
        run_id=run_id_of(run),
        outputs=[v1.ModelOutput(model_id=model_id, step=checked_step(step))],
        request_id=request_id or new_request_id(),
    )
    link.call(link.tracking.LogLineage, request)


def delete_run(
    run: RunLike, *, reason: str = "", request_id: str | None = None, connection: Connection | None = None
) -> None:
    """Delete a run; its history stays, and it can be restored.

    Raises InvalidRequest (REQUEST_ID_REUSED), NotFound (RUN_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    request = v1.DeleteRunRequest(run_id=run_id_of(run), reason=reason, request_id=request_id or new_request_id())
    link.call(link.tracking.DeleteRun, request)


def restore_run(
    run: RunLike, *, reason: str = "", request_id: str | None = None, connection: Connection | None = None
) -> None:
    """Restore a deleted run. Raises as delete_run."""
    link = current(connection)
    request = v1.RestoreRunRequest(run_id=run_id_of(run), reason=reason, request_id=request_id or new_request_id())
    link.call(link.tracking.RestoreRun, request)
