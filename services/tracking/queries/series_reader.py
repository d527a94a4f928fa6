"""The points of a series in the order of step, time and arrival, so many at a time, in bounded memory.

Chunks stand as their points arrived. Those that cannot hold any of the next points are not read; when chunks are in
order, as they almost always are, each is read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from eventstore import fetch_all
from services.series.columns import Points, columns_of
from services.sql.columns import among, in_one
from services.tracking.projection.tables import CHUNK_POINTS, chunks

Place = tuple[int, int, int]
"""Where a point stands in the order: its step, its time, and how many points of its series came before it."""

Ints = NDArray[np.int64]

_AT_ONCE = 256  # chunks
_BYTES = 8
_ARE_OF = (chunks.c.run == sa.bindparam("run"), chunks.c.key == sa.bindparam("key"))
_OUTLINE = (
    sa.select(
        chunks.c.number,
        chunks.c.points,
        chunks.c.first_step,
        chunks.c.last_step,
        chunks.c.first_time,
        chunks.c.last_time,
    )
    .where(*_ARE_OF)
    .where(chunks.c.last_step >= sa.bindparam("low"), chunks.c.first_step <= sa.bindparam("high"))
)


@dataclass(frozen=True, slots=True)
class Outline:
    """A series as it was at one moment: its chunks, by the least place that a point of theirs may have.

    `lower` and `upper` are three columns each: between these places are all points of a chunk.
    """

    run: int
    key: str
    low: int
    high: int
    points: Ints
    lower: tuple[Ints, Ints, Ints]
    upper: tuple[Ints, Ints, Ints]

    def behind(self, after: Place) -> Ints:
        """Return the chunks that may have points after a place."""
        return np.flatnonzero(_is_behind(self.upper, after))

    def begins_behind(self, at: int, place: Place) -> bool:
        """Return whether all points of a chunk, and of the chunks after it, come after a place."""
        step, time, number = self.lower
        return (int(step[at]), int(time[at]), int(number[at])) > place


def outline(connection: sa.Connection, run: int, key: str, low: int, high: int) -> Outline:
    """Return the outline of a series, of the chunks that may have points with steps from `low` to `high`."""
    rows = fetch_all(connection, _OUTLINE, run=run, key=key, low=low, high=high)
    columns = np.array(rows, np.int64).reshape(-1, 6).T
    number, points, first_step, last_step, first_time, last_time = columns
    order = np.lexsort((number, first_time, first_step))
    number, points = number[order], points[order]
    lower = (first_step[order], first_time[order], number)
    upper = (last_step[order], last_time[order], number + points - 1)
    return Outline(run, key, low, high, points, lower, upper)


@dataclass(slots=True)
class Ordered:
    """Points in order, and the number of each by arrival."""

    points: Points
    numbers: Ints

    def place(self, at: int) -> Place:
        """Return the place of a point."""
        return int(self.points.steps[at]), int(self.points.timestamps[at]), int(self.numbers[at])

    def only(self, chosen: Any) -> Ordered:
        """Return a slice of the points."""
        points = self.points
        some = Points(points.steps[chosen], points.timestamps[chosen], points.values[chosen])
        return Ordered(some, self.numbers[chosen])

    def sorted(self) -> Ordered:
        """Return the points in order."""
        steps, times, numbers = self.points.steps, self.points.timestamps, self.numbers
        before = (steps[:-1], times[:-1], numbers[:-1])
        if _is_behind((steps[1:], times[1:], numbers[1:]), before).all():
            return self
        order = np.argsort(steps)  # several times as quick as to sort by all, and enough unless steps are repeated
        if (np.diff(steps[order]) == 0).any():
            order = np.lexsort((numbers, times, steps))
        return self.only(order)


def next_points(connection: sa.Connection, series: Outline, after: Place | None, count: int) -> Ordered:
    """Return the next `count` points after a place, or all that are left; about twice as many are in memory."""
    collected, last = _NONE, None
    todo = series.behind(after) if after else np.arange(len(series.points))
    while todo.size and not (last and series.begins_behind(int(todo[0]), last)):
        some = _AT_ONCE if last else _enough(series.points[todo], count - len(collected.numbers))
        collected = _joined(collected, _wanted(series, _read(connection, series, todo[:some]), after, last))
        todo = todo[some:]
        if len(collected.numbers) >= (2 * count if last else count):
            collected = collected.sorted().only(slice(count))
            last = collected.place(-1)
    return collected.sorted().only(slice(count))


def _enough(points: Ints, count: int) -> int:
    """Return how many chunks have so many points, within what is read at once."""
    return min(_AT_ONCE, int(np.searchsorted(np.cumsum(points), count)) + 1)


def _wanted(series: Outline, candidates: Ordered, after: Place | None, last: Place | None) -> Ordered:
    points = candidates.points
    chosen = (points.steps >= series.low) & (points.steps <= series.high)
    columns = (points.steps, points.timestamps, candidates.numbers)
    if after:
        chosen &= _is_behind(columns, after)
    if last:
        chosen &= ~_is_behind(columns, last)
    return candidates if chosen.all() else candidates.only(chosen)


def _read(connection: sa.Connection, series: Outline, which: Ints) -> Ordered:
    """Return the points that chunks had when the outline was read: since then they may have grown or been sealed."""
    wanted = [(int(number), int(series.points[at])) for at, number in zip(which, series.lower[2][which], strict=True)]
    numbers = {number for number, _ in wanted}
    asked = in_one(connection.dialect.name, list(numbers | {number - number % CHUNK_POINTS for number in numbers}))
    rows = fetch_all(connection, _chunks(connection.dialect.name), run=series.run, key=series.key, numbers=asked)
    rows_by_number = {row[0]: row for row in rows}
    columns: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    for number, points in wanted:
        row = rows_by_number.get(number) or rows_by_number[number - number % CHUNK_POINTS]
        start = (number - row[0]) * _BYTES
        for column, packed in zip(columns, row[1:], strict=True):
            column.append(packed[start : start + points * _BYTES])
    steps, timestamps, values = (b"".join(column) for column in columns)
    numbered = [np.arange(number, number + points) for number, points in wanted]
    return Ordered(columns_of(steps, timestamps, values), np.concatenate(numbered))


@cache
def _chunks(dialect: str) -> sa.Select[Any]:
    read = sa.select(chunks.c.number, chunks.c.steps, chunks.c.timestamps, chunks.c["values"])
    return read.where(*_ARE_OF, among(dialect, chunks.c.number))


def _joined(left: Ordered, right: Ordered) -> Ordered:
    if not len(left.numbers):
        return right
    points = Points(
        np.concatenate([left.points.steps, right.points.steps]),
        np.concatenate([left.points.timestamps, right.points.timestamps]),
        np.concatenate([left.points.values, right.points.values]),
    )
    return Ordered(points, np.concatenate([left.numbers, right.numbers]))


def _is_behind(columns: tuple[Ints, Ints, Ints], place: tuple[Any, Any, Any]) -> NDArray[np.bool_]:
    (step, time, number), (at_step, at_time, at_number) = columns, place
    same = step == at_step
    result: NDArray[np.bool_] = (step > at_step) | (
        same & ((time > at_time) | ((time == at_time) & (number > at_number)))
    )
    return result


_NONE = Ordered(Points(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)), np.empty(0, np.int64))
