"""Dumps of rows as bytes: the file of SQLite, or PostgreSQL's binary form of each table."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from eventstore.projections.statements import copy_of, driver_of

BLOCK = 1024 * 1024

FROM, TO = (f"{direction} (FORMAT BINARY)" for direction in ("FROM STDIN", "TO STDOUT"))

Part = Iterator[bytes]
"""The bytes of a file or a table, in pieces."""


def dump(connection: sa.Connection, tables: Sequence[sa.Table]) -> Iterator[Part]:
    """Yield all that the transaction sees, in parts: SQLite's file, or PostgreSQL's tables in order.

    Each part must be read to its end before the next. SQLite's file is copied beside itself first, as long as it takes
    to read: nobody who writes waits for it, or for who reads the parts.

    Raises:
        sa.exc.DBAPIError: The database cannot be read, or the copy not written.
    """
    if connection.dialect.name == "sqlite":
        yield _file(connection)
    else:
        yield from (_copied(connection, table) for table in tables)


def load(connection: sa.Connection, tables: Sequence[sa.Table], parts: Iterator[Part]) -> None:
    """Load what `dump` yielded into empty tables of PostgreSQL.

    Raises:
        sa.exc.DBAPIError: The database does not take them.
    """
    for table, part in zip(tables, parts, strict=True):
        # To keep an index while a table is filled takes longer than to make it afterwards.
        for index in table.indexes:
            index.drop(connection)
        with driver_of(connection) as driver, driver.cursor() as cursor, cursor.copy(copy_of(table, FROM)) as into:
            for block in part:
                into.write(block)
        for index in table.indexes:
            index.create(connection)
    connection.execute(sa.text(f"ANALYZE {', '.join(_name(connection, table) for table in tables)}"))


def blocks(part: Iterable[bytes]) -> Part:
    """Yield the same bytes in blocks of about `BLOCK` bytes."""
    block = bytearray()
    for chunk in part:
        block += chunk
        if len(block) >= BLOCK:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


def _file(connection: sa.Connection) -> Part:
    descriptor, name = tempfile.mkstemp(dir=Path(connection.engine.url.database or "").parent, prefix="snapshot-")
    with os.fdopen(descriptor, "rb") as file:
        try:
            with driver_of(connection) as driver, closing(sqlite3.connect(name)) as copy:
                for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                    copy.execute(f"PRAGMA {pragma}")
                # It has its file open now; without a name not even a crash leaves it behind.
                Path(name).unlink()
                driver.backup(copy)
        finally:
            Path(name).unlink(missing_ok=True)
        while block := file.read(BLOCK):
            yield block


def _copied(connection: sa.Connection, table: sa.Table) -> Part:
    with driver_of(connection) as driver, driver.cursor() as cursor, cursor.copy(copy_of(table, TO)) as out:
        yield from out


def _name(connection: sa.Connection, table: sa.Table) -> str:
    return connection.dialect.identifier_preparer.format_table(table)
