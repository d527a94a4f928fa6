"""Packed points: the latest point, compared with a plain and slow rule."""

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
# Few distinct numbers, so that steps and times repeat.
few = st.tuples(st.integers(-1, 2), st.integers(0, 1), st.sampled_from([NAN, -INF, -1.0, 0.0, 1.0, INF]))
points = st.lists(st.one_of(few, st.tuples(INT64, INT64, st.floats())), min_size=1, max_size=30)
Point = tuple[int, int, float]


def is_before(point: Point, other: Point) -> bool:
    """Return whether a point is before another: by step, then time, then value, with NaN before all numbers."""
    if point[:2] != other[:2]:
        return point[:2] < other[:2]
    if math.isnan(point[2]) or math.isnan(other[2]):
        return math.isnan(point[2]) and not math.isnan(other[2])
    return point[2] < other[2]


def series_of(columns: list[Point]) -> v1.Series:
    """Pack points by hand."""
    steps, times, values = zip(*columns, strict=True)
    size = len(columns)
    return v1.Series(
        key="loss",
        steps=struct.pack(f"<{size}q", *steps),
        timestamps=struct.pack(f"<{size}q", *times),
        values=struct.pack(f"<{size}d", *values),
    )


def same(point: Point, other: Point) -> bool:
    """Return whether two points are the same; NaN equals NaN."""
    return not is_before(point, other) and not is_before(other, point)


@given(points)
def test_no_point_is_after_latest(columns: list[Point]) -> None:
    latest = unpack(series_of(columns)).latest()
    slow = functools.reduce(lambda point, other: other if is_before(point, other) else point, columns)
    assert same(latest, slow)


@given(st.lists(st.tuples(points, st.booleans()), min_size=1, max_size=4))
def test_latest_of_each_part_is_found(parts: list[tuple[list[Point], bool]]) -> None:
    # Parts whose steps increase, which is the common case, take another code path.
    cut = [
        [(step, *columns[step][1:]) for step in range(len(columns))] if increasing else columns
        for columns, increasing in parts
    ]
    starts = [sum(map(len, cut[:number])) for number in range(len(cut))]
    latest_points = latest_of(unpack(series_of([point for columns in cut for point in columns])), starts)
    for columns, latest in zip(cut, latest_points, strict=True):
        assert same(latest, functools.reduce(lambda point, other: other if is_before(point, other) else point, columns))


@given(points, points)
def test_latest_of_chunks_is_latest_of_all_points(first: list[Point], second: list[Point]) -> None:
    earlier, later = unpack(series_of(first)).latest(), unpack(series_of(second)).latest()
    kept = later if is_later(later, earlier) else earlier
    assert same(kept, unpack(series_of(first + second)).latest())
    assert same(kept, unpack(series_of(second + first)).latest())


@given(few, few)
def test_is_later_agrees_with_plain_rule(point: Point, other: Point) -> None:
    assert is_later(point, other) == is_before(other, point)


@given(points)
def test_packing_inverts_unpacking(columns: list[Point]) -> None:
    series = series_of(columns)
    assert pack("loss", unpack(series)) == series


def test_big_endian_points_are_packed_alike() -> None:
    big = Points(np.array([1, 2], ">i8"), np.array([3, 4], ">i8"), np.array([0.5, 1.5], ">f8"))
    assert pack("loss", big) == series_of([(1, 3, 0.5), (2, 4, 1.5)])


@pytest.mark.parametrize(
    ("steps", "timestamps", "values"),
    [(0, 0, 0), (8, 8, 0), (8, 8, 16), (8, 0, 8), (16, 8, 8), (7, 7, 7), (12, 12, 12)],
)
def test_columns_of_different_lengths_are_rejected(steps: int, timestamps: int, values: int) -> None:
    series = v1.Series(key="loss", steps=bytes(steps), timestamps=bytes(timestamps), values=bytes(values))
    with pytest.raises(Rejected) as refused:
        unpack(series)
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_SERIES")
    assert refused.value.metadata == {"key": "loss"}


def test_unpacked_columns_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        unpack(series_of([(1, 1, 1.0)])).values[0] = 2.0
