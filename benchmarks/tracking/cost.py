"""Measure the cost of metric points as their number grows: time and bytes a point, and the time to read.

    python -m benchmarks.tracking.cost --up-to 10000000

One system, given points until it holds so many, a run for every million. Each line is taken when it has come to
the next power of ten.
"""

from __future__ import annotations

import argparse
import os
import statistics
import struct
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import rollforward as rf
from benchmarks.harness import machine
from benchmarks.systems import ours
from benchmarks.systems.processes import memory_bytes
from rollforward import v1
from tests.servers.postgres import running_postgres

A_CALL = 10_000
A_RUN = 1_000_000
READ = 100_000
_CLIENTS = 2
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """A power of ten."""

    points: int
    rate: float
    log_bytes: float
    row_bytes: float
    memory: float
    read: float
    chart: float


def measure(up_to: int, database: str = "") -> Iterator[Line]:
    """Yield a line for each power of ten, from ten thousand."""
    with tempfile.TemporaryDirectory() as folder, ours.running(Path(folder), database) as endpoint:
        client = rf.Client(endpoint.address, actor="bench", timeout=120.0)
        experiment = client.experiments.create("cost")
        done, goal, runs = 0, A_CALL, list[str]()
        while goal <= up_to:
            begun = time.perf_counter()
            while done < goal:
                share = min(goal - done, A_RUN)
                if done % A_RUN == 0:
                    runs.append(_start(client, experiment))
                _log(client, runs[-1], done % A_RUN, share)
                done += share
            _applied(client)
            took = time.perf_counter() - begun
            added = goal - goal // 10 if goal > A_CALL else goal
            yield Line(
                goal,
                added / took,
                _size(Path(folder) / "nats") / goal,
                (_database_size(database) if database else _size(Path(folder) / "rows")) / goal,
                memory_bytes(endpoint.pids) / 2**20,
                _median(lambda run=runs[0]: _read(client, run)),  # type: ignore[misc]
                _median(lambda run=runs[0]: _chart(client, run)),  # type: ignore[misc]
            )
            goal *= 10
        client.close()


def _start(client: rf.Client, experiment: str) -> str:
    run_id = rf.new_request_id()
    client.connection.call(
        client.connection.tracking.StartRun, v1.StartRunRequest(run_id=run_id, experiment_id=experiment)
    )
    return run_id


def _log(client: rf.Client, run_id: str, first: int, count: int) -> None:
    def call(step: int) -> None:
        some = min(A_CALL, first + count - step)
        steps = array("q", range(step, step + some))
        values = struct.pack(f"<{some}d", *(1 / (number + 1) for number in steps))
        series = v1.Series(key="loss", steps=steps.tobytes(), timestamps=steps.tobytes(), values=values)
        batch = v1.LogBatchRequest(run_id=run_id, series=[series], request_id=rf.new_request_id())
        client.connection.call(client.connection.tracking.LogBatch, batch)

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(call, range(first, first + count, A_CALL)))


def _applied(client: rf.Client) -> None:
    """Wait until the rows have all logged points."""
    client.experiments.get("cost")


def _read(client: rf.Client, run_id: str) -> None:
    client.metrics.history(run_id, "loss", from_step=0, to_step=READ - 1)


def _chart(client: rf.Client, run_id: str) -> None:
    request = v1.GetMetricIntervalsRequest(run_ids=[run_id], keys=["loss"])
    for _ in client.connection.stream(client.connection.tracking.GetMetricIntervals, request):
        pass


def _median(read: Callable[[], None]) -> float:
    durations = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        read()
        durations.append(time.perf_counter() - begun)
    return statistics.median(durations) * 1e3


def _size(folder: Path) -> int:
    return sum(Path(root, name).stat().st_size for root, _, names in os.walk(folder) for name in names)


def _database_size(url: str) -> int:
    import psycopg  # noqa: PLC0415 - only where it is asked for

    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql")) as client:
        row = client.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row  # noqa: S101
        return int(row[0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--up-to", type=int, default=10_000_000, help="so many points; default 10,000,000")
    parser.add_argument("--on", choices=("sqlite", "postgresql"), default="sqlite", help="where rows are")
    asked = parser.parse_args()
    console = Console()
    console.print(" · ".join(f"{name} {value}" for name, value in machine.describe().items()), highlight=False)
    view = Table("points", "points/s", "log bytes", "row bytes", "memory MiB", f"read {READ:,} ms", "chart ms")
    if asked.on == "sqlite":
        lines = list(measure(asked.up_to))
    else:
        with running_postgres() as server, server.database() as url:
            lines = list(measure(asked.up_to, url))
    for one in lines:
        cells = (one.points, one.rate, one.log_bytes, one.row_bytes, one.memory, one.read, one.chart)
        view.add_row(*(f"{cell:,.0f}" if cell >= 100 else f"{cell:.1f}" for cell in cells))
    console.print(view)


if __name__ == "__main__":
    main()
