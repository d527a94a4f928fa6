"""Metric points as they are answered: histories, pages of them, and intervals for charts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

import numpy as np
import sqlalchemy as sa

from eventstore.errors import Kind, Rejected
from eventstore.projection import Projector
from rollforward import v1
from services.pages import key_of, token_of
from services.series import Points, pack
from services.tracking.charts import Axis, Tally, extent, tally
from services.tracking.ordering import Ordered, Outline, next_points, outline
from services.tracking.queries import run_number
from services.tracking.tables import metrics, runs

HISTORY_POINTS = 50_000
"""How many points a chunk of a history has at most."""

WINDOW_POINTS = 400_000
"""How many points of a history are put in order at once; twice as many may be in memory."""

DEFAULT_PAGE = 25_000
LARGEST_PAGE = 100_000

DEFAULT_INTERVALS = 320
MOST_INTERVALS = 10_000
MOST_RUNS = 1_000
MOST_KEYS = 100
MOST_SERIES = 10_000

TALLIED_INTERVALS = 250_000
"""How many intervals of all runs together are counted at once: 10 MB."""

_IDS = runs.c.run_id.in_(sa.bindparam("ids", expanding=True))
_EARLIEST, _LATEST = -(2**63), 2**63 - 1


async def history(projector: Projector, request: v1.GetMetricHistoryRequest) -> AsyncGenerator[v1.Series]:
    """All points of a metric that were there when it was asked for, by step, time and arrival, in chunks.

    Raises:
        Rejected: RUN_NOT_FOUND or METRIC_NOT_FOUND.
    """
    low = request.from_step if request.HasField("from_step") else _EARLIEST
    high = request.to_step if request.HasField("to_step") else _LATEST

    def begin(rows: sa.Connection) -> tuple[Outline, Ordered]:
        series = _outline(rows, request.run_id, request.key, low, high)
        return series, next_points(rows, series, None, WINDOW_POINTS)

    series, found = await projector.query(begin)
    while len(found.numbers):
        for chunk in _chunks(request.key, found.points):
            yield chunk
        if len(found.numbers) < WINDOW_POINTS:
            return
        last = found.place(-1)
        found = await projector.query(lambda rows, last=last: next_points(rows, series, last, WINDOW_POINTS))  # type: ignore[misc]


def page(rows: sa.Connection, request: v1.ListMetricPointsRequest) -> v1.ListMetricPointsResponse:
    """A page of a metric's points, by step, time and arrival.

    Raises:
        Rejected: INVALID_PAGE, RUN_NOT_FOUND or METRIC_NOT_FOUND.
    """
    size = min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE)
    key = key_of(request.page_token, int, int, int)
    after = None if key is None else (int(str(key[0])), int(str(key[1])), int(str(key[2])))
    series = _outline(rows, request.run_id, request.key, after[0] if after else _EARLIEST, _LATEST)
    found = next_points(rows, series, after, size + 1)
    token = token_of(found.place(size - 1)) if len(found.numbers) > size else ""
    shown = found.only(slice(size)).points
    return v1.ListMetricPointsResponse(series=pack(request.key, shown), next_page_token=token)


def _outline(rows: sa.Connection, run_id: str, key: str, low: int, high: int) -> Outline:
    run = run_number(rows, run_id)
    held = sa.select(metrics.c.points).where(metrics.c.run == run, metrics.c.key == key)
    if rows.scalar(held) is None:
        words = f"run {run_id} has no metric {key[:250]!r}"
        raise Rejected(Kind.NOT_FOUND, "METRIC_NOT_FOUND", words, run_id=run_id, key=key[:250])
    return outline(rows, run, key, low, high)


def _chunks(key: str, points: Points) -> Iterator[v1.Series]:
    for start in range(0, len(points.steps), HISTORY_POINTS):
        part = slice(start, start + HISTORY_POINTS)
        yield pack(key, Points(points.steps[part], points.timestamps[part], points.values[part]))


async def intervals(
    projector: Projector, request: v1.GetMetricIntervalsRequest
) -> AsyncGenerator[v1.GetMetricIntervalsResponse]:
    """Metrics of runs in intervals, metric by metric; where bounds are left out, a metric's own in any of the runs.

    Raises:
        Rejected: TOO_MANY_SERIES, INVALID_INTERVALS or RUN_NOT_FOUND.
    """
    _check(request)
    run_ids = list(dict.fromkeys(request.run_ids))
    numbers, axes = await projector.query(lambda rows: _axes(rows, request, run_ids))
    together = max(1, TALLIED_INTERVALS // (request.intervals or DEFAULT_INTERVALS))
    for key, axis in axes.items():
        for at in range(0, len(numbers), together):
            some = numbers[at : at + together]
            found = await projector.query(lambda rows, axis=axis, some=some, key=key: tally(rows, axis, some, key))  # type: ignore[misc]
            for owner, run_id in enumerate(run_ids[at : at + together]):
                if response := _intervals(found, axis, owner):
                    response.run_id, response.key = run_id, key
                    yield response


def _check(request: v1.GetMetricIntervalsRequest) -> None:
    asked, keys = len(request.run_ids), len(request.keys)
    if asked > MOST_RUNS or keys > MOST_KEYS or asked * keys > MOST_SERIES:
        words = (
            f"at most {MOST_RUNS} runs and {MOST_KEYS} metrics, together {MOST_SERIES} series, are asked for at once"
        )
        raise Rejected(Kind.INVALID, "TOO_MANY_SERIES", words, runs=str(asked), keys=str(keys))
    bounded = request.HasField("from") and request.HasField("to")
    low, high = getattr(request, "from"), request.to
    if request.intervals > MOST_INTERVALS or (bounded and low > high):
        words = f"there are 1 to {MOST_INTERVALS} intervals, and they do not end before they begin"
        raise Rejected(Kind.INVALID, "INVALID_INTERVALS", words)


def _axes(
    rows: sa.Connection, request: v1.GetMetricIntervalsRequest, run_ids: Sequence[str]
) -> tuple[list[int], dict[str, Axis]]:
    """The numbers of the runs, and what each metric is drawn over; those are left out that have nothing to draw."""
    numbers = _run_numbers(rows, run_ids)
    axes: dict[str, Axis] = {}
    for key in dict.fromkeys(request.keys):
        if found := extent(rows, request.axis, numbers, key):
            low = getattr(request, "from") if request.HasField("from") else found[0]
            high = request.to if request.HasField("to") else found[1]
            axes[key] = Axis(request.axis, low, high, request.intervals or DEFAULT_INTERVALS)
    return numbers, {key: axis for key, axis in axes.items() if axis.low <= axis.high}


def _run_numbers(rows: sa.Connection, run_ids: Sequence[str]) -> list[int]:
    found = {
        row.run_id: row.run for row in rows.execute(sa.select(runs.c.run_id, runs.c.run).where(_IDS), {"ids": run_ids})
    }
    return [found.get(run_id) or run_number(rows, run_id) for run_id in run_ids]


def _intervals(found: Tally, axis: Axis, owner: int) -> v1.GetMetricIntervalsResponse | None:
    """The intervals of the run that is `owner`-th in a tally; None if it has no point in any."""
    those = slice(owner * axis.count, (owner + 1) * axis.count)
    where = np.flatnonzero(found.points[those])
    if not where.size:
        return None
    numbers = found.numbers[those][where]
    known = numbers > 0
    with np.errstate(invalid="ignore"):
        mean = found.total[those][where] / np.where(known, numbers, 1)
    least, greatest, mean = (
        np.where(known, column, np.nan) for column in (found.least[those][where], found.greatest[those][where], mean)
    )
    response = v1.GetMetricIntervalsResponse(
        to=axis.high,
        intervals=axis.count,
        numbers=where.astype("<u4").tobytes(),
        counts=found.points[those][where].astype("<u8").tobytes(),
        min=least.astype("<f8").tobytes(),
        max=greatest.astype("<f8").tobytes(),
        mean=mean.astype("<f8").tobytes(),
    )
    setattr(response, "from", axis.low)
    return response
