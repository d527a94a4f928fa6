"""Places in intervals, and what intervals have, against plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from services.tracking.queries.metric_buckets import Axis, Tally

LOWEST, HIGHEST = -(2**63), 2**63 - 1
INT64 = st.one_of(st.integers(LOWEST, HIGHEST), st.integers(-50, 50), st.sampled_from([LOWEST, HIGHEST]))
VALUES = st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 0.0, 0.25, -3.5, 1e9])


@given(places=st.lists(INT64, min_size=1, max_size=30), count=st.sampled_from([1, 2, 7, 320, 10_000]))
def test_a_place_is_in_the_interval_that_arithmetic_says(places: list[int], count: int) -> None:
    low, high = min(places), max(places)
    found = Axis(v1.METRIC_AXIS_STEP, low, high, count).intervals(np.array(places, np.int64))
    expected = [min((place - low) * count // max(high - low, 1), count - 1) for place in places]
    assert found.tolist() == expected


@given(
    low=INT64,
    length=st.integers(0, 2**64 - 1),
    places=st.lists(INT64, max_size=30),
    count=st.sampled_from([1, 2, 320, 10_000]),
)
def test_a_place_that_is_not_within_is_in_some_interval(low: int, length: int, places: list[int], count: int) -> None:
    axis = Axis(v1.METRIC_AXIS_TIME, low, min(low + length, HIGHEST), count)
    found = axis.intervals(np.array(places, np.int64))
    assert ((found >= 0) & (found < count)).all()


@st.composite
def placed(draw: st.DrawFn) -> list[tuple[int, float]]:
    """Points in intervals: stretches in one, or each in another one."""
    lengths = st.sampled_from([1, 1, 2, 9, 50])
    parts = draw(st.lists(st.tuples(st.integers(0, 5), lengths, VALUES, VALUES), max_size=20))
    return [(interval, one if at % 3 else other) for interval, size, one, other in parts for at in range(size)]


@given(parts=st.lists(placed(), max_size=3))
def test_intervals_have_what_a_loop_over_points_finds(parts: Sequence[list[tuple[int, float]]]) -> None:
    tally = Tally(6)
    for part in parts:
        intervals, values = (np.array([point[at] for point in part]) for at in (0, 1))
        tally.add_points(intervals.astype(np.int64), values.astype(np.float64))
    for interval in range(6):
        held = [value for part in parts for place, value in part if place == interval]
        known = [value for value in held if not math.isnan(value)]
        assert tally.points[interval] == len(held)
        assert tally.numbers[interval] == len(known)
        assert tally.least[interval] == min(known, default=math.inf)
        assert tally.greatest[interval] == max(known, default=-math.inf)
        assert not math.copysign(1, tally.total[interval]) < 0 or sum(known) < 0 or math.isnan(tally.total[interval])
        np.testing.assert_allclose(tally.total[interval], sum(known), rtol=1e-12, atol=1e-6)


@given(figures=st.lists(st.tuples(st.integers(0, 2), VALUES), min_size=1, max_size=9))
def test_chunks_without_a_number_count_their_points_only(figures: list[tuple[int, float]]) -> None:
    tally = Tally(3)
    intervals, values = (np.array([figure[at] for figure in figures]) for at in (0, 1))
    numbers = 2 * ~np.isnan(values)
    tally.add_chunks(intervals, np.full(len(values), 5), numbers, [values] * 3)
    assert tally.points.tolist() == [5 * figures_in(figures, interval) for interval in range(3)]
    assert tally.numbers.sum() == numbers.sum()
    assert not np.isnan([tally.least, tally.greatest]).any()


def figures_in(figures: list[tuple[int, float]], interval: int) -> int:
    """How many of them are of an interval."""
    return sum(place == interval for place, _ in figures)
