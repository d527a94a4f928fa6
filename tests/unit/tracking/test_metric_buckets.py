"""Buckets of metric points, compared with plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from services.tracking.queries.metric_buckets import Axis, Buckets

LOWEST, HIGHEST = -(2**63), 2**63 - 1
INT64 = st.one_of(st.integers(LOWEST, HIGHEST), st.integers(-50, 50), st.sampled_from([LOWEST, HIGHEST]))
VALUES = st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 0.25, -3.5, 1e9])


@given(places=st.lists(INT64, min_size=1, max_size=30), count=st.sampled_from([1, 2, 7, 320, 10_000]))
def test_position_is_in_expected_interval(places: list[int], count: int) -> None:
    low, high = min(places), max(places)
    intervals = Axis(v1.METRIC_AXIS_STEP, low, high, count).intervals(np.array(places, np.int64))
    expected = [min((place - low) * count // max(high - low, 1), count - 1) for place in places]
    assert intervals.tolist() == expected


@given(
    low=INT64,
    length=st.integers(0, 2**64 - 1),
    places=st.lists(INT64, max_size=30),
    count=st.sampled_from([1, 2, 320, 10_000]),
)
def test_position_outside_axis_is_in_some_interval(low: int, length: int, places: list[int], count: int) -> None:
    axis = Axis(v1.METRIC_AXIS_TIME, low, min(low + length, HIGHEST), count)
    intervals = axis.intervals(np.array(places, np.int64))
    assert ((intervals >= 0) & (intervals < count)).all()


@st.composite
def located_points(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Draw points with their intervals, with long and short stretches in one interval."""
    lengths = st.sampled_from([1, 1, 2, 9, 50])
    parts = draw(st.lists(st.tuples(st.integers(0, 5), lengths, VALUES, VALUES), max_size=20))
    return [(interval, first if at % 3 else second) for interval, size, first, second in parts for at in range(size)]


@given(parts=st.lists(located_points(), max_size=3))
def test_buckets_equal_those_of_loop_over_points(parts: Sequence[list[tuple[int, float]]]) -> None:
    buckets = Buckets(6)
    for part in parts:
        intervals, values = (np.array([point[at] for point in part]) for at in (0, 1))
        buckets.add_points(intervals.astype(np.int64), values.astype(np.float64))
    for interval in range(6):
        in_interval = [value for part in parts for place, value in part if place == interval]
        known = [value for value in in_interval if not math.isnan(value)]
        assert buckets.points[interval] == len(in_interval)
        assert buckets.numbers[interval] == len(known)
        assert buckets.minimum[interval] == min(known, default=math.inf)
        assert buckets.maximum[interval] == max(known, default=-math.inf)
        assert (
            not math.copysign(1, buckets.total[interval]) < 0 or sum(known) < 0 or math.isnan(buckets.total[interval])
        )
        np.testing.assert_allclose(buckets.total[interval], sum(known), rtol=1e-12, atol=1e-6)


@given(chunks=st.lists(st.tuples(st.integers(0, 2), VALUES), min_size=1, max_size=9))
def test_chunks_of_nan_count_points_only(chunks: list[tuple[int, float]]) -> None:
    buckets = Buckets(3)
    intervals, values = (np.array([chunk[at] for chunk in chunks]) for at in (0, 1))
    numbers = 2 * ~np.isnan(values)
    buckets.add_chunks(intervals, np.full(len(values), 5), numbers, [values] * 3)
    assert buckets.points.tolist() == [5 * chunks_in(chunks, interval) for interval in range(3)]
    assert buckets.numbers.sum() == numbers.sum()
    assert not np.isnan([buckets.minimum, buckets.maximum]).any()


def chunks_in(chunks: list[tuple[int, float]], interval: int) -> int:
    """Count the chunks of an interval."""
    return sum(place == interval for place, _ in chunks)
