"""Databases with the services' rows, which can be made unavailable."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from tests.servers.postgres import PostgresServer

_LOCK_SECONDS = 5.0


class Database(Protocol):
    """A database that can be made unavailable for a while."""

    @contextmanager
    def away(self, *, crash: bool) -> Iterator[None]:
        """Take it away; `crash` in the worst way there is."""


class Sqlite:
    """The SQLite files of a process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def away(self, *, crash: bool) -> Iterator[None]:
        """Hold the lock for writing of one file, or of all."""
        files = sorted(self._directory.glob("*.db"))
        with ExitStack() as stack:
            for file in files if crash else files[:1]:
                connection = sqlite3.connect(file, timeout=_LOCK_SECONDS, isolation_level=None)
                stack.enter_context(closing(connection))
                connection.execute("BEGIN IMMEDIATE")
            yield


class Postgres:
    """A PostgreSQL server."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @contextmanager
    def away(self, *, crash: bool) -> Iterator[None]:
        """Stop the server, or crash it."""
        self._server.end(signal.SIGQUIT if crash else signal.SIGINT)
        try:
            yield
        finally:
            self._server.start()
