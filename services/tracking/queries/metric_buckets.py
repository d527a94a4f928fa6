"""Metrics in intervals, for charts: the count, minimum, maximum and mean of each interval.

A chunk within one interval is added by its statistics; only chunks that span intervals have their points read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from eventstore import Row, fetch_all
from rollforward import v1
from services.sql.columns import among, in_one
from services.tracking.projection.open_chunks import alike
from services.tracking.projection.tables import chunks

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CHUNKS_PER_QUERY = 256  # chunks whose points one query reads
_CHUNKS_PER_BATCH = 32  # of them, added at once: columns of this length stay in the CPU cache
_WORD = 2**64
_BYTES = 8
_STEPS = (chunks.c.first_step, chunks.c.last_step, chunks.c.steps)
_TIMES = (chunks.c.first_time, chunks.c.last_time, chunks.c.timestamps)


@dataclass(frozen=True, slots=True)
class Axis:
    """Bounds of a chart: from `low` to `high`, cut into `count` equal intervals; `high` belongs to the last."""

    kind: v1.MetricAxis.ValueType
    low: int
    high: int
    count: int

    def intervals(self, places: Ints) -> Ints:
        """Return the interval of each place within bounds; any interval for others."""
        span = self.high - self.low
        if not span:
            return np.zeros(len(places), np.int64)
        # Modulo 2**64 the difference is right, whatever the signs.
        offsets: NDArray[np.uint64] = places.astype(np.int64, copy=False).view(np.uint64) - np.uint64(self.low % _WORD)
        if span * self.count < _WORD:
            offsets *= np.uint64(self.count)
            offsets //= np.uint64(span)
        else:
            edges = [-(-number * span // self.count) for number in range(1, self.count)]
            offsets = np.searchsorted(np.array(edges, np.uint64), offsets, "right").view(np.uint64)
        return np.minimum(offsets, np.uint64(self.count - 1), out=offsets).view(np.int64)


class Buckets:
    """Histogram of a metric: points, numbers, minimum, maximum and sum of each interval."""

    def __init__(self, count: int) -> None:
        self.points = np.zeros(count, np.int64)
        self.numbers = np.zeros(count, np.int64)
        self.minimum = np.full(count, np.inf)
        self.maximum = np.full(count, -np.inf)
        self.total = np.zeros(count)

    def add_points(self, intervals: Ints, values: Floats) -> None:
        """Add points, each in its interval."""
        starts = _changes(intervals)
        known = ~np.isnan(values)
        if len(starts) > len(values) // 4:
            self.add_chunks(intervals, np.ones(len(values), np.int64), known.astype(np.int64), [values] * 3)
            return
        # Points that stand together in one interval count as a chunk.
        points = np.diff(starts, append=len(values))
        numbers, added = points, values
        if not known.all():
            numbers, added = np.add.reduceat(known, starts, dtype=np.int64), np.where(known, values, 0.0)
        with np.errstate(invalid="ignore", over="ignore"):
            total = np.add.reduceat(added, starts)
        figures = [np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts), total]
        self.add_chunks(intervals[starts], points, numbers, figures)

    def add_chunks(self, intervals: Ints, points: Ints, numbers: Ints, figures: Sequence[Floats]) -> None:
        """Add whole chunks, each in its interval; `figures` are their minima, maxima and sums."""
        np.add.at(self.points, intervals, points)
        np.add.at(self.numbers, intervals, numbers)
        known = numbers > 0
        if not known.all():
            intervals, figures = intervals[known], [figure[known] for figure in figures]
        minimum, maximum, total = (figure + 0.0 for figure in figures)
        np.minimum.at(self.minimum, intervals, minimum)
        np.maximum.at(self.maximum, intervals, maximum)
        with np.errstate(invalid="ignore", over="ignore"):
            np.add.at(self.total, intervals, total)


@dataclass(frozen=True, slots=True)
class Outline:
    """Statistics of the chunks of a metric in some runs, as columns with an element for each chunk."""

    run: Ints
    number: Ints
    first: Ints
    last: Ints
    points: Ints
    numbers: Ints
    minimum: Floats
    maximum: Floats
    total: Floats

    def extent(self) -> tuple[int, int] | None:
        """Return the first and the last place; None without chunks."""
        return (int(self.first.min()), int(self.last.max())) if len(self.first) else None


def outline(connection: sa.Connection, kind: v1.MetricAxis.ValueType, runs: Sequence[int], key: str) -> Outline:
    """Return the outline of a metric in these runs."""
    dialect = connection.dialect.name
    rows = fetch_all(connection, _outline(dialect, kind), runs=in_one(dialect, runs), key=key)
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * 9
    run, number, first, last, points, numbers = (np.array(column, np.int64) for column in columns[:6])
    minimum, maximum, total = (np.array(column, np.float64) for column in columns[6:])
    return Outline(run, number, first, last, points, numbers, minimum, maximum, total)


def extent(
    connection: sa.Connection, kind: v1.MetricAxis.ValueType, runs: Sequence[int], key: str
) -> tuple[int, int] | None:
    """Return the first and the last place of a metric in any of these runs; None if none has it."""
    dialect = connection.dialect.name
    ((low, high),) = fetch_all(connection, _extent(dialect, kind), runs=in_one(dialect, runs), key=key)
    return None if low is None else (low, high)


def buckets_of(connection: sa.Connection, axis: Axis, runs: Sequence[int], key: str, series: Outline) -> Buckets:
    """Return a metric of these runs in buckets: those of the first run, then those of the second, and so on."""
    result = Buckets(len(runs) * axis.count)
    order = np.argsort(runs)
    offset = order[np.searchsorted(runs, series.run, sorter=order)] * axis.count
    begin, end = axis.intervals(series.first), axis.intervals(series.last)
    whole = (begin == end) & (series.first >= axis.low) & (series.last <= axis.high)
    figures = [figure[whole] for figure in (series.minimum, series.maximum, series.total)]
    result.add_chunks((offset + begin)[whole], series.points[whole], series.numbers[whole], figures)
    cut = ~whole & (series.last >= axis.low) & (series.first <= axis.high)
    offsets = dict(zip(series.run[cut].tolist(), offset[cut].tolist(), strict=True))
    wanted = list(zip(series.run[cut].tolist(), series.number[cut].tolist(), strict=True))
    for at in range(0, len(wanted), _CHUNKS_PER_QUERY):
        for batch in _read(connection, axis.kind, key, wanted[at : at + _CHUNKS_PER_QUERY]):
            _add_cut(result, axis, offsets, batch)
    return result


def _add_cut(result: Buckets, axis: Axis, offsets: Mapping[int, int], batch: Sequence[Row]) -> None:
    """Add chunks point by point; `offsets` says where the intervals of a run begin."""
    owners, columns, values = (list(column) for column in zip(*batch, strict=True))
    places = np.frombuffer(b"".join(columns), "<i8")
    intervals = axis.intervals(places)
    intervals += np.repeat([offsets[run] for run in owners], [len(column) // _BYTES for column in columns])
    numbers = np.frombuffer(b"".join(values), "<f8")
    within = (places >= axis.low) & (places <= axis.high)
    result.add_points(*((intervals, numbers) if within.all() else (intervals[within], numbers[within])))


def _read(
    connection: sa.Connection, kind: v1.MetricAxis.ValueType, key: str, wanted: Sequence[tuple[int, int]]
) -> Iterator[Sequence[Row]]:
    """Yield the runs, places and values of chunks, given by run and number."""
    dialect = connection.dialect.name
    for numbers, runs in alike(wanted):
        parameters = {"runs": in_one(dialect, runs), "numbers": in_one(dialect, list(numbers))}
        rows = fetch_all(connection, _cut(dialect, kind), key=key, **parameters)
        yield from (rows[at : at + _CHUNKS_PER_BATCH] for at in range(0, len(rows), _CHUNKS_PER_BATCH))


def _changes(column: Ints) -> Ints:
    """Return where a column changes; its beginning is such a place."""
    return np.concatenate([np.zeros(min(1, len(column)), np.int64), np.flatnonzero(column[1:] != column[:-1]) + 1])


@cache
def _outline(dialect: str, kind: v1.MetricAxis.ValueType) -> sa.Select[Any]:
    first, last, _ = _columns(kind)
    known = (chunks.c.run, chunks.c.number, first, last, chunks.c.points, chunks.c.numbers)
    return sa.select(*known, chunks.c.least, chunks.c.greatest, chunks.c.total).where(_are_of(dialect))


@cache
def _extent(dialect: str, kind: v1.MetricAxis.ValueType) -> sa.Select[Any]:
    first, last, _ = _columns(kind)
    return sa.select(sa.func.min(first), sa.func.max(last)).where(_are_of(dialect))


@cache
def _cut(dialect: str, kind: v1.MetricAxis.ValueType) -> sa.Select[Any]:
    _, _, places = _columns(kind)
    cut = sa.select(chunks.c.run, places, chunks.c["values"])
    return cut.where(_are_of(dialect), among(dialect, chunks.c.number))


def _are_of(dialect: str) -> sa.ColumnElement[bool]:
    return sa.and_(among(dialect, chunks.c.run, named="runs"), chunks.c.key == sa.bindparam("key"))


def _columns(kind: v1.MetricAxis.ValueType) -> tuple[sa.Column[Any], sa.Column[Any], sa.Column[Any]]:
    return _TIMES if kind == v1.METRIC_AXIS_TIME else _STEPS
