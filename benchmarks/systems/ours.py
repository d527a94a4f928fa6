"""rollforward: how to start it, and its client, the SDK."""

from __future__ import annotations

import os
import re
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rollforward as rf
from benchmarks.harness.contract import CallFailed, Endpoint, Labels
from benchmarks.systems.points import packed
from benchmarks.systems.processes import DidNotStart, program
from rollforward import v1

READY = " listens on "
"""In the line that a service says once it can be called."""


@contextmanager
def running(data: Path | None = None, database: str = "", http: str = "") -> Iterator[Endpoint]:
    """Run all services in one process, with NATS built in, in `data` or a temporary directory.

    With `http`, the endpoint's address is that of gRPC, " and ", and the URL of HTTP.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "services", "up", "--data", str(data or folder), "--grpc", "127.0.0.1:0"]
        command += ["--http", http]
        if database:
            command += ["--database", database]
        environment = {"ROLLFORWARD_LOG": "error", "ROLLFORWARD_WEBHOOKS_ALLOW_PRIVATE": "1"}
        with program(command, environment, READY) as (said, pid):
            if not (found := re.search(r"127\.0\.0\.1:\d+( and http://\S+)?", said)):
                raise DidNotStart(said)
            yield Endpoint("rollforward", found[0], pids=(pid,))


class SdkClient:
    """A client with the SDK."""

    def __init__(self, endpoint: Endpoint, actor: str) -> None:
        self._connection = rf.Client(endpoint.address, actor=actor)
        self._run = ""

    def prepare(self, model: str, versions: int) -> None:
        """Register versions of one small file."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weights").write_bytes(os.urandom(8))
            digest = self._connection.artifacts.upload(folder)[0]
        for _ in range(versions):
            self._connection.versions.register(model, digest=digest)

    def move(self, model: str, alias: str, version: int) -> None:
        """Move an alias. Raises CallFailed."""
        try:
            self._connection.aliases.move(f"{model}@{alias}", version)
        except rf.RollforwardError as error:
            raise CallFailed(str(error)) from error

    def resolve(self, model: str, alias: str) -> None:
        """Ask which version an alias names. Raises CallFailed."""
        try:
            self._connection.aliases.resolve(f"{model}@{alias}")
        except rf.RollforwardError as error:
            raise CallFailed(str(error)) from error

    def resolve_at(self, model: str, alias: str, position: int) -> None:
        """Ask which version an alias named at a position."""
        self._connection.aliases.resolve(f"{model}@{alias}", at=position)

    def log(self, points: int) -> None:
        """Log so many points of one metric."""
        if not self._run:
            self._run = self._started_run()
        batch = v1.LogBatchRequest(run_id=self._run, series=[packed(points)], request_id=rf.new_request_id())
        self._connection.connection.call(self._connection.connection.tracking.LogBatch, batch)

    def job(self, params: int, metrics: int) -> None:
        """Run a training job. Raises CallFailed when part of it was not delivered."""
        try:
            with self._connection.runs.start("bench") as run:
                for number in range(params):
                    run.log_param(f"param_{number}", number)
                for step in range(metrics):
                    run.log_metric("loss", 1 / (step + 1), step)
        except rf.RollforwardError as error:
            raise CallFailed(str(error)) from error

    def search(self, metric: str, above: float, count: int) -> int:
        """Read a page of runs."""
        request = v1.ListRunsRequest(
            page_size=count,
            experiment_id=self.experiment(),
            filter=f"metrics.{metric} > {above}",
            order_by=f"metrics.{metric} DESC",
        )
        return len(self._connection.connection.call(self._connection.connection.tracking.ListRuns, request).runs)

    def history(self, run_id: str, metric: str) -> int:
        """Read all points of a metric."""
        return len(self._connection.metrics.history(run_id, metric).steps)

    def chart(self, run_id: str, metric: str, intervals: int) -> None:
        """Read a metric in intervals."""
        request = v1.GetMetricIntervalsRequest(run_ids=[run_id], keys=[metric], intervals=intervals)
        for _ in self._connection.connection.stream(self._connection.connection.tracking.GetMetricIntervals, request):
            pass

    def write_runs(self, numbers: range, labels: Labels) -> None:
        """Write runs with the labels that `labels` returns for each number."""
        experiment_id = self.experiment()
        for number in numbers:
            metrics, params, tags = labels(number)
            run_id = rf.new_request_id()
            start = v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id, name=f"run {number}", tags=tags)
            self._connection.connection.call(self._connection.connection.tracking.StartRun, start)
            series = [
                v1.Series(key=key, steps=bytes(8), timestamps=bytes(8), values=struct.pack("<d", value))
                for key, value in metrics.items()
            ]
            batch = v1.LogBatchRequest(run_id=run_id, params=params, series=series, request_id=rf.new_request_id())
            self._connection.connection.call(self._connection.connection.tracking.LogBatch, batch)

    def write_points(self, metric: str, points: int) -> str:
        """Write a run with a number of points; return its id."""
        with self._connection.runs.start("bench") as run:
            for step in range(points):
                run.log_metric(metric, step / points, step)
        return run.run_id

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def experiment(self) -> str:
        """Return the id of the experiment that runs are written to."""
        try:
            return self._connection.experiments.create("many")
        except rf.AlreadyExists:
            return self._connection.experiments.get("many").experiment_id

    def _started_run(self) -> str:
        with self._connection.runs.start("bench") as run:
            return run.run_id
