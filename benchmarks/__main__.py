"""`make bench`: what the system does in a second, and what part of a physical limit that is.

The limits are measured in the same run on the same machine: an append of one durable event for commands, an empty gRPC
call for questions. All processes share the machine, so the ratios say more than the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rollforward as rf
from eventstore.codec import EventTypes
from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import JetStreamStore, connect
from rollforward import v1
from services.nats_server import EmbeddedNats

ROUNDS = 3
POINTS = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """Calls a second, and what one took at the median and at the 99th percentile, in milliseconds."""

    name: str
    rate: float
    p50: float
    p99: float
    limit: str = ""


def figure(name: str, durations: list[float], limit: str = "") -> Figure:
    """What these durations (in seconds, one call after the other) come to."""
    ordered = sorted(durations)
    p99 = ordered[int(len(ordered) * 0.99)]
    return Figure(name, len(durations) / sum(durations), statistics.median(ordered) * 1e3, p99 * 1e3, limit)


def measure(name: str, call: Callable[[int], object], seconds: float, limit: str = "") -> Figure:
    """The median round of one client that calls again and again."""
    rounds = []
    number = 0
    for _ in range(ROUNDS):
        durations: list[float] = []
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until:
            call(number)
            number += 1
            durations.append(time.perf_counter() - begun)
        rounds.append(figure(name, durations, limit))
    return sorted(rounds, key=lambda one: one.rate)[ROUNDS // 2]


async def append_limit(name: str, seconds: float) -> Figure:
    """One writer that appends one durable event after the other to a log of its own."""
    types = EventTypes([v1.AliasMoved])
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedNats(Path(folder)) as nats:
            client = await connect(nats.address.url, nats.address.user, nats.address.password)
            store = JetStreamStore(client, "bench", types)
            await store.open()
            event = v1.AliasMoved(model="m", alias="a", to_version=1, to_digest="sha256:" + "0" * 64)
            durations: list[float] = []
            until = time.perf_counter() + seconds * ROUNDS
            while (begun := time.perf_counter()) < until:
                key = str(len(durations))
                await store.append([NewEvent("model/m", event, Metadata("bench"), key, key)])
                durations.append(time.perf_counter() - begun)
            await client.close()
    return figure(name, durations)


@contextmanager
def running_system() -> Iterator[str]:
    """The address of a system of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "services", "up", "--data", folder, "--grpc", "127.0.0.1:0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"ROLLFORWARD_LOG": "error"}
        ) as up:
            said = up.stdout.readline() if up.stdout else ""
            found = re.search(r"127\.0\.0\.1:\d+", said)
            if not found:
                raise SystemExit(f"the system did not start: {said!r}")
            try:
                yield found[0]
            finally:
                up.terminate()


def system_figures(address: str, seconds: float) -> Iterator[Figure]:
    """What one client of the system gets, one call after the other."""
    connection = rf.connect(address, actor="bench")
    health: Any = health_pb2_grpc.HealthStub(grpc.insecure_channel(address))
    yield measure("empty gRPC call", lambda _: health.Check(health_pb2.HealthCheckRequest()), seconds)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "weights").write_bytes(b"w")
        for _ in range(2):
            rf.register_model("bench", path=folder)
    yield measure("move an alias", lambda n: rf.move_alias("bench@live", 1 + n % 2), seconds, "append one event")
    yield measure("resolve an alias", lambda _: rf.resolve("bench@live"), seconds, "empty gRPC call")
    past = rf.alias_history("bench@live", limit=None)
    middle = past[len(past) // 2].revision
    name = f"resolve as of {len(past) // 2:,} moves ago"
    yield measure(name, lambda _: rf.resolve("bench@live", at=middle), seconds, "empty gRPC call")
    yield delivery(seconds)
    yield from batches(connection, seconds)


def delivery(seconds: float) -> Figure:
    """From the call of a move to its arrival at a watcher."""
    durations = []
    with rf.watch("bench@live") as watch:
        until = time.perf_counter() + seconds
        version = rf.resolve("bench@live").version
        while (begun := time.perf_counter()) < until:
            version = 3 - version
            rf.move_alias("bench@live", version)
            next(watch)
            durations.append(time.perf_counter() - begun)
    return figure("move, and a watcher has it", durations, "append one event")


def batches(connection: rf.Connection, seconds: float) -> Iterator[Figure]:
    """A batch of one point, and one of a thousand."""
    with rf.start_run("bench") as run:
        for points in (1, POINTS):
            column = bytes(8 * points)
            series = v1.Series(key="loss", steps=column, timestamps=column, values=column)

            def log(_: int, series: v1.Series = series) -> None:
                batch = v1.LogBatchRequest(run_id=run.run_id, series=[series], request_id=rf.new_request_id())
                connection.call(connection.tracking.LogBatch, batch)

            yield measure(f"log {points:,} metric point{'s' * (points > 1)}", log, seconds, "append one event")


def table(figures: list[Figure]) -> Table:
    """The figures, each beside its limit."""
    rates = {one.name: one.rate for one in figures}
    view = Table(title=f"one client; {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    view.add_column("what")
    for heading in ("a second", "p50 ms", "p99 ms", "of its limit"):
        view.add_column(heading, justify="right")
    for one in figures:
        share = f"{one.rate / rates[one.limit]:.0%} of {one.limit}" if one.limit else ""
        view.add_row(one.name, f"{one.rate:,.0f}", f"{one.p50:.2f}", f"{one.p99:.2f}", share)
    return view


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each of the rounds takes")
    seconds = parser.parse_args().seconds
    figures = [asyncio.run(append_limit("append one event", seconds))]
    with running_system() as address:
        figures += track(system_figures(address, seconds), "measuring", total=7, transient=True)
    Console(width=100).print(table(figures))


if __name__ == "__main__":
    main()
