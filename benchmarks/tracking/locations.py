"""The location of a benchmark's rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.postgres import running_postgres


@contextmanager
def location(on: str) -> Iterator[str]:
    """Yield a new directory for `sqlite`, else a new database of its own PostgreSQL server."""
    if on == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield folder
        return
    with running_postgres() as server, server.database() as url:
        yield url
