"""One generation of a projection's rows, in one SQLite file or one PostgreSQL schema."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from eventstore.epochs import FIRST_EPOCH
from eventstore.projections.damage import RowsDamaged
from eventstore.projections.statements import fetch_all
from eventstore.projections.tables import (
    SELECT_CHECKPOINT,
    SELECT_EPOCH,
    Checkpoint,
    checkpoint,
    epoch_tables,
    events,
    kernel_tables,
)


class Generation:
    """The rows of one generation of a projection.

    `readers` counts the questions being answered from it.
    """

    def __init__(
        self, engine: sa.Engine, label: str, number: int, tables: sa.MetaData, *, with_indexes: bool = True
    ) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**_WRITING[engine.dialect.name])
        self._on_postgresql = engine.dialect.name == "postgresql"
        self.label = label
        self.number = number
        self.readers = 0
        self._tables = tables
        self._kept: sa.Connection | None = None
        with self.writing(durably=True) as connection:
            if self._on_postgresql:
                # Two programs that make the same table at once would both fail.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING_TABLES)))
                connection.execute(sa.schema.CreateSchema(label, if_not_exists=True))
            epoch_tables.create_all(connection)
            if with_indexes:
                kernel_tables.create_all(connection)
                tables.create_all(connection)
            else:
                _create_bare(connection, self._all_tables())
            if connection.scalar(sa.select(checkpoint.c.id)) is None:
                first = {"id": 1, "position": 0, "event_id": "", "time": 0, "live": False}
                connection.execute(sa.insert(checkpoint).values(first))
                if self._on_postgresql:
                    _leave_uncompressed(connection, tables)
        self._identity = self._file_identity()

    @property
    def answer_at_once(self) -> bool:
        """Whether a small question may be asked on the event loop: in SQLite no reader ever waits for the writer.

        A thread for it would take several times as long as the answer.
        """
        return not self._on_postgresql

    @contextmanager
    def at_once(self) -> Iterator[sa.Connection]:
        """Begin a transaction as `transaction`, on a kept connection: for one thread only."""
        self._kept = self._kept or self._engine.connect()
        with self._kept.begin():
            yield self._kept

    def look_up(self, statement: sa.Select[Any], parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Return the only row of a tiny query, without a transaction; for the thread of `at_once`."""
        self._kept = self._kept or self._engine.connect()
        (row,) = fetch_all(self._kept, statement, **parameters)
        return row

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a connection for reading, in one transaction: what it reads is of one moment."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, *, durably: bool = False) -> Iterator[sa.Connection]:
        """Open a connection for writing, in one transaction: what it writes is written whole.

        It sees what others have committed since it began, so the first thing to do is to lock the checkpoint.
        If it is not `durably` written, a crash of PostgreSQL may lose it: it is in the log.
        """
        with self._writer.begin() as connection:
            if durably and self._on_postgresql:
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            yield connection

    def check_file(self) -> None:
        """Raise `RowsDamaged` when the SQLite file was deleted or replaced since it was opened."""
        if self._file_identity() != self._identity:
            raise RowsDamaged(f"{self._engine.url.database} was deleted or replaced")

    def _file_identity(self) -> tuple[int, int] | None:
        """Return device and inode of the SQLite file; None when there is none."""
        try:
            file = None if self._on_postgresql else Path(self._engine.url.database or "").stat()
        except FileNotFoundError:
            return None
        return (file.st_dev, file.st_ino) if file and stat.S_ISREG(file.st_mode) else None

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint of the rows."""
        with self.transaction() as connection:
            row = connection.execute(SELECT_CHECKPOINT).one()
            began = connection.scalar(SELECT_EPOCH)
        return Checkpoint(row.position, row.event_id, row.live, began or FIRST_EPOCH)

    def create_indexes(self) -> None:
        """Create the indexes that were left out while the rows were filled."""
        with self.writing() as connection:
            for table in self._all_tables():
                for index in sorted(table.indexes, key=lambda index: str(index.name)):
                    index.create(connection, checkfirst=True)
            if self._on_postgresql:
                connection.exec_driver_sql("ANALYZE " + ", ".join(table.name for table in self._all_tables()))

    def _all_tables(self) -> list[sa.Table]:
        return [*kernel_tables.sorted_tables, *self._tables.sorted_tables]

    def set_live(self) -> None:
        """Make this the generation that is read."""
        with self.writing(durably=True) as connection:
            connection.execute(sa.update(checkpoint).values(live=True))

    def digest(self) -> str:
        """Return the sha256 over all rows, table by table in the order of their keys."""
        total = hashlib.sha256()
        with self.transaction() as connection:
            for table in [events, *self._tables.sorted_tables]:
                total.update(table.name.encode())
                statement = sa.select(table).order_by(*table.primary_key.columns).execution_options(yield_per=1000)
                for row in connection.execute(statement):
                    total.update(repr(tuple(row)).encode())
        return total.hexdigest()

    def close(self) -> None:
        """Close all connections."""
        if self._kept:
            self._kept.close()
            self._kept = None
        self._engine.dispose()


_MAKING_TABLES = 0x7266


def _create_bare(connection: sa.Connection, tables: Iterable[sa.Table]) -> None:
    """Create tables with no more indexes than `apply` needs."""
    for table in tables:
        connection.execute(CreateTable(table))
        for index in table.indexes:
            if index.info.get("used_by_apply"):
                connection.execute(CreateIndex(index))


def _leave_uncompressed(connection: sa.Connection, tables: sa.MetaData) -> None:
    """Turn compression off for packed columns: PostgreSQL takes 20 times as long to compress them as to write them."""
    for column in (column for table in tables.sorted_tables for column in table.columns):
        if isinstance(column.type, sa.LargeBinary):
            name = connection.dialect.identifier_preparer.quote(column.name)
            connection.execute(sa.text(f"ALTER TABLE {column.table.name} ALTER {name} SET STORAGE EXTERNAL"))


_WRITING: dict[str, dict[str, Any]] = {
    # A transaction that reads first could not go on to write once another one has written.
    "sqlite": {"rf_begin": "BEGIN IMMEDIATE"},
    # A writer waits for the one before it and continues from there; with REPEATABLE READ it would fail.
    "postgresql": {"isolation_level": "READ COMMITTED"},
}
