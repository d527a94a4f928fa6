"""How to run every system, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.harness.contract import Endpoint
from benchmarks.systems import bare, limit, mlflow, ours, rest, trackio
from benchmarks.systems.names import ALL
from tests.servers.postgres import running_postgres

Run = Callable[[Path | None], AbstractContextManager[Endpoint]]
"""Runs a system, over a directory with data if it is given one."""


@contextmanager
def _on_postgres(
    run: Callable[[Path | None, str], AbstractContextManager[Endpoint]], data: Path | None
) -> Iterator[Endpoint]:
    with running_postgres() as server, server.database() as url, run(data, url) as endpoint:
        yield replace(endpoint, pids=(*endpoint.pids, server.pid) if server.pid else endpoint.pids)


_RUNS: tuple[Run, ...] = (
    limit.running,
    bare.running,
    ours.running,
    partial(_on_postgres, ours.running),
    rest.running,
    mlflow.running,
    partial(_on_postgres, mlflow.running),
    trackio.running,
)
SYSTEMS: dict[str, Run] = dict(zip(ALL, _RUNS, strict=True))
