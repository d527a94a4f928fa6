"""Measure how long a service takes to start on a long log: with its rows, from a snapshot, and from the log alone.

    python -m benchmarks.starting --of points --events 1000000
    python -m benchmarks.starting --of moves

A start lasts from the command until the line that says where the service listens. The log is written first.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rollforward as rf
from benchmarks.rebuild import fill_moves, fill_points
from benchmarks.systems.ours import READY
from benchmarks.systems.processes import memory_bytes, program
from eventstore.jetstream import JetStreamStore, connect
from services import registry, tracking
from services.nats.server import EmbeddedNats
from tests.servers.ports import free_port

TOGETHER = 500


async def _write(folder: Path, options: argparse.Namespace) -> int:
    # Nothing here is worth a flush each.
    async with EmbeddedNats(folder, sync_always=False) as nats:
        client = await connect(nats.address.url, nats.address.user, nats.address.password)
        log, types = ("tracking", tracking.EVENTS) if options.of == "points" else ("registry", registry.EVENTS)
        store = JetStreamStore(client, log, types)
        await store.open()
        await (fill_points(store, options) if options.of == "points" else fill_moves(store, options, TOGETHER))
        head = await store.head()
        await client.close()
        return head


@contextmanager
def _started(command: list[str]) -> Iterator[tuple[float, float]]:
    """Yield how many seconds a service took to start, and the MB that it takes then, NATS included."""
    begun = time.perf_counter()
    with program(command, {"ROLLFORWARD_LOG": "error", "ROLLFORWARD_SNAPSHOT_INTERVAL": "0"}, READY) as (_, pid):
        yield time.perf_counter() - begun, memory_bytes([pid]) / 1e6


def _measure(data: Path, options: argparse.Namespace) -> None:
    begun = time.perf_counter()
    head = asyncio.run(_write(data / "nats", options))
    print(f"a log of {head:,} events, written in {time.perf_counter() - begun:.0f} s", flush=True)
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "services", "up", "--data", str(data), "--grpc", address]
    with _started(command) as (seconds, memory):
        print(f"from the log alone: {seconds:.1f} s, {memory:.0f} MB", flush=True)
        with rf.Client(address, timeout=600) as connection:
            for projection in connection.system.status().projections:
                list(connection.system.snapshot(projection.name))
    for what, forget in (("with its rows", False), ("from snapshots", True)):
        times = []
        for _ in range(options.rounds):
            if forget:
                shutil.rmtree(data / "rows")
            with _started(command) as (seconds, memory):
                times.append(seconds)
        print(f"{what}: {statistics.median(times):.2f} s (median of {options.rounds}), {memory:.0f} MB", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=("points", "moves"), default="points")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--points-each", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1_000, help="runs that log in turn")
    parser.add_argument("--metrics", type=int, default=10, help="metrics of each run, in turn")
    parser.add_argument("--models", type=int, default=10_000, help="models whose aliases move in turn")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder) / "data", options)


if __name__ == "__main__":
    main()
