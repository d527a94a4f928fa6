"""Filters and orders of runs, as conditions on their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from rollforward import v1
from services.listings.filter_grammar import Comparison, Field, Fields, Holds, Order
from services.listings.filter_sql import compared, compared_metric, compared_tag, compared_time
from services.listings.keyset import Sort
from services.tracking.projection.tables import HEAD_CHARACTERS, inputs, metrics, params, runs, tags
from services.tracking.queries.experiment_scope import Scope

_METRICS, _PARAMS, _TAGS = (
    Field("metrics", Holds.METRICS),
    Field("params", Holds.TAGS),
    Field("tags", Holds.TAGS),
)
LOGGED: Fields = {
    "metrics": _METRICS,
    "metric": _METRICS,
    "params": _PARAMS,
    "param": _PARAMS,
    "parameters": _PARAMS,
    "parameter": _PARAMS,
    "tags": _TAGS,
    "tag": _TAGS,
}
"""What runs and logged models log."""

STATUSES = {number: name.removeprefix("RUN_STATUS_") for name, number in v1.RunStatus.items()}
_NAME, _USER, _START = Field("run_name", Holds.TEXT), Field("user_id", Holds.TEXT), Field("start_time", Holds.TIME)
RUN_ORDERS: Fields = {
    **LOGGED,
    "run_id": Field("run_id", Holds.TEXT),
    **dict.fromkeys(("run_name", "run name", "Run name", "Run Name"), _NAME),
    "status": Field("status", Holds.STATUS, tuple(name for number, name in STATUSES.items() if number)),
    **dict.fromkeys(("user_id", "actor"), _USER),
    "parent_run_id": Field("parent_run_id", Holds.TEXT),
    **dict.fromkeys(("start_time", "started_at", "created", "Created"), _START),
    **dict.fromkeys(("end_time", "ended_at"), Field("end_time", Holds.TIME)),
    "artifact_uri": Field("artifact_uri", Holds.TEXT),
}
_DATASETS = {part: Field(f"datasets.{part}", Holds.TEXT) for part in ("name", "digest", "context")}
RUN_FIELDS: Fields = {
    **RUN_ORDERS,
    **{f"{names}.{part}": field for names in ("datasets", "dataset") for part, field in _DATASETS.items()},
}

_TEXTS: dict[str, sa.ColumnElement[str]] = {
    "run_id": runs.c.run_id,
    "run_name": runs.c.name,
    "status": sa.case(STATUSES, value=runs.c.status),
    "user_id": runs.c.actor,
    "parent_run_id": runs.c.parent_run_id,
    "artifact_uri": sa.literal_column("'runs:/'", sa.Text) + runs.c.run_id,
}
_TIMES: dict[str, sa.ColumnElement[int]] = {"start_time": runs.c.start_time, "end_time": runs.c.end_time}
_TAGS_IN_COLUMNS: dict[str, sa.ColumnElement[str]] = {
    "mlflow.runName": runs.c.name,
    "mlflow.parentRunId": runs.c.parent_run_id,
}
_INDEXED = {"run_id": False, "parent_run_id": False, "run_name": True, "status": True}
"""Whether an index of what a text says is one of each experiment."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold of a run; `among` finds, by an index, all that it holds for, or more unless it is `exact`."""

    where: sa.ColumnElement[bool]
    among: sa.Select[Any] | sa.CompoundSelect[Any] | None = None
    exact: bool = True


def condition(connection: sa.Connection, comparison: Comparison, scope: Scope) -> Condition:
    """Return a comparison as a condition on runs."""
    match comparison.field:
        case "metrics":
            return _metric(comparison, scope)
        case "params":
            return _label(connection, params, comparison)
        case "tags":
            return _tag(connection, comparison)
        case "start_time" | "end_time":
            return _time(comparison, scope)
        case "datasets.name" | "datasets.digest" | "datasets.context":
            return _dataset(connection, comparison)
        case _:
            return _text(connection, comparison, scope)


def _metric(comparison: Comparison, scope: Scope) -> Condition:
    named = sa.and_(metrics.c.key == comparison.key, compared_metric(metrics.c.value, comparison))
    where = sa.select(sa.literal(1)).select_from(metrics).where(metrics.c.run == runs.c.run, named).exists()
    among = sa.select(metrics.c.run).where(scope.holds(metrics.c.experiment), named)
    return Condition(where, None if comparison.operator == "!=" else among)


def _time(comparison: Comparison, scope: Scope) -> Condition:
    within = compared_time(_TIMES[comparison.field], comparison)
    among = sa.select(runs.c.run).where(scope.holds(runs.c.experiment), within)
    return Condition(within, None if comparison.operator == "!=" else among)


def _label(connection: sa.Connection, table: sa.Table, comparison: Comparison) -> Condition:
    where = compared_tag(connection, table, [table.c.run == runs.c.run], comparison)
    named = sa.select(table.c.run).where(table.c.key == comparison.key)
    match comparison.operator, comparison.value:
        case "IS NOT NULL", _:
            return Condition(where, named)
        case "=", str(text):
            texts: tuple[str, ...] = (text,)
        case "IN", tuple(texts):
            pass
        case _:
            return Condition(where)
    among = named.where(table.c.head.in_({text[:HEAD_CHARACTERS] for text in texts}))
    return Condition(where, among, exact=all(len(text) < HEAD_CHARACTERS for text in texts))


def _tag(connection: sa.Connection, comparison: Comparison) -> Condition:
    column = _TAGS_IN_COLUMNS.get(comparison.key)
    if column is None:
        return _label(connection, tags, comparison)
    if comparison.operator == "IS NULL":
        return Condition(column == "")
    there = column != ""
    return Condition(
        there if comparison.operator == "IS NOT NULL" else sa.and_(there, compared(connection, column, comparison))
    )


def _text(connection: sa.Connection, comparison: Comparison, scope: Scope) -> Condition:
    named = comparison.operator in {"=", "IN"}
    where = (
        _status(comparison)
        if comparison.field == "status" and named
        else compared(connection, _TEXTS[comparison.field], comparison)
    )
    if not named or comparison.value == "" or comparison.field not in _INDEXED:
        return Condition(where)
    matching = sa.select(runs.c.run).where(where)
    return Condition(where, matching.where(scope.holds(runs.c.experiment)) if _INDEXED[comparison.field] else matching)


def _status(comparison: Comparison) -> sa.ColumnElement[bool]:
    texts = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    return runs.c.status.in_([number for number, name in STATUSES.items() if name in texts])


def _dataset(connection: sa.Connection, comparison: Comparison) -> Condition:
    column = inputs.c[comparison.field.removeprefix("datasets.")]
    within = compared(connection, column, comparison)
    if column is inputs.c.context:
        within = sa.and_(column != "", within)
    where = sa.select(sa.literal(1)).select_from(inputs).where(inputs.c.run == runs.c.run, within).exists()
    among = sa.select(inputs.c.run).where(within).distinct()
    return Condition(where, among if column is inputs.c.name and comparison.operator in {"=", "IN"} else None)


def kinds_of(orders: Sequence[Order]) -> list[type]:
    """Return the kinds of the columns that `sorts_of` sorts by."""
    kinds: list[type] = []
    for order in orders:
        if order.key or order.field == "end_time":
            kinds.append(int)
        kinds.append(float if order.field == "metrics" else int if order.field in _TIMES else str)
    return [*kinds, int]


def sorts_of(orders: Sequence[Order], source: sa.FromClause) -> tuple[list[Sort], sa.FromClause]:
    """Return the sort columns, and the source joined with the tables that they need; `source` has the runs.

    Where there may be no value, there are two columns to sort by: whether there is one, and the value.
    """
    sorts: list[Sort] = []
    for number, order in enumerate(orders):
        table = {"metrics": metrics, "params": params, "tags": tags}.get(order.field)
        if table is not None and order.key not in _TAGS_IN_COLUMNS:
            logged = table.alias(f"logged{number}")
            source = source.outerjoin(logged, sa.and_(logged.c.run == runs.c.run, logged.c.key == order.key))
            rank = sa.case((logged.c.run.is_(None), MISSING), (logged.c.value.is_(None), NAN), else_=0)
            value = sa.func.coalesce(logged.c.value, 0.0 if table is metrics else "")
            sorts += _ranked(number, order, rank, value, float if table is metrics else str)
        elif order.field in _TIMES:
            column = _TIMES[order.field]
            rank = sa.case((column.is_(None), MISSING), else_=0)
            sorts += _ranked(number, order, rank, sa.func.coalesce(column, 0), int)[order.field != "end_time" :]
        else:
            sorts += _by_text(number, order)
    descending = orders[-1].descending
    return [*sorts, Sort(runs.c.run, int, descending)], source


NAN, MISSING = 1, 2
"""How what is no number, and what is not there, are ranked behind all other values, which have 0."""


def _ranked(number: int, order: Order, rank: Any, value: Any, kind: type) -> list[Sort]:
    return [Sort(rank.label(f"rank{number}")), Sort(value.label(f"value{number}"), kind, order.descending)]


def _by_text(number: int, order: Order) -> list[Sort]:
    column = _TAGS_IN_COLUMNS[order.key] if order.key else _TEXTS[order.field]
    by_text = _ranked(number, order, sa.case((column == "", MISSING), else_=0), column, str)
    return by_text if order.key else by_text[1:]
