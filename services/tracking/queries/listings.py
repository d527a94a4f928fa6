"""Listings of experiments and logged models: their filters, orders and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from eventstore import Kind, Rejected
from rollforward import v1
from services.listings.filter_grammar import Comparison, Field, Fields, Holds, Order, parse_filter, parse_order
from services.listings.filter_sql import compared, compared_metric, compared_tag, compared_time
from services.listings.keyset import Sort, walk
from services.tracking.projection.tables import (
    experiment_tags,
    experiments,
    model_metrics,
    model_params,
    model_tags,
    models,
)
from services.tracking.queries.experiment_scope import scope_of
from services.tracking.queries.run_filters import LOGGED, MISSING, NAN
from services.tracking.queries.views import experiments_of, models_of

_CREATED, _UPDATED, _TAGS = Field("created", Holds.TIME), Field("updated", Holds.TIME), LOGGED["tags"]

EXPERIMENT_ORDERS: Fields = {
    "name": Field("name", Holds.TEXT),
    "experiment_id": Field("experiment_id", Holds.ID),
    **dict.fromkeys(("creation_time", "created", "created_at"), _CREATED),
    **dict.fromkeys(("last_update_time", "updated", "updated_at"), _UPDATED),
}
EXPERIMENT_FIELDS: Fields = {**EXPERIMENT_ORDERS, "tags": _TAGS, "tag": _TAGS}
_MODEL_TEXTS = ("model_id", "name", "model_type", "source_run_id")
_MODEL_STATUSES = {number: name.removeprefix("LOGGED_MODEL_STATUS_") for name, number in v1.LoggedModelStatus.items()}
MODEL_FIELDS: Fields = {
    **LOGGED,
    **{name: Field(name, Holds.TEXT) for name in _MODEL_TEXTS},
    "status": Field("status", Holds.STATUS, tuple(name for number, name in _MODEL_STATUSES.items() if number)),
    "experiment_id": EXPERIMENT_ORDERS["experiment_id"],
    **dict.fromkeys(
        ("creation_timestamp", "creation_timestamp_ms", "creation_time", "created", "created_at"), _CREATED
    ),
    **dict.fromkeys(
        ("last_updated_timestamp", "last_updated_timestamp_ms", "last_updated_time", "updated", "updated_at"), _UPDATED
    ),
}

_EXPERIMENT_COLUMNS: Mapping[str, sa.ColumnElement[Any]] = {
    "name": experiments.c.name,
    "experiment_id": experiments.c.number,
    "created": experiments.c.created_at,
    "updated": experiments.c.updated_at,
}
_MODEL_COLUMNS: Mapping[str, sa.ColumnElement[Any]] = {
    "model_id": models.c.model_id,
    "name": models.c.name,
    "model_type": models.c.model_type,
    "status": sa.case(_MODEL_STATUSES, value=models.c.status),
    "source_run_id": models.c.source_run_id,
    "experiment_id": models.c.experiment,
    "created": models.c.created_at,
    "updated": models.c.updated_at,
}
MAX_DATASETS = 100
_MODEL_LABELS = {"params": model_params, "tags": model_tags}


def page_of_experiments(
    connection: sa.Connection, request: v1.ListExperimentsRequest
) -> tuple[Sequence[v1.Experiment], str]:
    """Return a page of experiments, and the token of the next page.

    Raises:
        Rejected: INVALID_FILTER, INVALID_ORDER or INVALID_PAGE.
    """
    conditions = [_experiment(connection, comparison) for comparison in parse_filter(request.filter, EXPERIMENT_FIELDS)]
    orders = parse_order(request.order_by, EXPERIMENT_ORDERS)
    number = Sort(experiments.c.number, int, _last_descends(orders))
    sorts = [*(_plain(at, _EXPERIMENT_COLUMNS[order.field], order) for at, order in enumerate(orders)), number]
    statement = sa.select(*(sort.column for sort in sorts)).where(*conditions)
    statement = statement.where(*_alive(request.lifecycle, experiments.c.deleted))
    return walk(
        connection, statement, request, sorts, lambda some: experiments_of(connection, [row.number for row in some])
    )


def page_of_models(
    connection: sa.Connection, request: v1.ListLoggedModelsRequest
) -> tuple[Sequence[v1.LoggedModel], str]:
    """Return a page of logged models, and the token of the next page.

    Raises:
        Rejected: INVALID_FILTER, INVALID_ORDER, INVALID_PAGE or EXPERIMENT_NOT_FOUND.
    """
    _check_datasets(request.datasets)
    comparisons = parse_filter(request.filter, MODEL_FIELDS)
    orders = parse_order(request.order_by, MODEL_FIELDS)
    scope = scope_of(connection, set(request.experiment_ids), request.lifecycle)
    sorts = [sort for at, order in enumerate(orders) for sort in _model_sorts(at, order, request.datasets)]
    sorts.append(Sort(models.c.model, int, _last_descends(orders)))
    statement = sa.select(*(sort.column for sort in sorts))
    statement = statement.join_from(models, experiments, experiments.c.number == models.c.experiment)
    statement = statement.where(scope.holds(models.c.experiment), *_model_conditions(connection, request, comparisons))
    statement = statement.where(*_alive(request.lifecycle, sa.or_(models.c.deleted, experiments.c.deleted)))
    return walk(connection, statement, request, sorts, lambda some: models_of(connection, [row.model for row in some]))


def _check_datasets(datasets: Sequence[v1.Dataset]) -> None:
    if len(datasets) > MAX_DATASETS:
        expected = f"at most {MAX_DATASETS} datasets"
        raise Rejected(Kind.INVALID, "INVALID_FILTER", f"expected {expected}", expected=expected)


def _alive(lifecycle: v1.Lifecycle.ValueType, deleted: sa.ColumnElement[bool]) -> list[sa.ColumnElement[bool]]:
    if lifecycle == v1.LIFECYCLE_ALL:
        return []
    return [deleted if lifecycle == v1.LIFECYCLE_DELETED else ~deleted]


def _last_descends(orders: Sequence[Order]) -> bool:
    return orders[-1].descending if orders else True


def _plain(at: int, column: sa.ColumnElement[Any], order: Order) -> Sort:
    kind = int if isinstance(column.type, sa.Integer) else str
    return Sort(column.label(f"value{at}"), kind, order.descending)


def _experiment(connection: sa.Connection, comparison: Comparison) -> sa.ColumnElement[bool]:
    match comparison.field:
        case "tags":
            return compared_tag(
                connection, experiment_tags, [experiment_tags.c.number == experiments.c.number], comparison
            )
        case "created" | "updated":
            return compared_time(_EXPERIMENT_COLUMNS[comparison.field], comparison)
        case "experiment_id":
            return compared(connection, sa.cast(experiments.c.number, sa.Text), comparison)
        case _:
            return compared(connection, _EXPERIMENT_COLUMNS[comparison.field], comparison)


def _model_conditions(
    connection: sa.Connection, request: v1.ListLoggedModelsRequest, comparisons: Sequence[Comparison]
) -> list[sa.ColumnElement[bool]]:
    conditions = [_model(connection, comparison, request.datasets) for comparison in comparisons]
    if request.datasets and not any(comparison.field == "metrics" for comparison in comparisons):
        conditions.append(_measured(request.datasets).exists())
    return conditions


def _model(connection: sa.Connection, comparison: Comparison, datasets: Sequence[v1.Dataset]) -> sa.ColumnElement[bool]:
    match comparison.field:
        case "params" | "tags":
            table = _MODEL_LABELS[comparison.field]
            return compared_tag(connection, table, [table.c.model == models.c.model], comparison)
        case "metrics":
            named = _measured(datasets).where(model_metrics.c.key == comparison.key)
            return named.where(compared_metric(model_metrics.c.value, comparison)).exists()
        case "created" | "updated":
            return compared_time(_MODEL_COLUMNS[comparison.field], comparison)
        case "experiment_id":
            return compared(connection, sa.cast(models.c.experiment, sa.Text), comparison)
        case _:
            return compared(connection, _MODEL_COLUMNS[comparison.field], comparison)


def _measured(datasets: Sequence[v1.Dataset]) -> sa.Select[Any]:
    """Return the metrics of a logged model that were measured on these datasets; all metrics if none are given."""
    statement = sa.select(model_metrics.c.value).where(model_metrics.c.model == models.c.model)
    ways = []
    for dataset in datasets:
        same = model_metrics.c.dataset_name == dataset.name
        ways.append(sa.and_(same, model_metrics.c.dataset_digest == dataset.digest) if dataset.digest else same)
    return statement.where(sa.or_(*ways)) if ways else statement


def _model_sorts(at: int, order: Order, datasets: Sequence[v1.Dataset]) -> list[Sort]:
    if not order.key:
        return [_plain(at, _MODEL_COLUMNS[order.field], order)]
    if order.field == "metrics":
        of = _measured(datasets).where(model_metrics.c.key == order.key)
        latest = (model_metrics.c.timestamp.desc(), model_metrics.c.step.desc())
        value = of.order_by(*latest, *model_metrics.primary_key.columns).limit(1)
    else:
        table = _MODEL_LABELS[order.field]
        of = sa.select(table.c.value).where(table.c.model == models.c.model, table.c.key == order.key)
        value = of
    value_or_null = value.correlate(models).scalar_subquery()
    rank = sa.case((~of.exists(), MISSING), (value_or_null.is_(None), NAN), else_=0)
    kind = float if order.field == "metrics" else str
    nothing = sa.literal(0.0, sa.Double()) if kind is float else sa.literal("")
    shown = sa.func.coalesce(value_or_null, nothing)
    return [Sort(rank.label(f"rank{at}")), Sort(shown.label(f"value{at}"), kind, order.descending)]
