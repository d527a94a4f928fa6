"""Metrics in intervals, as charts draw them: of each interval the least, the greatest and the mean value.

A chunk that lies in one interval counts by what rows say of it; only the points of others are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from rollforward import v1
from services.tracking.open_series import alike
from services.tracking.tables import chunks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_AT_ONCE = 256  # chunks whose points are read at once
_WORD = 2**64
_STEPS = (chunks.c.first_step, chunks.c.last_step, chunks.c.steps)
_TIMES = (chunks.c.first_time, chunks.c.last_time, chunks.c.timestamps)
_ARE_OF = (chunks.c.run.in_(sa.bindparam("of", expanding=True)), chunks.c.key == sa.bindparam("named"))
_ARE_NUMBERED = chunks.c.number.in_(sa.bindparam("numbered", expanding=True))


@dataclass(frozen=True, slots=True)
class Axis:
    """What is cut: from `low` to `high`, into `count` intervals of equal length; `high` belongs to the last."""

    kind: v1.MetricAxis.ValueType
    low: int
    high: int
    count: int

    def intervals(self, places: Ints) -> Ints:
        """The interval of each place; those that are not within are taken for the nearest that is."""
        span = self.high - self.low
        if span <= 0:
            return np.zeros(len(places), np.int64)
        # Modulo 2**64 the difference is right, whatever the signs.
        distance = np.clip(places, self.low, self.high).view(np.uint64) - np.uint64(self.low % _WORD)
        if span * self.count < _WORD:
            found = (distance * np.uint64(self.count) // np.uint64(span)).astype(np.int64)
        else:
            edges = [-(-number * span // self.count) for number in range(1, self.count)]
            found = np.searchsorted(np.array(edges, np.uint64), distance, "right")
        return np.minimum(found, self.count - 1)


class Tally:
    """What intervals have: how many points, how many of them numbers, the least and the greatest, and the sum."""

    def __init__(self, count: int) -> None:
        self.points = np.zeros(count, np.int64)
        self.numbers = np.zeros(count, np.int64)
        self.least = np.full(count, np.inf)
        self.greatest = np.full(count, -np.inf)
        self.total = np.zeros(count)

    def add_points(self, intervals: Ints, values: Floats) -> None:
        """Adds points, each in its interval."""
        known = ~np.isnan(values)
        starts = np.flatnonzero(np.diff(intervals, prepend=-1))
        if len(starts) > len(values) // 4:
            self.add_chunks(intervals, np.ones(len(values), np.int64), known.astype(np.int64), [values] * 3)
            return
        # Points that stand together in one interval count as a chunk.
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.add.reduceat(np.where(known, values, 0.0), starts)
        points = np.diff(starts, append=len(values))
        numbers = np.add.reduceat(known, starts, dtype=np.int64)
        figures = [np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts), total]
        self.add_chunks(intervals[starts], points, numbers, figures)

    def add_chunks(self, intervals: Ints, points: Ints, numbers: Ints, figures: Sequence[Floats]) -> None:
        """Adds whole chunks, each in its interval; `figures` are their least and greatest values and their sums."""
        np.add.at(self.points, intervals, points)
        np.add.at(self.numbers, intervals, numbers)
        known = numbers > 0
        intervals, (least, greatest, total) = intervals[known], (figure[known] + 0.0 for figure in figures)
        np.minimum.at(self.least, intervals, least)
        np.maximum.at(self.greatest, intervals, greatest)
        with np.errstate(invalid="ignore", over="ignore"):
            np.add.at(self.total, intervals, total)


def extent(rows: sa.Connection, kind: v1.MetricAxis.ValueType, runs: Sequence[int], key: str) -> tuple[int, int] | None:
    """The first and the last place of a metric in any of some runs; None if none has it."""
    first, last, _ = _columns(kind)
    question = sa.select(sa.func.min(first), sa.func.max(last)).where(*_ARE_OF)
    low, high = rows.execute(question, {"of": runs, "named": key}).one()
    return None if low is None else (low, high)


def tally(rows: sa.Connection, axis: Axis, runs: Sequence[int], key: str) -> Tally:
    """A metric of some runs in intervals: those of the first run, then those of the second, and so on."""
    result = Tally(len(runs) * axis.count)
    if not (found := _outline(rows, axis.kind, runs, key)):
        return result
    run, number, first, last, points, numbers = (np.array(column, np.int64) for column in found[:6])
    order = np.argsort(runs)
    owner = order[np.searchsorted(np.array(runs)[order], run)] * axis.count
    begin, end = axis.intervals(first), axis.intervals(last)
    whole = (first >= axis.low) & (last <= axis.high) & (begin == end)
    figures = [np.array(column, np.float64)[whole] for column in found[6:]]
    result.add_chunks((owner + begin)[whole], points[whole], numbers[whole], figures)
    cut = ~whole & (last >= axis.low) & (first <= axis.high)
    owners = dict(zip(run[cut].tolist(), owner[cut].tolist(), strict=True))
    wanted = list(zip(run[cut].tolist(), number[cut].tolist(), strict=True))
    for at in range(0, len(wanted), _AT_ONCE):
        for owned, places, values in _read(rows, axis.kind, key, owners, wanted[at : at + _AT_ONCE]):
            within = (places >= axis.low) & (places <= axis.high)
            found_in = owned + axis.intervals(places)
            result.add_points(*((found_in, values) if within.all() else (found_in[within], values[within])))
    return result


def _outline(
    rows: sa.Connection, kind: v1.MetricAxis.ValueType, runs: Sequence[int], key: str
) -> Sequence[tuple[Any, ...]]:
    """Columns: the chunks' runs, numbers, first and last places, how many points and numbers, and their figures."""
    first, last, _ = _columns(kind)
    known = (chunks.c.run, chunks.c.number, first, last, chunks.c.points, chunks.c.numbers)
    figures = (chunks.c.least, chunks.c.greatest, chunks.c.total)
    found = rows.execute(sa.select(*known, *figures).where(*_ARE_OF), {"of": runs, "named": key}).all()
    return list(zip(*found, strict=True))


def _read(
    rows: sa.Connection,
    kind: v1.MetricAxis.ValueType,
    key: str,
    owners: dict[int, int],
    wanted: Sequence[tuple[int, int]],
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """The points of some chunks, given by run and number: what `owners` has for their runs, their places and values."""
    _, _, places = _columns(kind)
    question = sa.select(chunks.c.run, places, chunks.c["values"]).where(*_ARE_OF, _ARE_NUMBERED)
    for numbers, runs in alike(wanted):
        found = rows.execute(question, {"of": runs, "named": key, "numbered": numbers}).all()
        sizes = [len(row[1]) // 8 for row in found]
        owned = np.repeat(np.array([owners[row[0]] for row in found], np.int64), sizes)
        columns = (b"".join(row[at] for row in found) for at in (1, 2))
        yield owned, np.frombuffer(next(columns), "<i8"), np.frombuffer(next(columns), "<f8")


def _columns(kind: v1.MetricAxis.ValueType) -> tuple[sa.Column[Any], sa.Column[Any], sa.Column[Any]]:
    return _TIMES if kind == v1.METRIC_AXIS_TIME else _STEPS
