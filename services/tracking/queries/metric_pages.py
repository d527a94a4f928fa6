"""Summaries of metrics, a page at a time, and how many of them fit a run or a logged model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from rollforward import v1
from services.listings.pages import LARGEST_BYTES, MAX_ROW_BYTES, key_of, token_of
from services.series.latest import number
from services.tracking.projection.tables import metrics, model_metrics, runs

DEFAULT_PAGE = 10_000
MAX_PAGE = 50_000

_ALWAYS_FIT = 800  # metrics with the longest names, beside all else that a run can have

Row = Any


def summarize(summary: v1.MetricSummary, row: Row) -> None:
    """Fill in the summary of a metric."""
    _, _, value, summary.last_step, summary.last_timestamp, least, greatest, summary.count = row
    summary.last, summary.min, summary.max = number(value), number(least), number(greatest)


def shorten(view: v1.Run, *, incomplete: bool) -> None:
    """Drop a run's last metrics, by name, until it fits a response, and set where they continue.

    Args:
        view: The run.
        incomplete: Whether it has more metrics than were read.
    """
    if len(view.metrics) <= _ALWAYS_FIT and not incomplete:
        return
    excess = view.ByteSize() - MAX_ROW_BYTES
    if excess <= 0 and not incomplete:
        return
    names = sorted(view.metrics)
    while excess > 0:
        name = names.pop()
        excess -= len(name.encode()) + view.metrics[name].ByteSize()
        del view.metrics[name]
    view.next_metrics_token = token_of([names[-1]])


def add_model_metrics(view: v1.LoggedModel, rows: Iterable[Row], *, incomplete: bool) -> None:
    """Add metrics to a logged model, as many as fit an answer, and say where they continue.

    Args:
        view: The logged model with all else that it has.
        rows: Its metrics by key, run and dataset.
        incomplete: Whether it has more metrics than were read.
    """
    budget = MAX_ROW_BYTES - view.ByteSize()
    last = None
    for row in rows:
        metric = model_metric(row)
        budget -= metric.ByteSize() + 8
        if budget < 0:
            incomplete = True
            break
        view.metrics.append(metric)
        last = row
    if incomplete:
        view.next_metrics_token = token_of(["", 0, "", ""] if last is None else last[1:5])


def model_metric(row: Row) -> v1.LoggedModelMetric:
    """Return the metric of a logged model that a row holds."""
    _, key, _, dataset_name, dataset_digest, step, time, value, run_id = row
    return v1.LoggedModelMetric(
        key=key,
        value=number(value),
        step=step,
        timestamp=time,
        run_id=run_id,
        dataset_name=dataset_name,
        dataset_digest=dataset_digest,
    )


def run_metrics(connection: sa.Connection, run: int, size: int, token: str) -> v1.ListRunMetricsResponse:
    """Read a page of a run's metrics, by name. Raises `Rejected` INVALID_PAGE."""
    statement = sa.select(*SUMMARY).where(metrics.c.run == run)
    if key := key_of(token, str):
        statement = statement.where(metrics.c.key > key[0])
    size = min(size or DEFAULT_PAGE, MAX_PAGE)
    rows = connection.execute(statement.order_by(metrics.c.key).limit(size + 1)).all()
    page = v1.ListRunMetricsResponse()
    budget = LARGEST_BYTES
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and (budget < 0 or len(page.metrics) == size):
            page.next_page_token = token_of([before.key])
            break
        summarize(page.metrics[row.key], row)
        budget -= len(row.key.encode()) + page.metrics[row.key].ByteSize()
    return page


def logged_model_metrics(
    connection: sa.Connection, model: int, size: int, token: str
) -> v1.ListLoggedModelMetricsResponse:
    """Read a page of a logged model's metrics, by name, run and dataset. Raises `Rejected` INVALID_PAGE."""
    order = MODEL_METRIC_KEY
    statement = sa.select(model_metrics, runs.c.run_id).join(runs, runs.c.run == model_metrics.c.run)
    statement = statement.where(model_metrics.c.model == model)
    if key := key_of(token, str, int, str, str):
        statement = statement.where(sa.tuple_(*order) > sa.tuple_(*key))
    size = min(size or DEFAULT_PAGE, MAX_PAGE)
    rows = connection.execute(statement.order_by(*order).limit(size + 1)).all()
    page = v1.ListLoggedModelMetricsResponse()
    budget = LARGEST_BYTES
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and (budget < 0 or len(page.metrics) == size):
            page.next_page_token = token_of(before[1:5])
            break
        page.metrics.append(model_metric(row))
        budget -= page.metrics[-1].ByteSize()
    return page


SUMMARY = (
    metrics.c.run,
    metrics.c.key,
    metrics.c.value,
    metrics.c.step,
    metrics.c.timestamp,
    metrics.c.least,
    metrics.c.greatest,
    metrics.c.points,
)
MODEL_METRIC_KEY = (
    model_metrics.c.key,
    model_metrics.c.run,
    model_metrics.c.dataset_name,
    model_metrics.c.dataset_digest,
)
