"""Fixed statements, run on the driver: what SQLAlchemy does around them takes longer than they do.

What runs often goes through here; everything else is plain SQLAlchemy Core. Each statement is compiled once, and known
by its identity: it should be made once, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Query = sa.Select[Any] | sa.CompoundSelect[Any]
Row = tuple[Any, ...]

CACHED_STATEMENTS = 256
COPY_ROWS = 50
"""From how many rows on PostgreSQL takes them by COPY: fewer are sent sooner as statements."""


def fetch_all(connection: sa.Connection, query: Query, **parameters: Any) -> list[Row]:
    """Return all rows of a query, with values as the driver has them: true is a number in SQLite.

    Args:
        connection: Where it is run.
        query: A query that was made once.
        parameters: As the driver takes them.

    Raises:
        sqlalchemy.exc.DBAPIError: As from SQLAlchemy.
    """
    with driver_of(connection) as driver:
        return _compiled(query, connection.dialect).send(driver, parameters)()


@contextmanager
def fetch_each(connection: sa.Connection, queries: Sequence[Query], **parameters: Any) -> Iterator[Iterator[list[Row]]]:
    """Return the rows of several queries, in turn; see `fetch_all`.

    While the rows of one are worked on, PostgreSQL runs the next.
    """
    compiled = [_compiled(query, connection.dialect) for query in queries]
    with driver_of(connection) as driver:
        if connection.dialect.name == "postgresql":
            with driver.pipeline():
                yield _one_ahead(driver, compiled, parameters)
        else:
            yield (query.send(driver, parameters)() for query in compiled)


def compile_positional(statement: sa.Executable, dialect: str, order: Iterable[str]) -> str:
    """Return the text of a statement for `execute_many`.

    Args:
        statement: The statement.
        dialect: ``sqlite`` or ``postgresql``.
        order: The names of its parameters, in the order in which rows have them.

    Raises:
        ValueError: The statement has its parameters in another order.
    """
    engine = postgresql.psycopg.dialect(paramstyle="format") if dialect == "postgresql" else sqlite.dialect()  # type: ignore[no-untyped-call]
    compiled = cast("Any", statement).compile(dialect=engine)
    if compiled.positiontup != list(order):
        raise ValueError(f"parameters are in the order {compiled.positiontup}")
    return str(compiled)


def execute_many(connection: sa.Connection, text: str, rows: Sequence[Row]) -> None:
    """Run a statement of `compile_positional` for each row.

    Raises:
        sqlalchemy.exc.DBAPIError: The database refuses one; the transaction is void then.
    """
    if rows:
        connection.exec_driver_sql(text, list(rows))


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert new rows, with values in the order of the table's columns.

    Raises:
        sqlalchemy.exc.DBAPIError: The database refuses one; none of them is inserted then.
    """
    if connection.dialect.name == "postgresql" and len(rows) >= COPY_ROWS:
        with (
            driver_of(connection) as driver,
            driver.cursor() as cursor,
            cursor.copy(copy_of(table, "FROM STDIN")) as copy,
        ):
            for row in rows:
                copy.write_row(row)
    else:
        execute_many(connection, _insert(table, connection.dialect.name), rows)


@lru_cache(maxsize=CACHED_STATEMENTS)
def copy_of(table: sa.Table, direction: str) -> str:
    """Return PostgreSQL's statement that copies a table's rows, "FROM STDIN" or "TO STDOUT", by the table's columns."""
    quoted = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    columns = ", ".join(quoted.quote(column.name) for column in table.columns)
    return f"COPY {quoted.format_table(table)} ({columns}) {direction}"


@contextmanager
def driver_of(connection: sa.Connection) -> Iterator[Any]:
    """Open the driver's own connection; its errors become SQLAlchemy's."""
    kind = connection.dialect.loaded_dbapi.Error
    try:
        yield connection.connection.driver_connection
    except kind as error:
        wrapped = sa.exc.DBAPIError.instance("on the driver", None, error, kind, dialect=connection.dialect)
        raise cast("sa.exc.DBAPIError", wrapped) from error


@lru_cache(maxsize=CACHED_STATEMENTS)
def _insert(table: sa.Table, dialect: str) -> str:
    return compile_positional(sa.insert(table), dialect, table.columns.keys())


class _Compiled:
    """A query as text for a driver."""

    def __init__(self, compiled: sa.Compiled) -> None:
        self._text = str(compiled)
        self._fixed = compiled.params
        self._names: Sequence[str] | None = getattr(compiled, "positiontup", None)

    def send(self, driver: Any, parameters: Mapping[str, Any]) -> Callable[[], list[Row]]:
        """Send the query, and return what reads its rows."""
        values = {**self._fixed, **parameters}
        if self._names is not None:
            cursor = driver.execute(self._text, [values[name] for name in self._names])
        else:
            # In PostgreSQL's binary form a number need not be read digit by digit.
            cursor = driver.cursor(binary=True).execute(self._text, values)
        read: Callable[[], list[Row]] = cursor.fetchall
        return read


@lru_cache(maxsize=CACHED_STATEMENTS)
def _compiled(query: Query, dialect: sa.Dialect) -> _Compiled:
    return _Compiled(query.compile(dialect=dialect))


def _one_ahead(driver: Any, queries: Iterable[_Compiled], parameters: Mapping[str, Any]) -> Iterator[list[Row]]:
    """Yield the rows of queries in a pipeline, which only sends them: to read rows is to wait for all that was sent."""
    read = None
    for query in queries:
        rows = read and read()
        read = query.send(driver, parameters)
        if rows is not None:
            yield rows
    if read:
        yield read()
