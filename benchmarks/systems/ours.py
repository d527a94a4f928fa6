"""rollforward: how it is started, and its client, which is its SDK."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rollforward as rf
from benchmarks.clients import CallFailed, Endpoint
from benchmarks.systems.processes import DidNotStart, program
from rollforward import v1


@contextmanager
def running(data: Path | None = None, database: str = "") -> Iterator[Endpoint]:
    """All services in one process, with NATS built in; in `data`, or in a directory that is gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "services", "up", "--data", str(data or folder), "--grpc", "127.0.0.1:0"]
        if database:
            command += ["--database", database]
        with program(command, {"ROLLFORWARD_LOG": "error"}) as said:
            if not (found := re.search(r"127\.0\.0\.1:\d+", said)):
                raise DidNotStart(said)
            yield Endpoint("rollforward", found[0])


class SdkClient:
    """A client by way of the SDK."""

    def __init__(self, endpoint: Endpoint, actor: str) -> None:
        self._connection = rf.Connection(endpoint.address, actor=actor)
        self._run = ""

    def prepare(self, model: str, versions: int) -> None:
        """Register versions of one small file."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weights").write_bytes(os.urandom(8))
            digest = rf.upload(folder, connection=self._connection)[0]
        for _ in range(versions):
            rf.register_model(model, digest=digest, connection=self._connection)

    def move(self, model: str, alias: str, version: int) -> None:
        """Move an alias. Raises CallFailed."""
        try:
            rf.move_alias(f"{model}@{alias}", version, connection=self._connection)
        except rf.RollforwardError as error:
            raise CallFailed(str(error)) from error

    def resolve(self, model: str, alias: str) -> None:
        """Ask which version an alias names. Raises CallFailed."""
        try:
            rf.resolve(f"{model}@{alias}", connection=self._connection)
        except rf.RollforwardError as error:
            raise CallFailed(str(error)) from error

    def resolve_at(self, model: str, alias: str, position: int) -> None:
        """Ask which version an alias named at a position."""
        rf.resolve(f"{model}@{alias}", at=position, connection=self._connection)

    def log(self, points: int) -> None:
        """Log so many points of one metric."""
        if not self._run:
            self._run = self._started_run()
        column = bytes(8 * points)
        series = v1.Series(key="loss", steps=column, timestamps=column, values=column)
        batch = v1.LogBatchRequest(run_id=self._run, series=[series], request_id=rf.new_request_id())
        self._connection.call(self._connection.tracking.LogBatch, batch)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _started_run(self) -> str:
        with rf.start_run("bench", connection=self._connection) as run:
            return run.run_id
