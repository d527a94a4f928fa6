"""Where rows are put: SQLite and PostgreSQL, each with one worker, so that what tests only read is laid once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

from tests.servers.postgres import PostgresServer

BOTH = [pytest.param(kind, marks=pytest.mark.xdist_group(f"rows-{kind}")) for kind in ("sqlite", "postgresql")]
"""The parameters of a fixture that is given on both."""


@contextmanager
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    """A new directory or a new database, as the parameter of the fixture that asks says."""
    if request.param == "sqlite":
        with TemporaryDirectory() as folder:
            yield folder
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url
