"""The latest points of series, kept in rows with the columns `step`, `timestamp` and `value`, where NULL is NaN."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from rollforward import v1
from services.series.columns import Columns, Point, columns, columns_of, latest_of

Key = tuple[Any, ...]


class Latest:
    """The latest points that a batch of events has, by the primary key of their rows."""

    def __init__(self) -> None:
        self._series: dict[Key, list[Columns]] = defaultdict(list)

    def add(self, key: Key, series: v1.Series) -> None:
        """Add the points of a series. Raises `Rejected` INVALID_SERIES."""
        self._series[key].append(columns(series))

    def write(self, connection: sa.Connection, table: sa.Table) -> None:
        """Write the points that are later than those in the table."""
        if self._series:
            names = table.primary_key.columns.keys()
            points = zip(self._series, self._latest(), strict=True)
            new = [dict(zip(names, key, strict=True)) | _row(point) for key, point in points]
            connection.execute(_put_later(table, connection.dialect.name), new)

    def _latest(self) -> Sequence[Point]:
        joined = (b"".join(column) for column in zip(*itertools.chain(*self._series.values()), strict=True))
        sizes = [sum(len(steps) for steps, _, _ in columns) // 8 for columns in self._series.values()]
        starts = [0, *itertools.accumulate(sizes[:-1])]
        return latest_of(columns_of(*joined), starts)


def _row(point: Point) -> dict[str, Any]:
    step, timestamp, value = point
    return {"step": step, "timestamp": timestamp, "value": cell(value)}


def cell(value: float) -> float | None:
    """Return a value as rows hold it: SQLite has no NaN."""
    return None if math.isnan(value) else value


def number(value: float | None) -> float:
    """Return a value as it was before it was stored."""
    return math.nan if value is None else value


@lru_cache
def _put_later(table: sa.Table, dialect: str) -> sa.Executable:
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    stored, new = table.c, insert.excluded
    same = sa.and_(new.step == stored.step, new.timestamp == stored.timestamp)
    later = sa.or_(
        new.step > stored.step,
        sa.and_(new.step == stored.step, new.timestamp > stored.timestamp),
        sa.and_(same, sa.or_(new.value > stored.value, sa.and_(stored.value.is_(None), new.value.is_not(None)))),
    )
    changed: dict[str, Any] = {name: new[name] for name in ("step", "timestamp", "value")}
    return insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=changed, where=later)
