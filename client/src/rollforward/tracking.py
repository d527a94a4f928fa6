"""Experiments and runs: create, get and list them, and read their metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward.connection import Connection, current, new_request_id
from rollforward.pages import collect
from rollforward.references import RunLike, run_id_of
from rollforward.series import MetricHistory, unpack
from rollforward.values import checked_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Runs carry all their metrics' summaries: a thousand of them may not fit into one message.
_RUNS_PER_PAGE = 100


def create_experiment(
    name: str,
    *,
    tags: Mapping[str, object] | None = None,
    request_id: str | None = None,
    connection: Connection | None = None,
) -> str:
    """Create an experiment and return its id. `name` has 1 to 500 characters.

    Raises InvalidRequest (INVALID_NAME, INVALID_KEY, INVALID_VALUE, REQUEST_ID_REUSED), AlreadyExists
    (EXPERIMENT_EXISTS), Unavailable.
    """
    link = current(connection)
    request = v1.CreateExperimentRequest(name=name, tags=checked_tags(tags), request_id=request_id or new_request_id())
    return link.call(link.tracking.CreateExperiment, request).experiment_id


def get_experiment(name: str, *, connection: Connection | None = None) -> v1.Experiment:
    """One experiment by name. Raises NotFound (EXPERIMENT_NOT_FOUND), Unavailable."""
    link = current(connection)
    return link.call(link.tracking.GetExperiment, v1.GetExperimentRequest(name=name)).experiment


def list_experiments(*, limit: int | None = None, connection: Connection | None = None) -> list[v1.Experiment]:
    """Experiments, newest first; `limit` None for all. Raises Unavailable."""
    link = current(connection)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Experiment], str]:
        request = v1.ListExperimentsRequest(page_size=size, page_token=token)
        page = link.call(link.tracking.ListExperiments, request)
        return page.experiments, page.next_page_token

    return collect(fetch, limit)


def get_run(run: RunLike, *, connection: Connection | None = None) -> v1.Run:
    """One run with its parameters, tags, artifacts and each metric's summary.

    Raises NotFound (RUN_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    return link.call(link.tracking.GetRun, v1.GetRunRequest(run_id=run_id_of(run))).run


def list_runs(
    experiment: str | None = None, *, limit: int | None = None, connection: Connection | None = None
) -> list[v1.Run]:
    """Runs, newest first: of one experiment, by name, or of all. `limit` None for all.

    Raises NotFound (EXPERIMENT_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    experiment_id = "" if experiment is None else get_experiment(experiment, connection=link).experiment_id

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Run], str]:
        request = v1.ListRunsRequest(experiment_id=experiment_id, page_size=size, page_token=token)
        page = link.call(link.tracking.ListRuns, request)
        return page.runs, page.next_page_token

    return collect(fetch, limit, page=_RUNS_PER_PAGE)


def metric_history(run: RunLike, key: str, *, connection: Connection | None = None) -> MetricHistory:
    """All points of one metric of one run as arrays: steps, timestamps (milliseconds since 1970-01-01 UTC), values.

    Raises NotFound (RUN_NOT_FOUND, METRIC_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    request = v1.GetMetricHistoryRequest(run_id=run_id_of(run), key=key)

    def attempt(seconds: float | None) -> MetricHistory:
        call = link.tracking.GetMetricHistory(request, timeout=seconds, metadata=link.metadata())
        return unpack(response.series for response in call)

    return link.retry(attempt)
