"""Pending changes of rows, gathered by key over a batch of events, so that each row is written once.

Statements go past most of what SQLAlchemy does for a row: it takes longer than the database.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from eventstore import compile_positional, execute_many

Key = tuple[Any, ...]
Row = dict[str, Any]


def put_all(connection: sa.Connection, table: sa.Table, many: Sequence[tuple[Any, ...]]) -> None:
    """Write whole rows over those with the same primary keys; values are in the order of the table's columns."""
    if many:
        execute_many(connection, _upsert(table, connection.dialect.name), many)


def remove_all(connection: sa.Connection, table: sa.Table, keys: Sequence[Key]) -> None:
    """Remove rows, which may be missing, by their primary keys."""
    if keys:
        execute_many(connection, _delete(table, connection.dialect.name), keys)


class Pending:
    """Rows to put, to change and to remove; a row is known by its table and its primary key, in the key's order."""

    def __init__(self) -> None:
        self._rows: dict[sa.Table, dict[Key, Row | None]] = defaultdict(dict)
        self._changes: dict[sa.Table, dict[Key, Row]] = defaultdict(dict)

    def put(self, table: sa.Table, key: Key, row: Row) -> None:
        """Replace a whole row; `row` has the columns that are not in the key."""
        self._rows[table][key] = row
        self._changes[table].pop(key, None)

    def change(self, table: sa.Table, key: Key, values: Mapping[str, Any]) -> None:
        """Change some columns of a row; a missing row stays missing."""
        row = self._rows[table].get(key, ...)
        if row is ...:
            self._changes[table].setdefault(key, {}).update(values)
        elif row is not None:
            row.update(values)

    def remove(self, table: sa.Table, key: Key) -> None:
        """Remove a row, which may be missing."""
        self._rows[table][key] = None
        self._changes[table].pop(key, None)

    def write(self, connection: sa.Connection) -> None:
        """Write all pending changes."""
        for table, pending in self._rows.items():
            others = table.columns.keys()[len(table.primary_key) :]
            remove_all(connection, table, [key for key, row in pending.items() if row is None])
            put = [(*key, *(row[name] for name in others)) for key, row in pending.items() if row is not None]
            put_all(connection, table, put)
        for table, changes in self._changes.items():
            _write_changes(connection, table, changes)


def _write_changes(connection: sa.Connection, table: sa.Table, changes: Mapping[Key, Row]) -> None:
    alike: dict[tuple[str, ...], list[tuple[Any, ...]]] = defaultdict(list)
    for key, values in changes.items():
        names = tuple(column.name for column in table.columns if column.name in values)
        alike[names].append((*(values[name] for name in names), *key))
    for names, many in alike.items():
        execute_many(connection, _update(table, names, connection.dialect.name), many)


# Made once: to make a statement takes longer than to run it.
@lru_cache(maxsize=256)
def _upsert(table: sa.Table, dialect: str) -> str:
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    index = list(table.primary_key.columns)
    if others := {column.name: insert.excluded[column.name] for column in table.columns if not column.primary_key}:
        return compile_positional(
            insert.on_conflict_do_update(index_elements=index, set_=others), dialect, table.columns.keys()
        )
    return compile_positional(insert.on_conflict_do_nothing(index_elements=index), dialect, table.columns.keys())


@lru_cache(maxsize=256)
def _delete(table: sa.Table, dialect: str) -> str:
    return compile_positional(sa.delete(table).where(*_is_row(table)), dialect, _key(table))


@lru_cache(maxsize=1024)
def _update(table: sa.Table, names: tuple[str, ...], dialect: str) -> str:
    changed = sa.update(table).where(*_is_row(table)).values({name: sa.bindparam(name) for name in names})
    return compile_positional(changed, dialect, [*names, *_key(table)])


def _is_row(table: sa.Table) -> list[sa.ColumnElement[bool]]:
    return [column == sa.bindparam(name) for column, name in zip(table.primary_key, _key(table), strict=True)]


def _key(table: sa.Table) -> list[str]:
    """Return the names of the parameters of the primary key."""
    return [f"key_{column.name}" for column in table.primary_key]
