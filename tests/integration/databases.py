"""Databases for rows: SQLite and PostgreSQL, each on one worker, so that read-only rows are written once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

from tests.servers.postgres import PostgresServer

BOTH = [pytest.param(kind, marks=pytest.mark.xdist_group(f"rows-{kind}")) for kind in ("sqlite", "postgresql")]
"""The parameters of a fixture that exists on both databases."""


@contextmanager
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the location of a new directory or database, depending on the fixture's parameter."""
    if request.param == "sqlite":
        with TemporaryDirectory() as folder:
            yield folder
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url
