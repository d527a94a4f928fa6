"""Metrics of runs in intervals, as they are asked for and answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence

import numpy as np
import sqlalchemy as sa

from eventstore import Kind, Projector, Rejected
from rollforward import v1
from services.tracking.projection.tables import runs
from services.tracking.queries.metric_buckets import Axis, Buckets, Outline, buckets_of, extent, outline
from services.tracking.queries.runs import run_number

DEFAULT_INTERVALS = 320
MAX_INTERVALS = 10_000
MAX_RUNS = 1_000
MAX_KEYS = 100
MAX_SERIES = 10_000

MAX_BUCKETS = 250_000
"""The maximum number of buckets of all series that are filled at once: 10 MB."""

_NUMBERS = sa.select(runs.c.run_id, runs.c.run).where(runs.c.run_id.in_(sa.bindparam("ids", expanding=True)))


async def intervals(
    projector: Projector, request: v1.GetMetricIntervalsRequest
) -> AsyncGenerator[v1.GetMetricIntervalsResponse]:
    """Yield metrics of runs in intervals, metric by metric; missing bounds are those of the metric in all runs.

    Raises:
        Rejected: TOO_MANY_SERIES, INVALID_INTERVALS or RUN_NOT_FOUND.
    """
    _check(request)
    asked = _Asked(request)
    for keys, part in asked.parts():
        for response in await projector.query(lambda rows, keys=keys, part=part: asked.answer(rows, keys, part)):  # type: ignore[misc]
            yield response


def _check(request: v1.GetMetricIntervalsRequest) -> None:
    asked, keys = len(request.run_ids), len(request.keys)
    if asked > MAX_RUNS or keys > MAX_KEYS or asked * keys > MAX_SERIES:
        message = (
            f"too many series: expected at most {MAX_RUNS} runs, {MAX_KEYS} metrics and {MAX_SERIES} series in all"
        )
        raise Rejected(Kind.INVALID, "TOO_MANY_SERIES", message, runs=str(asked), keys=str(keys))
    bounded = request.HasField("from") and request.HasField("to")
    low, high = getattr(request, "from"), request.to
    if request.intervals > MAX_INTERVALS or (bounded and low > high):
        message = f"invalid intervals: expected at most {MAX_INTERVALS} of them, and a start before their end"
        raise Rejected(Kind.INVALID, "INVALID_INTERVALS", message)


class _Asked:
    """The request; the numbers of its runs and the bounds of its metrics hold for every part of the response."""

    def __init__(self, request: v1.GetMetricIntervalsRequest) -> None:
        self._request = request
        self._run_ids = list(dict.fromkeys(request.run_ids))
        self._count = request.intervals or DEFAULT_INTERVALS
        self._numbers: list[int] = []
        self._axes: dict[str, Axis | None] = {}

    def parts(self) -> Iterator[tuple[Sequence[str], slice]]:
        """Yield metrics and groups of runs that are counted at once; without metrics only the runs are checked."""
        keys, runs = list(dict.fromkeys(self._request.keys)), len(self._run_ids)
        series = max(1, MAX_BUCKETS // self._count)
        at_once = max(1, series // max(1, runs))
        for first in range(0, max(1, len(keys)), at_once):
            for at in range(0, runs, series):
                yield keys[first : first + at_once], slice(at, at + series)

    def answer(
        self, connection: sa.Connection, keys: Sequence[str], part: slice
    ) -> list[v1.GetMetricIntervalsResponse]:
        """Yield the intervals of each metric and each run that has it, in this order."""
        self._numbers = self._numbers or _run_numbers(connection, self._run_ids)
        return [response for key in keys for response in self._drawn(connection, key, part)]

    def _drawn(self, connection: sa.Connection, key: str, part: slice) -> Iterator[v1.GetMetricIntervalsResponse]:
        series = outline(connection, self._request.axis, self._numbers[part], key)
        if key not in self._axes:
            self._axes[key] = self._axis(connection, key, series, part)
        if (axis := self._axes[key]) is None:
            return
        buckets = buckets_of(connection, axis, self._numbers[part], key, series)
        for owner, run_id in enumerate(self._run_ids[part]):
            if response := _intervals(buckets, axis, owner):
                response.run_id, response.key = run_id, key
                yield response

    def _axis(self, connection: sa.Connection, key: str, series: Outline, part: slice) -> Axis | None:
        """Return the bounds of a metric, given its outline in the first runs; None if it has no points."""
        whole = len(self._numbers[part]) == len(self._numbers)
        bounds = series.extent() if whole else extent(connection, self._request.axis, self._numbers, key)
        if not bounds:
            return None
        low = getattr(self._request, "from") if self._request.HasField("from") else bounds[0]
        high = self._request.to if self._request.HasField("to") else bounds[1]
        return Axis(self._request.axis, low, high, self._count) if low <= high else None


def _run_numbers(connection: sa.Connection, run_ids: Sequence[str]) -> list[int]:
    numbers = {row.run_id: row.run for row in connection.execute(_NUMBERS, {"ids": run_ids})}
    return [numbers.get(run_id) or run_number(connection, run_id) for run_id in run_ids]


def _intervals(buckets: Buckets, axis: Axis, owner: int) -> v1.GetMetricIntervalsResponse | None:
    """Return the intervals of the `owner`-th run; None if it has no point in any."""
    span = slice(owner * axis.count, (owner + 1) * axis.count)
    where = np.flatnonzero(buckets.points[span])
    if not where.size:
        return None
    numbers = buckets.numbers[span][where]
    known = numbers > 0
    with np.errstate(invalid="ignore"):
        mean = buckets.total[span][where] / np.where(known, numbers, 1)
    minimum, maximum, mean = (
        np.where(known, column, np.nan) for column in (buckets.minimum[span][where], buckets.maximum[span][where], mean)
    )
    response = v1.GetMetricIntervalsResponse(
        to=axis.high,
        intervals=axis.count,
        numbers=where.astype("<u4").tobytes(),
        counts=buckets.points[span][where].astype("<u8").tobytes(),
        min=minimum.astype("<f8").tobytes(),
        max=maximum.astype("<f8").tobytes(),
        mean=mean.astype("<f8").tobytes(),
    )
    setattr(response, "from", axis.low)
    return response
