"""Bulk inserts on the driver: SQLAlchemy would take most of the time for so many small rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

COPY_ROWS = 50
"""From how many rows on PostgreSQL takes them by COPY: fewer are sent sooner as statements."""


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert new rows, with values in the order of the table's columns.

    Raises:
        sa.exc.DBAPIError: The database refuses one; none of them is inserted then.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql" and len(rows) >= COPY_ROWS:
        _copy_rows(connection, table, rows)
    else:
        connection.exec_driver_sql(_insert(table, connection.dialect.name), list(rows))


def _copy_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[Any, ...]]) -> None:
    with driver_of(connection) as driver, driver.cursor() as cursor, cursor.copy(copy_of(table, "FROM STDIN")) as copy:
        for row in rows:
            copy.write_row(row)


@contextmanager
def driver_of(connection: sa.Connection) -> Iterator[Any]:
    """Yield the driver's own connection, for what SQLAlchemy has no words for; its errors become SQLAlchemy's."""
    error_of_driver: Any = connection.dialect.loaded_dbapi.Error
    try:
        yield connection.connection.driver_connection
    except error_of_driver as error:
        raise sa.exc.DBAPIError.instance("a copy of rows", None, error, error_of_driver) from error


# Made once: to make a statement takes longer than to run it.
@lru_cache(maxsize=256)
def _insert(table: sa.Table, dialect: str) -> str:
    if dialect == "postgresql":
        return str(sa.insert(table).compile(dialect=postgresql.dialect(paramstyle="format")))  # type: ignore[no-untyped-call]
    return str(sa.insert(table).compile(dialect=sqlite.dialect(paramstyle="qmark")))


@lru_cache(maxsize=256)
def copy_of(table: sa.Table, direction: str) -> str:
    """Return PostgreSQL's statement that copies a table's rows, "FROM STDIN" or "TO STDOUT", by the table's columns."""
    quoted = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    columns = ", ".join(quoted.quote(column.name) for column in table.columns)
    return f"COPY {quoted.format_table(table)} ({columns}) {direction}"
