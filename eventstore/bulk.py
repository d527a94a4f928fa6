"""Insert many rows at once, past SQLAlchemy, which would take most of the time for so many small rows."""

from __future__ import annotations

from collections.abc import Sequence
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
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(_copy(table)) as copy:
            for row in rows:
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError.instance(_copy(table), None, error, connection.dialect.loaded_dbapi.Error) from error


# Made once: to make a statement takes longer than to run it.
@lru_cache(maxsize=256)
def _insert(table: sa.Table, dialect: str) -> str:
    if dialect == "postgresql":
        return str(sa.insert(table).compile(dialect=postgresql.dialect(paramstyle="format")))  # type: ignore[no-untyped-call]
    return str(sa.insert(table).compile(dialect=sqlite.dialect(paramstyle="qmark")))


@lru_cache(maxsize=256)
def _copy(table: sa.Table) -> str:
    quote = postgresql.dialect().identifier_preparer.quote  # type: ignore[no-untyped-call]
    return f"COPY {quote(table.name)} ({', '.join(quote(column.name) for column in table.columns)}) FROM STDIN"
