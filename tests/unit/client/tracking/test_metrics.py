"""Metric points in pages and in intervals, and text charts."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from rollforward._series import pack
from rollforward.cli.tracking.metric_chart import chart
from rollforward.errors import InternalError, InvalidRequest, NotFound
from rollforward.tracking.metrics import MetricIntervals
from tests.unit.client.conftest import Serve, Service

RUN = "a" * 32


class Points(Service):
    """A tracking service with three pages of points, and intervals whose first stream breaks."""

    def __init__(self) -> None:
        self.pages: list[v1.ListMetricPointsRequest] = []
        self.charts: list[v1.GetMetricIntervalsRequest] = []
        self.answer = v1.GetMetricIntervalsResponse(
            run_id=RUN,
            key="loss",
            to=9,
            intervals=5,
            numbers=struct.pack("<2I", 1, 4),
            counts=struct.pack("<2Q", 3, 2**40),
            min=struct.pack("<2d", -1.0, math.nan),
            max=struct.pack("<2d", 2.0, math.nan),
            mean=struct.pack("<2d", 0.5, math.nan),
        )
        setattr(self.answer, "from", -7)

    def ListMetricPoints(self, request: v1.ListMetricPointsRequest, context: Any) -> v1.ListMetricPointsResponse:  # noqa: N802
        self.pages.append(request)
        if request.key != "loss":
            context.abort(grpc.StatusCode.NOT_FOUND, "none")
        number = int(request.page_token or 0)
        series = pack("loss", array("q", [number]), array("q", [0]), array("d", [0.5]))
        return v1.ListMetricPointsResponse(series=series, next_page_token=str(number + 1) if number < 2 else "")

    def GetMetricIntervals(  # noqa: N802
        self, request: v1.GetMetricIntervalsRequest, context: Any
    ) -> Iterator[v1.GetMetricIntervalsResponse]:
        self.charts.append(request)
        yield self.answer
        if len(self.charts) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "broken")


def test_pages_are_read_on_demand(serve: Serve) -> None:
    service = Points()
    client = serve(service, v1.add_TrackingServiceServicer_to_server)
    pages = client.metrics.points(RUN, "loss", page_size=1)
    assert list(next(pages).steps) == [0]
    assert len(service.pages) == 1
    assert [list(page.steps) for page in pages] == [[1], [2]]
    assert [request.page_size for request in service.pages] == [1, 1, 1]
    with pytest.raises(NotFound):
        next(client.metrics.points(RUN, "nothing"))
    with pytest.raises(InvalidRequest) as refused:
        next(client.metrics.points(RUN, "loss", page_size=0))
    assert refused.value.reason == "INVALID_LIMIT"


def test_intervals_are_complete_after_a_broken_stream(serve: Serve) -> None:
    service = Points()
    client = serve(service, v1.add_TrackingServiceServicer_to_server)
    (found,) = client.metrics.intervals(v1.Run(run_id=RUN), "loss", 5, axis="time", start=-7)
    assert found[:5] == (RUN, "loss", -7, 9, 5)
    assert (list(found.numbers), list(found.counts)) == ([1, 4], [3, 2**40])
    assert (found.min[0], found.max[0], found.mean[0]) == (-1.0, 2.0, 0.5)
    assert all(math.isnan(column[1]) for column in (found.min, found.max, found.mean))
    request = service.charts[1]
    assert (list(request.run_ids), list(request.keys), request.axis) == ([RUN], ["loss"], v1.METRIC_AXIS_TIME)
    assert (getattr(request, "from"), request.HasField("to")) == (-7, False)


def test_intervals_with_columns_of_different_length_are_rejected(serve: Serve) -> None:
    service = Points()
    service.answer.mean = b""
    client = serve(service, v1.add_TrackingServiceServicer_to_server)
    with pytest.raises(InternalError) as refused:
        client.metrics.intervals([RUN], ["loss"])
    assert refused.value.reason == "INVALID_SERIES"


def test_unknown_axis_is_rejected(serve: Serve) -> None:
    client = serve(Points(), v1.add_TrackingServiceServicer_to_server)
    with pytest.raises(InvalidRequest) as refused:
        client.metrics.intervals(RUN, "loss", axis="epoch")  # type: ignore[arg-type]
    assert refused.value.reason == "INVALID_AXIS"


def drawn(values: list[tuple[float, float, float]]) -> list[str]:
    """Return the lines of a chart of intervals, each given by minimum, maximum and mean."""
    least, greatest, mean = (array("d", column) for column in zip(*values, strict=True))
    count = len(values)
    series = MetricIntervals(
        RUN, "loss", 0, 9, count, array("I", range(count)), array("Q", [1] * count), least, greatest, mean
    )
    return chart(series, "0", "9").splitlines()


def test_rising_metric_is_drawn_rising() -> None:
    lines = drawn([(value, value, value) for value in range(12)])
    assert lines[0].rstrip()[-1] in "•*"
    assert lines[0].strip().startswith("11")
    rows = [line[4:] for line in lines[:-1]]
    assert [row.find(row.strip()) for row in rows] == list(range(11, -1, -1))


def test_interval_is_drawn_from_minimum_to_maximum() -> None:
    lines = drawn([(0.0, 10.0, 5.0), (5.0, 5.0, 5.0)])
    assert sum(line[4] in "│|•*" for line in lines[:-1]) == 12


AWKWARD = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1e308, 1e308, 1e-308, 5e-324])


@given(st.lists(st.lists(AWKWARD, min_size=1, max_size=3), min_size=1, max_size=5))
def test_any_values_can_be_drawn(intervals: list[list[float]]) -> None:
    columns = []
    for values in intervals:
        numbers = [value for value in values if not math.isnan(value)] or [math.nan]
        columns.append((min(numbers), max(numbers), sum(numbers) / len(numbers)))
    lines = drawn(columns)
    finite = [one for low, high, _ in columns for one in (low, high) if math.isfinite(one)]
    assert len(lines) == (13 if finite else 1)
