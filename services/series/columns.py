"""Packed metric points: three columns of 8-byte little-endian numbers, and which of the points is the latest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eventstore import Kind, Rejected
from rollforward import v1

Point = tuple[int, int, float]
"""A step, a time (ms since 1970) and a value."""

Columns = tuple[bytes, bytes, bytes]
"""Steps, times and values, each 8-byte little-endian numbers."""


@dataclass(frozen=True, slots=True)
class Points:
    """Columns of equal length: steps, times (ms since 1970), values."""

    steps: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]

    def latest(self) -> Point:
        """Return the point with the highest step, then time, then value; NaN is the lowest value."""
        return latest_of(self, [0])[0]


def latest_of(points: Points, starts: Sequence[int]) -> list[Point]:
    """Return the latest point of each part; parts begin at `starts`, and none is empty. -0.0 becomes 0.0."""
    ends = np.array([*starts[1:], len(points.steps)])
    at = ends - 1 if _climb(points.steps, ends) else _latest(points, starts)
    values = points.values[at] + 0.0
    return list(zip(points.steps[at].tolist(), points.timestamps[at].tolist(), values.tolist(), strict=True))


def _climb(steps: NDArray[np.int64], ends: NDArray[np.int64]) -> bool:
    """Return whether steps grow within every part, as they almost always do: then the last is the latest."""
    climbs = steps[1:] > steps[:-1]
    climbs[ends[:-1] - 1] = True
    return bool(climbs.all())


def _latest(points: Points, starts: Sequence[int]) -> NDArray[np.intp]:
    """Return where the latest point of each part is."""
    owners = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(points.steps)))
    places = np.arange(len(points.steps))
    # Few points are left to sort once those with a lower step or time are out.
    for column in (points.steps, points.timestamps):
        candidates = column[places]
        highest = np.maximum.reduceat(candidates, np.searchsorted(owners, np.arange(len(starts))))
        left = candidates == highest[owners]
        places, owners = places[left], owners[left]
    values = points.values[places] + 0.0
    numbers = ~np.isnan(values)
    order = np.lexsort((np.where(numbers, values, 0.0), numbers, owners))
    return places[order[np.searchsorted(owners, np.arange(len(starts)), "right") - 1]]


def columns(series: v1.Series) -> Columns:
    """Return the columns of a chunk.

    Raises:
        Rejected: INVALID_SERIES when it is empty, or they are not of one length of whole 8-byte numbers.
    """
    steps, timestamps, values = series.steps, series.timestamps, series.values
    size = len(values)
    if not size or size % 8 or len(steps) != size or len(timestamps) != size:
        lengths = f"{len(steps)}, {len(timestamps)} and {size} bytes"
        message = f"invalid columns of {series.key!r}: expected equal lengths of whole 8-byte numbers, got {lengths}"
        raise Rejected(Kind.INVALID, "INVALID_SERIES", message, key=series.key)
    return steps, timestamps, values


def unpack(series: v1.Series) -> Points:
    """Return the points of a chunk. Raises `Rejected` INVALID_SERIES as `columns`."""
    return columns_of(*columns(series))


def columns_of(steps: bytes, timestamps: bytes, values: bytes) -> Points:
    """Return columns of 8-byte little-endian numbers as points."""
    return Points(np.frombuffer(steps, "<i8"), np.frombuffer(timestamps, "<i8"), np.frombuffer(values, "<f8"))


def pack(key: str, points: Points) -> v1.Series:
    """Return points as a chunk."""
    steps, timestamps, values = packed(points)
    return v1.Series(key=key, steps=steps, timestamps=timestamps, values=values)


def packed(points: Points) -> Columns:
    """Return points as columns of bytes."""
    return (
        points.steps.astype("<i8", copy=False).tobytes(),
        points.timestamps.astype("<i8", copy=False).tobytes(),
        points.values.astype("<f8", copy=False).tobytes(),
    )


def is_later(one: Point, other: Point) -> bool:
    """Return whether a point is later than another: by step, then time, then value; NaN is the lowest value."""
    if one[:2] != other[:2]:
        return one[:2] > other[:2]
    return one[2] > other[2] or (math.isnan(other[2]) and not math.isnan(one[2]))
