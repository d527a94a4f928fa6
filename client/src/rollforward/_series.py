"""Metric points as columns, in memory and on the wire."""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Iterable

POINT_BYTES: Final = 24
_BIG_ENDIAN: Final = sys.byteorder == "big"


class MetricHistory(NamedTuple):
    """All points of one metric of one run, as columns of equal length, in the order of step, time and arrival."""

    steps: array[int]
    """Steps, as 64-bit integers."""
    timestamps: array[int]
    """Timestamps, in milliseconds since 1970-01-01 UTC."""
    values: array[float]
    """Values, which may be NaN or infinite."""


@dataclass(slots=True)
class Columns:
    """Points of one metric that are not sent yet."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    timestamps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.values)

    def append(self, step: int, timestamp: int, value: float) -> None:
        """Add a point."""
        self.steps.append(step)
        self.timestamps.append(timestamp)
        self.values.append(value)

    def take(self, key: str, count: int) -> v1.Series:
        """Remove the first `count` points and return them packed."""
        series = pack(key, self.steps[:count], self.timestamps[:count], self.values[:count])
        del self.steps[:count], self.timestamps[:count], self.values[:count]
        return series


def pack(key: str, steps: array[int], timestamps: array[int], values: array[float]) -> v1.Series:
    """Pack a series for the wire: columns of 8-byte little-endian numbers."""
    return v1.Series(key=key, steps=_to_bytes(steps), timestamps=_to_bytes(timestamps), values=_to_bytes(values))


def unpack(chunks: Iterable[v1.Series]) -> MetricHistory:
    """Join the columns of a series from its chunks.

    Raises:
        InternalError: INVALID_SERIES if their lengths differ.
    """
    history = MetricHistory(array("q"), array("q"), array("d"))
    for chunk in chunks:
        sizes = {len(chunk.steps), len(chunk.timestamps), len(chunk.values)}
        if len(sizes) != 1 or sizes.pop() % 8:
            message = f"invalid series {chunk.key!r}: its columns differ in length"
            raise InternalError("INVALID_SERIES", message, {"key": chunk.key})
        history.steps.frombytes(chunk.steps)
        history.timestamps.frombytes(chunk.timestamps)
        history.values.frombytes(chunk.values)
    if _BIG_ENDIAN:
        history.steps.byteswap()
        history.timestamps.byteswap()
        history.values.byteswap()
    return history


def _to_bytes(column: array[int] | array[float]) -> bytes:
    if _BIG_ENDIAN:
        column = column[:]
        column.byteswap()
    return column.tobytes()
