"""Queries of tracking, each on one consistent snapshot of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from eventstore import Kind, Rejected
from rollforward import v1
from services.listings.keyset import asked_by
from services.listings.pages import cut, page_size
from services.tracking.projection.tables import experiments, models, runs
from services.tracking.queries import metric_pages, views
from services.tracking.queries.experiment_scope import experiment_number, no_experiment
from services.tracking.queries.listings import page_of_experiments, page_of_models
from services.tracking.queries.run_search import run_keys


def run_number(connection: sa.Connection, run_id: str) -> int:
    """Return the number that rows know a run by. Raises `Rejected` RUN_NOT_FOUND."""
    number: int | None = connection.scalar(sa.select(runs.c.run).where(runs.c.run_id == run_id))
    if number is None:
        raise Rejected(Kind.NOT_FOUND, "RUN_NOT_FOUND", f"no run has the id {run_id[:500]!r}", run_id=run_id[:500])
    return number


def run(connection: sa.Connection, run_id: str, *, with_metrics: bool = True) -> v1.Run:
    """Return one run. Raises `Rejected` RUN_NOT_FOUND."""
    return next(views.runs_of(connection, [run_number(connection, run_id)], with_metrics=with_metrics))


def run_metrics(connection: sa.Connection, request: v1.ListRunMetricsRequest) -> v1.ListRunMetricsResponse:
    """Return a page of a run's metrics. Raises `Rejected` RUN_NOT_FOUND or INVALID_PAGE."""
    run = run_number(connection, request.run_id)
    return metric_pages.run_metrics(connection, run, request.page_size, request.page_token)


def runs_of(connection: sa.Connection, numbers: Sequence[int]) -> list[v1.Run]:
    """Return the runs of these numbers, in that order."""
    return list(views.runs_of(connection, numbers))


def experiment(connection: sa.Connection, request: v1.GetExperimentRequest) -> v1.Experiment:
    """Return an experiment, by id or by name; if no experiment has the name, the last deleted one that had it.

    Raises:
        Rejected: EXPERIMENT_NOT_FOUND.
    """
    if request.WhichOneof("by") == "name":
        named = sa.select(experiments.c.number).where(experiments.c.name == request.name)
        number = connection.scalar(named.order_by(experiments.c.deleted, experiments.c.updated_at.desc()).limit(1))
        if number is None:
            raise no_experiment(request.name)
    else:
        number = experiment_number(connection, request.experiment_id)
    return views.experiments_of(connection, [number])[0]


def model_number(connection: sa.Connection, model_id: str) -> int:
    """Return the number that rows know a logged model by. Raises `Rejected` LOGGED_MODEL_NOT_FOUND."""
    number: int | None = connection.scalar(sa.select(models.c.model).where(models.c.model_id == model_id))
    if number is None:
        message = f"no logged model has the id {model_id[:500]!r}"
        raise Rejected(Kind.NOT_FOUND, "LOGGED_MODEL_NOT_FOUND", message, model_id=model_id[:500])
    return number


def logged_model(connection: sa.Connection, model_id: str) -> v1.LoggedModel:
    """Return one logged model. Raises `Rejected` LOGGED_MODEL_NOT_FOUND."""
    return next(views.models_of(connection, [model_number(connection, model_id)]))


def logged_model_metrics(
    connection: sa.Connection, request: v1.ListLoggedModelMetricsRequest
) -> v1.ListLoggedModelMetricsResponse:
    """Return a page of a logged model's metrics. Raises `Rejected` LOGGED_MODEL_NOT_FOUND or INVALID_PAGE."""
    model = model_number(connection, request.model_id)
    return metric_pages.logged_model_metrics(connection, model, request.page_size, request.page_token)


def list_experiments(connection: sa.Connection, request: v1.ListExperimentsRequest) -> v1.ListExperimentsResponse:
    """Return a page of experiments. Raises `Rejected` INVALID_FILTER, INVALID_ORDER or INVALID_PAGE."""
    page, token = page_of_experiments(connection, request)
    return v1.ListExperimentsResponse(experiments=page, next_page_token=token)


def list_logged_models(connection: sa.Connection, request: v1.ListLoggedModelsRequest) -> v1.ListLoggedModelsResponse:
    """Return a page of logged models.

    Raises:
        Rejected: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE or EXPERIMENT_NOT_FOUND.
    """
    page, token = page_of_models(connection, request)
    return v1.ListLoggedModelsResponse(models=page, next_page_token=token)


def list_runs(connection: sa.Connection, request: v1.ListRunsRequest) -> v1.ListRunsResponse:
    """Return a page of runs. Raises `Rejected` INVALID_FILTER, INVALID_ORDER, INVALID_PAGE or EXPERIMENT_NOT_FOUND."""
    size = page_size(request.page_size)
    keys = run_keys(connection, request, size + 1)
    answer = v1.ListRunsResponse()
    page, answer.next_page_token = cut(
        keys,
        size,
        lambda key: [asked_by(request), *key],
        lambda keys: views.runs_of(connection, [key[-1] for key in keys], brief=request.brief, make=answer.runs.add),
    )
    del answer.runs[len(page) :]
    return answer
