"""Packed points: which is the latest, judged by a rule that is plain and slow."""

from __future__ import annotations

import functools
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Kind, Rejected
from rollforward import v1
from services.series.columns import Points, is_later, latest_of, pack, unpack

INT64 = st.integers(-(2**63), 2**63 - 1)
NAN, INF = float("nan"), float("inf")
# Few different numbers, so that steps and times repeat.
few = st.tuples(st.integers(-1, 2), st.integers(0, 1), st.sampled_from([NAN, -INF, -1.0, 0.0, 1.0, INF]))
points = st.lists(st.one_of(few, st.tuples(INT64, INT64, st.floats())), min_size=1, max_size=30)
Point = tuple[int, int, float]


def before(one: Point, other: Point) -> bool:
    """Whether a point is before another: by step, then by time, then by value, a NaN before all numbers."""
    if one[:2] != other[:2]:
        return one[:2] < other[:2]
    if math.isnan(one[2]) or math.isnan(other[2]):
        return math.isnan(one[2]) and not math.isnan(other[2])
    return one[2] < other[2]


def series_of(columns: list[Point]) -> v1.Series:
    """Points as they travel, packed by hand."""
    steps, times, values = zip(*columns, strict=True)
    size = len(columns)
    return v1.Series(
        key="loss",
        steps=struct.pack(f"<{size}q", *steps),
        timestamps=struct.pack(f"<{size}q", *times),
        values=struct.pack(f"<{size}d", *values),
    )


def same(one: Point, other: Point) -> bool:
    """Whether two points are the same, NaN being the same as NaN."""
    return not before(one, other) and not before(other, one)


@given(points)
def test_the_latest_is_the_one_that_none_is_behind(columns: list[Point]) -> None:
    latest = unpack(series_of(columns)).latest()
    slow = functools.reduce(lambda one, other: other if before(one, other) else one, columns)
    assert same(latest, slow)


@given(st.lists(st.tuples(points, st.booleans()), min_size=1, max_size=4))
def test_each_part_has_its_own_latest(parts: list[tuple[list[Point], bool]]) -> None:
    # Steps that climb in every part, as almost always, are judged in another way.
    cut = [
        [(step, *columns[step][1:]) for step in range(len(columns))] if climbs else columns for columns, climbs in parts
    ]
    starts = [sum(map(len, cut[:number])) for number in range(len(cut))]
    found = latest_of(unpack(series_of([point for columns in cut for point in columns])), starts)
    for columns, latest in zip(cut, found, strict=True):
        assert same(latest, functools.reduce(lambda one, other: other if before(one, other) else one, columns))


@given(points, points)
def test_over_chunks_the_latest_is_that_of_all_points(first: list[Point], second: list[Point]) -> None:
    one, other = unpack(series_of(first)).latest(), unpack(series_of(second)).latest()
    kept = other if is_later(other, one) else one
    assert same(kept, unpack(series_of(first + second)).latest())
    assert same(kept, unpack(series_of(second + first)).latest())


@given(few, few)
def test_one_is_later_than_another_as_the_plain_rule_has_it(one: Point, other: Point) -> None:
    assert is_later(one, other) == before(other, one)


@given(points)
def test_packing_is_the_inverse_of_unpacking(columns: list[Point]) -> None:
    series = series_of(columns)
    assert pack("loss", unpack(series)) == series


def test_points_of_another_machine_are_packed_alike() -> None:
    big = Points(np.array([1, 2], ">i8"), np.array([3, 4], ">i8"), np.array([0.5, 1.5], ">f8"))
    assert pack("loss", big) == series_of([(1, 3, 0.5), (2, 4, 1.5)])


@pytest.mark.parametrize(
    ("steps", "timestamps", "values"),
    [(0, 0, 0), (8, 8, 0), (8, 8, 16), (8, 0, 8), (16, 8, 8), (7, 7, 7), (12, 12, 12)],
)
def test_columns_of_other_lengths_are_refused(steps: int, timestamps: int, values: int) -> None:
    series = v1.Series(key="loss", steps=bytes(steps), timestamps=bytes(timestamps), values=bytes(values))
    with pytest.raises(Rejected) as refused:
        unpack(series)
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_SERIES")
    assert refused.value.metadata == {"key": "loss"}


def test_the_columns_of_a_chunk_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        unpack(series_of([(1, 1, 1.0)])).values[0] = 2.0
