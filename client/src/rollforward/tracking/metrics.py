"""Metric points: all of them, in pages, or aggregated in intervals for charts."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, cast

from rollforward import v1
from rollforward._series import MetricHistory, unpack
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource
from rollforward._validation import INT32_MAX, checked_step
from rollforward.errors import InternalError, InvalidRequest
from rollforward.references import RunLike, run_id_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import SupportsIndex

Axis = Literal["step", "time"]

_AXES: Final[Mapping[str, v1.MetricAxis.ValueType]] = {"step": v1.METRIC_AXIS_STEP, "time": v1.METRIC_AXIS_TIME}
_UINT32: Final = next(code for code in "IL" if array(code).itemsize == 4)


class MetricIntervals(NamedTuple):
    """A metric of one run in intervals of equal length; each column has one element per interval with points."""

    run_id: str
    key: str
    start: int
    """The start of the first interval: a step, or milliseconds since 1970-01-01 UTC."""
    end: int
    """The end of the last interval, inclusive."""
    intervals: int
    """The number of intervals from `start` to `end`."""
    numbers: array[int]
    """The numbers of the intervals with points, from 0, in order."""
    counts: array[int]
    """The number of points in each."""
    min: array[float]
    """The smallest value; NaN if there is no number."""
    max: array[float]
    """The largest value."""
    mean: array[float]
    """The mean of the values that are numbers."""


class Metrics(Resource):
    """Metric points of runs: all, in pages, or aggregated for charts."""

    def history(
        self,
        run: RunLike,
        key: str,
        *,
        from_step: SupportsIndex | None = None,
        to_step: SupportsIndex | None = None,
    ) -> MetricHistory:
        """Return all points of one metric of one run as arrays: steps, timestamps and values.

        Timestamps are milliseconds since 1970-01-01 UTC. With `from_step` and `to_step`, return only the points from
        one to the other, inclusive. For many millions of points, use metric_points, which reads a page at a time.

        Raises:
            InvalidRequest: INVALID_STEP.
            NotFound: RUN_NOT_FOUND, METRIC_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        request = v1.GetMetricHistoryRequest(
            run_id=run_id_of(run),
            key=key,
            from_step=None if from_step is None else checked_step(from_step, "from_step"),
            to_step=None if to_step is None else checked_step(to_step, "to_step"),
        )

        def attempt(seconds: float | None) -> MetricHistory:
            call = self._connection.tracking.GetMetricHistory(
                request, timeout=seconds, metadata=self._connection.metadata()
            )
            return unpack(response.series for response in call)

        return self._connection.retry(attempt)

    def points(self, run: RunLike, key: str, *, page_size: int = 25_000) -> Iterator[MetricHistory]:
        """Yield the points of metric_history in pages, each read when it is needed.

        The pages stay correct while the run logs later steps. Raises, during iteration, InvalidRequest (INVALID_LIMIT),
        NotFound (RUN_NOT_FOUND, METRIC_NOT_FOUND), Unavailable.
        """
        if not 1 <= page_size <= INT32_MAX:
            raise InvalidRequest("INVALID_LIMIT", f"page_size must be >= 1, got {page_size}")
        request = v1.ListMetricPointsRequest(run_id=run_id_of(run), key=key, page_size=page_size)
        while True:
            page = self._connection.call(self._connection.tracking.ListMetricPoints, request)
            yield unpack([page.series])
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def intervals(
        self,
        runs: RunLike | Iterable[RunLike],
        keys: str | Iterable[str],
        intervals: int = 320,
        *,
        axis: Axis = "step",
        start: SupportsIndex | None = None,
        end: SupportsIndex | None = None,
    ) -> list[MetricIntervals]:
        """Return metrics of up to 1,000 runs in intervals, each with its smallest, largest and mean value.

        All runs have the same intervals of a metric: from `start`, by default the first point in any run, to `end`, by
        default the last, by step or by time (milliseconds since 1970-01-01 UTC). A run without the metric is omitted.

        Raises:
            InvalidRequest: INVALID_AXIS, INVALID_STEP, INVALID_INTERVALS, TOO_MANY_SERIES.
            NotFound: RUN_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        if axis not in _AXES:
            raise InvalidRequest("INVALID_AXIS", f"invalid axis {axis!r}: expected step or time")
        if not 1 <= intervals <= INT32_MAX:
            raise InvalidRequest("INVALID_INTERVALS", f"intervals must be >= 1, got {intervals}")
        some = cast("Iterable[RunLike]", [runs] if isinstance(runs, str) or hasattr(runs, "run_id") else runs)
        request = v1.GetMetricIntervalsRequest(
            run_ids=[run_id_of(run) for run in some],
            keys=[keys] if isinstance(keys, str) else keys,
            intervals=intervals,
            axis=_AXES[axis],
            to=None if end is None else checked_step(end, "end"),
            **({} if start is None else {"from": checked_step(start, "start")}),
        )

        def attempt(seconds: float | None) -> list[MetricIntervals]:
            call = self._connection.tracking.GetMetricIntervals(
                request, timeout=seconds, metadata=self._connection.metadata()
            )
            return [_columns(response) for response in call]

        return self._connection.retry(attempt)


def _columns(response: v1.GetMetricIntervalsResponse) -> MetricIntervals:
    numbers = _column(_UINT32, response.numbers)
    counts = _column("Q", response.counts)
    least, greatest, mean = (_column("d", column) for column in (response.min, response.max, response.mean))
    if {len(column) for column in (counts, least, greatest, mean)} != {len(numbers)}:
        message = f"invalid series {response.key!r}: its columns differ in length"
        raise InternalError("INVALID_SERIES", message, {"key": response.key})
    place = (response.run_id, response.key, getattr(response, "from"), response.to, response.intervals)
    return MetricIntervals(*place, numbers, counts, least, greatest, mean)


def _column(code: str, packed: bytes) -> array[Any]:
    column: array[Any] = array(code)
    column.frombytes(packed)
    if sys.byteorder == "big":
        column.byteswap()
    return column


metric_history = default_client_function("metric_history", Metrics, Metrics.history)
metric_points = default_client_function("metric_points", Metrics, Metrics.points)
metric_intervals = default_client_function("metric_intervals", Metrics, Metrics.intervals)
