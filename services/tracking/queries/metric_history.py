"""Metric points as they are answered: histories, and pages of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator

import sqlalchemy as sa

from eventstore import Kind, Projector, Rejected
from rollforward import v1
from services.listings.pages import key_of, token_of
from services.series.columns import Points, pack, packed
from services.tracking.projection.tables import metrics
from services.tracking.queries.runs import run_number
from services.tracking.queries.series_reader import Ordered, Outline, next_points, outline

HISTORY_POINTS = 8_192
"""How many points a chunk of a history has at most."""

WINDOW_POINTS = 400_000
"""How many points of a history are put in order at once; twice as many may be in memory."""

DEFAULT_PAGE = 25_000
LARGEST_PAGE = 100_000

_EARLIEST, _LATEST = -(2**63), 2**63 - 1


async def history(
    projector: Projector, request: v1.GetMetricHistoryRequest
) -> AsyncGenerator[v1.GetMetricHistoryResponse]:
    """Yield all points that a metric had at the call, by step, time and arrival, in chunks.

    Raises:
        Rejected: RUN_NOT_FOUND or METRIC_NOT_FOUND.
    """
    low = request.from_step if request.HasField("from_step") else _EARLIEST
    high = request.to_step if request.HasField("to_step") else _LATEST

    def begin(connection: sa.Connection) -> tuple[Outline, Ordered]:
        series = _outline(connection, request.run_id, request.key, low, high)
        return series, next_points(connection, series, None, WINDOW_POINTS)

    series, window = await projector.query(begin)
    while len(window.numbers):
        for response in _responses(request.key, window.points):
            yield response
        if len(window.numbers) < WINDOW_POINTS:
            return
        last = window.place(-1)
        window = await projector.query(lambda rows, last=last: next_points(rows, series, last, WINDOW_POINTS))  # type: ignore[misc]


def page(connection: sa.Connection, request: v1.ListMetricPointsRequest) -> v1.ListMetricPointsResponse:
    """Return a page of a metric's points, by step, time and arrival.

    Raises:
        Rejected: INVALID_PAGE, RUN_NOT_FOUND or METRIC_NOT_FOUND.
    """
    size = min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE)
    key = key_of(request.page_token, int, int, int)
    after = None if key is None else (int(str(key[0])), int(str(key[1])), int(str(key[2])))
    series = _outline(connection, request.run_id, request.key, after[0] if after else _EARLIEST, _LATEST)
    window = next_points(connection, series, after, size + 1)
    token = token_of(window.place(size - 1)) if len(window.numbers) > size else ""
    shown = window.only(slice(size)).points
    return v1.ListMetricPointsResponse(series=pack(request.key, shown), next_page_token=token)


def _outline(connection: sa.Connection, run_id: str, key: str, low: int, high: int) -> Outline:
    run = run_number(connection, run_id)
    known = sa.select(metrics.c.points).where(metrics.c.run == run, metrics.c.key == key)
    if connection.scalar(known) is None:
        message = f"run {run_id} has no metric {key[:250]!r}"
        raise Rejected(Kind.NOT_FOUND, "METRIC_NOT_FOUND", message, run_id=run_id, key=key[:250])
    return outline(connection, run, key, low, high)


def _responses(key: str, points: Points) -> Iterator[v1.GetMetricHistoryResponse]:
    for start in range(0, len(points.steps), HISTORY_POINTS):
        part = slice(start, start + HISTORY_POINTS)
        response = v1.GetMetricHistoryResponse()
        series = response.series  # one that is made by itself would be copied into it
        series.key = key
        series.steps, series.timestamps, series.values = packed(
            Points(points.steps[part], points.timestamps[part], points.values[part])
        )
        yield response
