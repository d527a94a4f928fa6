"""The series that grow, as rows have them, kept in memory so that a new point need not read what is there."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from services.series.columns import Columns, Point
from services.series.latest import number
from services.tracking.projection.tables import CHUNK_POINTS, chunks, metrics

T = TypeVar("T")

SeriesKey = tuple[int, str]
"""A run's number and a metric's name."""

OPEN_POINTS = 2_000_000
"""How many points of open chunks are kept in memory: 48 MB."""

_OVERHEAD = 32  # what a series takes besides its points, in points
_ASKED = 500

_OPEN = (
    sa.select(metrics, chunks.c.steps, chunks.c.timestamps, chunks.c["values"].label("column"))
    .outerjoin(
        chunks,
        sa.and_(
            chunks.c.run == metrics.c.run,
            chunks.c.key == metrics.c.key,
            chunks.c.number >= metrics.c.points - metrics.c.points % CHUNK_POINTS,
        ),
    )
    .where(metrics.c.run.in_(sa.bindparam("of", expanding=True)))
    .where(metrics.c.key.in_(sa.bindparam("named", expanding=True)))
    .order_by(metrics.c.run, metrics.c.key, chunks.c.number)
)


@dataclass(slots=True)
class Open:
    """A series as rows have it: how many points, its summary, and the columns of its last chunk if that is not full."""

    points: int = 0
    latest: Point | None = None
    least: float = float("nan")
    greatest: float = float("nan")
    columns: Columns = (b"", b"", b"")

    @property
    def weight(self) -> int:
        """What it takes in memory, in points."""
        return self.points % CHUNK_POINTS + _OVERHEAD


@dataclass(slots=True)
class OpenSeries:
    """The series that grew last, up to `OPEN_POINTS` points."""

    kept: OrderedDict[SeriesKey, Open] = field(default_factory=OrderedDict)
    weight: int = 0

    def take(self, connection: sa.Connection, keys: Iterable[SeriesKey]) -> dict[SeriesKey, Open]:
        """Return these series, in this order, from memory or rows; they stay cached only once they are put back."""
        open_chunks: dict[SeriesKey, Open] = {}
        missing = []
        for key in keys:
            if series := self.kept.pop(key, None):
                self.weight -= series.weight
            else:
                series = Open()
                missing.append(key)
            open_chunks[key] = series
        for names, runs in alike(missing):
            for at in range(0, len(runs), _ASKED):
                _read(connection, open_chunks, runs[at : at + _ASKED], names)
        return open_chunks

    def give_back(self, grown: Mapping[SeriesKey, Open]) -> None:
        """Cache them, and drop the least recently used."""
        self.kept.update(grown)
        self.weight += sum(series.weight for series in grown.values())
        while self.weight > OPEN_POINTS:
            _, dropped = self.kept.popitem(last=False)
            self.weight -= dropped.weight


def alike(keys: Iterable[tuple[int, T]]) -> Iterable[tuple[frozenset[T], list[int]]]:
    """Group runs that need the same."""
    wanted: dict[int, list[T]] = defaultdict(list)
    for run, item in keys:
        wanted[run].append(item)
    together: dict[frozenset[T], list[int]] = defaultdict(list)
    for run, items in wanted.items():
        together[frozenset(items)].append(run)
    return together.items()


def _read(
    connection: sa.Connection, open_chunks: Mapping[SeriesKey, Open], runs: Sequence[int], names: Iterable[str]
) -> None:
    for row in connection.execute(_OPEN, {"of": runs, "named": sorted(names)}):
        series = open_chunks[row.run, row.key]
        if series.latest is None:
            series.points, series.latest = row.points, (row.step, row.timestamp, number(row.value))
            series.least, series.greatest = number(row.least), number(row.greatest)
        if row.steps is not None:
            steps, timestamps, values = series.columns
            series.columns = (steps + row.steps, timestamps + row.timestamps, values + row.column)
