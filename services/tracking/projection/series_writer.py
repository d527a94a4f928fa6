"""Appends to series: how points are cut into chunks depends on their number only, not on how they arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from services.series.columns import Columns, Points, columns_of, is_later, latest_of
from services.series.latest import cell
from services.sql.write_buffer import put_all, remove_all
from services.tracking.projection.open_chunks import Open, OpenSeries, SeriesKey
from services.tracking.projection.tables import CHUNK_POINTS, PIECE_POINTS, chunks, metrics

_BYTES = 8

ChunkKey = tuple[int, str, int]


class _Written:
    """The columns to write, one series after the other, and where series and chunks begin in them."""

    def __init__(self) -> None:
        self.columns: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
        self.series: list[int] = []
        self.chunks: list[int] = []
        self.keys: list[ChunkKey] = []
        self.gone: list[ChunkKey] = []
        self.size = 0

    def add(self, key: SeriesKey, first: int, columns: Columns) -> None:
        """Add the points of a series from the number `first` on, where a chunk begins."""
        count = len(columns[0]) // _BYTES
        self.series.append(self.size)
        for place, column in zip(self.columns, columns, strict=True):
            place.append(column)
        for start in _cuts(first, first + count):
            self.chunks.append(self.size + start - first)
            self.keys.append((*key, start))
        self.size += count


def _cuts(first: int, end: int) -> Sequence[int]:
    """Return where chunks begin between two points: sealed chunks, then parts of the open chunk."""
    whole = end - end % CHUNK_POINTS
    if first >= whole:
        return range(first, end, PIECE_POINTS)
    return [*range(first, whole, CHUNK_POINTS), *range(whole, end, PIECE_POINTS)]


def grow(
    connection: sa.Connection,
    memory: OpenSeries,
    added: Mapping[SeriesKey, Sequence[Columns]],
    experiments: Mapping[int, int],
) -> None:
    """Add points to the ends of series; `experiments` are those of the runs."""
    open_series = memory.take(connection, added)
    written = _Written()
    for key, new in added.items():
        _extend(written, key, open_series[key], new)
    columns = tuple(b"".join(column) for column in written.columns)
    points = columns_of(*columns)
    _summarize(open_series, points, written.series)
    put_all(connection, metrics, [_summary(key, series, experiments[key[0]]) for key, series in open_series.items()])
    remove_all(connection, chunks, written.gone)
    put_all(connection, chunks, _chunks(written, points, columns))
    memory.give_back(open_series)


def _extend(written: _Written, key: SeriesKey, series: Open, new: Sequence[Columns]) -> None:
    """Add points to a series; the part after its last sealed chunk is written again."""
    joined = [b"".join(columns) for columns in zip(series.columns, *new, strict=True)]
    buffered = series.points % CHUNK_POINTS
    begin, total = series.points - buffered, len(joined[0]) // _BYTES
    if total < CHUNK_POINTS:
        stays = buffered - buffered % PIECE_POINTS
        rest = 0
    else:
        stays = 0
        rest = (total - total % CHUNK_POINTS) * _BYTES
        written.gone += [(*key, piece) for piece in range(begin + PIECE_POINTS, series.points, PIECE_POINTS)]
    again = stays * _BYTES
    steps, timestamps, values = joined
    written.add(key, begin + stays, (steps[again:], timestamps[again:], values[again:]))
    series.points = begin + total
    series.columns = (steps[rest:], timestamps[rest:], values[rest:])


def _summarize(open_series: Mapping[SeriesKey, Open], points: Points, starts: Sequence[int]) -> None:
    """Update summaries. Old points among the new ones do no harm."""
    latest = latest_of(points, starts)
    least = (np.fmin.reduceat(points.values, starts) + 0.0).tolist()
    greatest = (np.fmax.reduceat(points.values, starts) + 0.0).tolist()
    for series, last, low, high in zip(open_series.values(), latest, least, greatest, strict=True):
        if series.latest is None or is_later(last, series.latest):
            series.latest = last
        # NaN stands for no number on either side.
        if low < series.least or isnan(series.least):
            series.least = low
        if high > series.greatest or isnan(series.greatest):
            series.greatest = high


def _summary(key: SeriesKey, series: Open, experiment: int) -> tuple[Any, ...]:
    step, timestamp, value = series.latest or (0, 0, 0.0)
    figures = (cell(value), cell(series.least), cell(series.greatest))
    return (*key, experiment, step, timestamp, *figures, series.points)


def _chunks(written: _Written, points: Points, columns: Sequence[bytes]) -> Sequence[tuple[Any, ...]]:
    """Return the rows of all chunks."""
    starts = written.chunks
    ends = [*starts[1:], written.size]
    spans = [slice(start * _BYTES, end * _BYTES) for start, end in zip(starts, ends, strict=True)]
    sizes = [end - start for start, end in zip(starts, ends, strict=True)]
    figures = zip(
        sizes, *_figures(points, starts), *([column[span] for span in spans] for column in columns), strict=True
    )
    return [(*key, *row) for key, row in zip(written.keys, figures, strict=True)]


def _figures(points: Points, starts: Sequence[int]) -> Sequence[Sequence[Any]]:
    """Return the statistics of chunks, in the order of the table's columns between size and points."""
    steps, timestamps, values = points.steps, points.timestamps, points.values
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", over="ignore"):
        total = np.add.reduceat(np.where(known, values, 0.0), starts)
    return (
        np.minimum.reduceat(steps, starts).tolist(),
        np.maximum.reduceat(steps, starts).tolist(),
        np.minimum.reduceat(timestamps, starts).tolist(),
        np.maximum.reduceat(timestamps, starts).tolist(),
        np.add.reduceat(known, starts, dtype=np.int64).tolist(),
        _cells(np.fmin.reduceat(values, starts)),
        _cells(np.fmax.reduceat(values, starts)),
        _cells(total),
    )


def _cells(values: NDArray[np.float64]) -> list[float | None]:
    return [cell(value) for value in (values + 0.0).tolist()]
