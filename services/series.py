"""Packed metric points: three columns of 8-byte little-endian numbers, and which of the points is the latest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eventstore.errors import Kind, Rejected
from rollforward import v1


@dataclass(frozen=True, slots=True)
class Points:
    """Columns of equal length: steps, times (ms since 1970), values."""

    steps: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: NDArray[np.float64]

    def latest(self) -> tuple[int, int, float]:
        """The point with the highest step, then time, then value; NaN is the lowest value."""
        rank = np.where(np.isnan(self.values), -np.inf, self.values)
        last = np.lexsort((rank, ~np.isnan(self.values), self.timestamps, self.steps))[-1]
        return int(self.steps[last]), int(self.timestamps[last]), float(self.values[last])


def unpack(series: v1.Series) -> Points:
    """The points of a chunk.

    Raises:
        Rejected: INVALID_SERIES when it is empty, or its columns are not of one length of whole 8-byte numbers.
    """
    size = len(series.values)
    if not size or size % 8 or len(series.steps) != size or len(series.timestamps) != size:
        lengths = f"{len(series.steps)}, {len(series.timestamps)} and {size} bytes"
        words = f"the columns of {series.key!r} are not of one length of whole 8-byte numbers: {lengths}"
        raise Rejected(Kind.INVALID, "INVALID_SERIES", words, key=series.key)
    return Points(
        np.frombuffer(series.steps, "<i8"),
        np.frombuffer(series.timestamps, "<i8"),
        np.frombuffer(series.values, "<f8"),
    )


def pack(key: str, points: Points) -> v1.Series:
    """The chunk of some points."""
    return v1.Series(
        key=key,
        steps=points.steps.astype("<i8").tobytes(),
        timestamps=points.timestamps.astype("<i8").tobytes(),
        values=points.values.astype("<f8").tobytes(),
    )


def is_later(one: tuple[int, int, float], other: tuple[int, int, float]) -> bool:
    """Whether a point is later than another: by step, then time, then value; NaN is the lowest value."""
    return _order(one) > _order(other)


def _order(point: tuple[int, int, float]) -> tuple[int, int, bool, float]:
    step, timestamp, value = point
    return (step, timestamp, not math.isnan(value), 0.0 if math.isnan(value) else value)
