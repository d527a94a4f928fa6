"""The lower limits: the durable append of an event, and an empty gRPC call.

Run as a program it serves both, an embedded NATS server and a bare gRPC server, over the directory that it is given.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks.harness.contract import Endpoint
from benchmarks.systems.bare_log import BareLog, moved, opened
from benchmarks.systems.points import packed
from benchmarks.systems.processes import program
from rollforward import v1
from services.nats.server import EmbeddedNats


class BareClient:
    """A client of the limits: a move is one append, a resolve is one empty call."""

    def __init__(self, endpoint: Endpoint) -> None:
        address, self._url, self._user, self._password = endpoint.address.split()
        self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._loop = asyncio.new_event_loop()
        self._log: BareLog | None = None
        self._name = uuid.uuid4().hex
        self._folder = tempfile.TemporaryDirectory()
        self._rows = sqlite3.connect(f"{self._folder.name}/rows.db", check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=WAL")
        self._rows.execute("PRAGMA synchronous=NORMAL")
        self._rows.execute("CREATE TABLE chunks (steps BLOB, timestamps BLOB, points BLOB)")

    def prepare(self, model: str, versions: int) -> None:
        """Do nothing."""

    def move(self, model: str, alias: str, version: int) -> None:
        """Append one event."""
        self._append(model, moved(model, alias, version))

    def resolve(self, model: str, alias: str) -> None:
        """Call and be answered."""
        del model, alias
        self._health.Check(health_pb2.HealthCheckRequest())

    def log(self, points: int) -> None:
        """Append one event with so many points, and insert them as one row."""
        series = packed(points)
        self._append("points", v1.MetricsLogged(run_id=self._name, series=[series]))
        with self._rows:
            self._rows.execute(
                "INSERT INTO chunks (steps, timestamps, points) VALUES (?, ?, ?)",
                (series.steps, series.timestamps, series.values),
            )

    def close(self) -> None:
        """Let go of both connections."""
        self._rows.close()
        self._folder.cleanup()
        self._channel.close()
        if self._log is not None:
            self._loop.run_until_complete(self._log.close())
        self._loop.close()

    def _append(self, key: str, event: Any) -> None:
        self._loop.run_until_complete(self._appended(key, event))

    async def _appended(self, key: str, event: Any) -> None:
        self._log = self._log or await opened(self._url, self._user, self._password)
        await self._log.append(f"model/{key}", event)


@contextmanager
def running(data: Path | None = None) -> Iterator[Endpoint]:
    """Run the two servers without data."""
    del data
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.systems.limit", folder]
        with program(command) as (said, pid):
            yield Endpoint("limit", said, pids=(pid,))


async def _serve(folder: Path) -> None:
    async with EmbeddedNats(folder) as nats:
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        address = nats.address
        print(f"127.0.0.1:{port} {address.url} {address.user} {address.password}", flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
