"""The database of a projection: one SQLite file or one PostgreSQL schema for each generation."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from eventstore.epochs import FIRST_EPOCH, mark_of
from eventstore.event import IndexedEvent, KnownPosition
from eventstore.files import lock_file, take_name, write_durably
from eventstore.projections.damage import are_files, check_file, put_aside
from eventstore.projections.generation import Generation
from eventstore.projections.tables import SELECT_CHECKPOINT, SELECT_EPOCH, SELECT_INDEXED_EVENT, Checkpoint, epoch

SQLITE_BUSY_SECONDS = 30
LOCKED_SECONDS = 0.5
_LOCK_NOT_AVAILABLE = "55P03"


def is_refusal(error: sa.exc.DBAPIError) -> bool:
    """Return whether the database is available and rejects the statement, so that a retry is useless."""
    if isinstance(error.orig, sqlite3.OperationalError):
        return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    limit_exceeded = str(getattr(error.orig, "sqlstate", "")).startswith("54")
    return limit_exceeded or not isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))


class Database:
    """Where generations live: a directory (SQLite) or a database URL (PostgreSQL).

    Args:
        location: A directory, made when it is missing, or ``postgresql://...``.

    Raises:
        ValueError: The URL is of another kind of database.
    """

    def __init__(self, location: str) -> None:
        self._directory: Path | None = None
        if "://" in location:
            self._url = _postgresql(location)
            self._server = sa.create_engine(self._url, poolclass=NullPool)
        else:
            self._directory = Path(location)
            self._directory.mkdir(parents=True, exist_ok=True)

    @property
    def kind(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return "sqlite" if self._directory else "postgresql"

    def lock(self, name: str) -> Callable[[], None] | None:
        """Lock a projection for this process: it alone may create generations, until it calls the result or ends.

        None: another process holds the lock.
        """
        if self._directory:
            self._directory.mkdir(parents=True, exist_ok=True)
            return lock_file(self._directory / f"rf_{_word(name)}.lock")
        connection = self._server.connect().execution_options(isolation_level="AUTOCOMMIT")
        key = int.from_bytes(hashlib.sha256(f"claim {name}".encode()).digest()[:8], "big", signed=True)
        if connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
            return connection.close
        connection.close()
        return None

    def generations(self, name: str) -> list[tuple[str, int]]:
        """Return the (fingerprint, number) of every generation of a projection, oldest first."""
        pattern = re.compile(rf"^rf_{re.escape(_word(name))}_([0-9a-f]{{10}})_(\d+)$")
        matches = [match for entry in self._names() if (match := pattern.match(entry))]
        return sorted(((match[1], int(match[2])) for match in matches), key=lambda generation: generation[1])

    def _names(self) -> list[str]:
        if self._directory:
            return [path.stem for path in self._directory.glob("rf_*.db")]
        with self._server.connect() as connection:
            return list(connection.scalars(sa.text("SELECT nspname FROM pg_namespace")))

    def known(self, name: str) -> list[KnownPosition]:
        """Return how far every live generation of a projection has come, those of other fingerprints too.

        A generation that cannot be read knows nothing. None is changed.

        Raises:
            sa.exc.OperationalError: The database is out of reach.
        """
        positions = []
        for fingerprint_, number in self.generations(name):
            label = _label(name, fingerprint_, number)
            try:
                at = self._peek(label)
            except sa.exc.DBAPIError as error:
                if not is_refusal(error) and not self._is_no_file(label):
                    raise
                continue
            if at and at.live:
                mark, index = mark_of(at.event_id), partial(self._indexed, label)
                positions.append(KnownPosition(f"rows {label}", at.epoch, at.position, mark, index))
        return positions

    def _is_no_file(self, label: str) -> bool:
        return self._directory is not None and not are_files(self._directory / f"{label}.db")

    def _peek(self, label: str) -> Checkpoint | None:
        engine = _sqlite(self._directory / f"{label}.db") if self._directory else self._server
        schema = None if self._directory else label
        with engine.connect().execution_options(schema_translate_map={None: schema}) as connection:
            row = connection.execute(SELECT_CHECKPOINT).first()
            has_epoch = sa.inspect(connection).has_table(epoch.name, schema=schema)
            began = connection.scalar(SELECT_EPOCH) if has_epoch else None
        if self._directory:
            engine.dispose()
        return Checkpoint(row.position, row.event_id, row.live, began or FIRST_EPOCH) if row else None

    def _indexed(self, label: str, position: int) -> IndexedEvent | None:
        engine = _sqlite(self._directory / f"{label}.db") if self._directory else self._server
        schema = None if self._directory else label
        with engine.connect().execution_options(schema_translate_map={None: schema}) as connection:
            row = connection.execute(SELECT_INDEXED_EVENT, {"at": position}).first()
        if self._directory:
            engine.dispose()
        return IndexedEvent(*row) if row else None

    def put_aside(self, label: str, number: int) -> str:
        """Give a generation a name under which it is never opened, and return that name; nothing of it is lost."""
        aside = f"lost_{number}_{label}"
        if self._directory:
            path = self._directory / f"{label}.db"
            engine = _sqlite(path)
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            engine.dispose()
            for suffix in ("", "-wal", "-shm"):
                if (file := path.with_name(f"{label}.db{suffix}")).exists():
                    file.rename(path.with_name(f"{aside}.db{suffix}"))
        else:
            with self._server.begin() as connection:
                connection.exec_driver_sql(f"ALTER SCHEMA {label} RENAME TO {aside}")
        return aside

    def open(self, name: str, mark: str, generation: int, tables: sa.MetaData) -> Generation:
        """Open a generation; create it, empty, if it does not exist.

        Raises:
            RowsDamaged: Its SQLite file cannot be used.
        """
        label = _label(name, mark, generation)
        if self._directory:
            path = self._directory / f"{label}.db"
            if path.exists():
                check_file(path)
            return Generation(_sqlite(path), label, generation, tables)
        return Generation(self._postgresql_engine(label), label, generation, tables)

    def open_unfinished(self, name: str, mark: str, generation: int, tables: sa.MetaData) -> Generation:
        """Create an empty generation to be filled quickly: without most indexes, and in SQLite without a journal.

        It is no generation of the projection before `finish`. A crash leaves nothing that is used again.
        """
        label = _label(name, mark, generation)
        if self._directory:
            file = self._unfinished(label)
            file.unlink(missing_ok=True)
            return Generation(_sqlite(file, _UNFINISHED_PRAGMAS), label, generation, tables, with_indexes=False)
        return Generation(self._postgresql_engine(label), label, generation, tables, with_indexes=False)

    def finish(self, generation: Generation) -> None:
        """Close an unfinished generation and make it one that `open` opens, still without its indexes."""
        generation.close()
        if self._directory:
            file = self._unfinished(generation.label)
            with file.open("rb+") as written:
                os.fsync(written.fileno())
            file.rename(self._directory / f"{generation.label}.db")

    def drop_unfinished(self, name: str) -> None:
        """Remove what a crash left of SQLite files that were being filled; only while none is."""
        for file in self._directory.glob(f"rf_{_word(name)}_*.unfinished") if self._directory else ():
            if re.fullmatch(rf"rf_{re.escape(_word(name))}_[0-9a-f]{{10}}_\d+", file.stem):
                file.unlink()

    def _unfinished(self, label: str) -> Path:
        return (self._directory or Path()) / f"{label}.unfinished"

    def _postgresql_engine(self, label: str) -> sa.Engine:
        options = f"-csearch_path={label} -csynchronous_commit=off"
        url = self._url.update_query_dict({"options": options})
        return sa.create_engine(url, pool_pre_ping=True, isolation_level="REPEATABLE READ")

    def adopt(self, name: str, mark: str, file: Iterable[bytes]) -> int:
        """Create a generation from the bytes of a SQLite file, whole or not at all; only for the holder of the lock.

        Raises:
            OSError: The directory cannot hold it.
        """
        directory = self._directory or Path()
        new = directory / f"rf_{_word(name)}.restoring"
        numbers = itertools.count(max((number for _, number in self.generations(name)), default=0) + 1)
        try:
            write_durably(new, file)
            return next(
                number for number in numbers if self._takes(directory, f"rf_{_word(name)}_{mark}_{number}", new)
            )
        finally:
            new.unlink(missing_ok=True)

    @staticmethod
    def _takes(directory: Path, label: str, file: Path) -> bool:
        # A log of changes that a crash left behind would be taken for one of this file.
        return not any(directory.glob(f"{label}.db*")) and take_name(file, directory / f"{label}.db")

    def drop(self, name: str, mark: str, generation: int) -> None:
        """Drop a generation; queries that read it may fail."""
        label = _label(name, mark, generation)
        if self._directory:
            if (self._directory / f"{label}.db").is_dir():
                put_aside(self._directory / f"{label}.db")
            for suffix in ("db", "db-wal", "db-shm", "unfinished"):
                (self._directory / f"{label}.{suffix}").unlink(missing_ok=True)
            return
        while not self._dropped(label):
            time.sleep(LOCKED_SECONDS)

    def retire_damaged(self, name: str, mark: str, generation: int) -> str:
        """Take a damaged generation out of use; return the file that keeps it, or the schema that was dropped."""
        label = _label(name, mark, generation)
        if self._directory:
            return str(put_aside(self._directory / f"{label}.db"))
        self.drop(name, mark, generation)
        return label

    def _dropped(self, label: str) -> bool:
        # Whoever waits for a lock has all who ask after it wait too: it is tried for a moment, again and again.
        try:
            with self._server.begin() as connection:
                connection.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
                connection.execute(sa.schema.DropSchema(label, cascade=True, if_exists=True))
        except sa.exc.OperationalError as error:
            if getattr(error.orig, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
                return False
            raise
        return True


def _postgresql(location: str) -> sa.URL:
    url = sa.make_url(location)
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise ValueError(f"unsupported database {url.get_backend_name()}: expected a directory or postgresql://")
    return url.set(drivername="postgresql+psycopg")


_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL")
_UNFINISHED_PRAGMAS = ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536")


def _sqlite(path: Path, pragmas: Sequence[str] = _PRAGMAS) -> sa.Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": SQLITE_BUSY_SECONDS, "check_same_thread": False},
    )

    def on_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
        # The driver would begin a transaction only before a write: a read of two tables would not be of one moment.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("rf_begin", "BEGIN"))

    sa.event.listen(engine, "connect", on_connect)
    sa.event.listen(engine, "begin", on_begin)
    return engine


def _label(name: str, mark: str, generation: int) -> str:
    """Return the name of a generation's file or schema."""
    return f"rf_{_word(name)}_{mark}_{generation}"


def _word(name: str) -> str:
    return name.replace("-", "_")
