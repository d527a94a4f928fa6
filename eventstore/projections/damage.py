"""Damaged rows: how damage shows, and how a damaged SQLite file is put aside.

Rows are computed from the log, so that a file which is damaged is no loss: it is moved out of the way, for whoever
wants to know what happened to it, and computed again.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

CHECKED_BYTES = 32 * 1024 * 1024
"""A file of at most this size is checked whole when it is opened: 0.1 s. A larger one is found damaged when read."""

# Not SQLITE_CANTOPEN: a process without free file descriptors meets it, too.
_SQLITE_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NO_SUCH_TABLE = "no such table"
# Undefined table, invalid schema name, data corrupted, index corrupted.
_POSTGRESQL_DAMAGE = {"42P01", "3F000", "XX001", "XX002"}


class RowsDamaged(Exception):
    """Rows are damaged or gone; they can be computed again."""


def damage_of(error: BaseException) -> str:
    """Return what an error says of damaged or missing rows; empty when it says nothing of the kind."""
    if isinstance(error, RowsDamaged):
        return str(error)
    if isinstance(error, sa.exc.NoResultFound):
        return "the checkpoint is missing"
    if not isinstance(error, sa.exc.DBAPIError):
        return ""
    code, state = getattr(error.orig, "sqlite_errorcode", 0), getattr(error.orig, "sqlstate", "")
    damaged = code & 0xFF in _SQLITE_DAMAGE or state in _POSTGRESQL_DAMAGE or _NO_SUCH_TABLE in str(error.orig)
    return " ".join(str(error.orig).split()) if damaged else ""


def check_file(path: Path) -> None:
    """Look at an existing SQLite file before it is opened.

    Raises:
        RowsDamaged: It is no file, may not be written, is cut, or SQLite finds it damaged.
    """
    if not path.is_file():
        raise RowsDamaged(f"{path} is not a file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise RowsDamaged(f"cannot read and write {path}: permission denied")
    wal, index = (path.with_name(f"{path.name}-{suffix}") for suffix in ("wal", "shm"))
    for companion in (wal, index):
        if companion.exists() and not companion.is_file():
            raise RowsDamaged(f"{companion} is not a file")
    size = path.stat().st_size
    if not (wal.exists() and wal.stat().st_size) and size < (whole := _size_in_header(path)):
        raise RowsDamaged(f"{path} is truncated: {size} of {whole} bytes")
    if size <= CHECKED_BYTES and (result := _quick_check(path)) != "ok":
        raise RowsDamaged(f"{path}: {result}")


def are_files(path: Path) -> bool:
    """Return whether a SQLite file and its companions are files, not directories."""
    parts = [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm")]
    return all(part.is_file() for part in parts if part.exists())


def _size_in_header(path: Path) -> int:
    """Return the size that a SQLite file has by its header, 1 when that is not known.

    Source: https://www.sqlite.org/fileformat2.html, section 1.3.
    """
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or header[24:28] != header[92:96]:
        return 1
    page_bytes = int.from_bytes(header[16:18], "big")
    return (65536 if page_bytes == 1 else page_bytes) * int.from_bytes(header[28:32], "big")


def _quick_check(path: Path) -> str:
    try:
        with closing(sqlite3.connect(path)) as connection:
            return str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_DAMAGE:
            return str(error)
        return "ok"  # it is busy: whoever opens it waits


def put_aside(path: Path) -> Path:
    """Rename a SQLite file and what belongs to it; return its new name."""
    names = (f"{path.name}.damaged{number}" for number in itertools.chain([""], itertools.count(2)))
    target = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(f"{path.name}{suffix}")
        if part.exists():
            part.rename(target.with_name(f"{target.name}{suffix}"))
    return target
