"""Readiness agrees with the truth everywhere: in HTTP, gRPC health, `status`, metrics and the staleness of reads."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import urlopen

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rollforward import v1
from rollforward.errors import from_rpc_error
from tests.e2e.program import until
from tests.histories.systems.cluster import SERVERS, Cluster
from tests.integration.cli.command_line import done, program
from tests.integration.up import SECONDS, Up, new_id, up
from tests.servers.disk import fill, small_disk
from tests.servers.postgres import running_postgres
from tests.timeouts import scaled

SERVING = health_pb2.HealthCheckResponse.SERVING


def readiness(services: Up) -> dict[str, Any]:
    """Return the response of /readyz."""
    try:
        with urlopen(f"{services.http}/readyz", timeout=SECONDS) as answer:  # noqa: S310 - a loopback address
            return dict(json.load(answer), status=answer.status)
    except HTTPError as answer:
        return dict(json.load(answer), status=answer.code)


def health(services: Up, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    stub: Any = health_pb2_grpc.HealthStub(services.channel)
    return int(stub.Check(request, timeout=SECONDS).status)


def is_ready(services: Up) -> bool:
    """Return whether HTTP, status, metrics and health all report ready."""
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    with urlopen(f"{services.http}/metrics", timeout=SECONDS) as answer:  # noqa: S310 - a loopback address
        metric = b"rollforward_ready 1.0" in answer.read()
    answers = {readiness(services)["status"] == 200, status.ready, metric, health(services) == SERVING}
    return answers == {True}


def is_unready(services: Up) -> bool:
    """Return whether HTTP, status and health all report not ready."""
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    return readiness(services)["status"] == 503 and not status.ready and health(services) != SERVING


def nats_process(services: Up) -> psutil.Process:
    (child,) = [process for process in psutil.Process(services.pid).children() if process.name() == "nats-server"]
    return child


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Up]:
    with up(tmp_path / "data") as services:
        yield services
        assert "internal error" not in services.program.errors


def test_not_ready_while_nats_is_stopped(services: Up) -> None:
    until(lambda: is_ready(services), "ready")
    nats = nats_process(services)
    nats.suspend()
    try:
        until(lambda: is_unready(services), "not ready")
        assert any("cannot write to the" in problem for problem in readiness(services).get("problems", []))
    finally:
        nats.resume()
    until(lambda: is_ready(services), "ready again")


def test_not_ready_while_rows_are_locked_and_reads_are_stale(services: Up) -> None:
    model = services.new_model()
    services.move(model, 1)
    (path,) = (services.data / "rows").glob("rf_registry_[0-9a-f]*.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        move = v1.MoveAliasRequest(model=model, alias="champion", version=2)
        services.registry.MoveAlias(move, timeout=SECONDS)
        until(lambda: is_unready(services), "not ready")
        assert health(services, "rollforward.v1.RegistryService") != SERVING
        assert health(services, "rollforward.v1.TrackingService") == SERVING
        request = v1.ListAliasHistoryRequest(model=model, alias="champion")
        headers = (("rollforward-min-position", "registry=1"),)
        _, call = services.registry.ListAliasHistory.with_call(request, metadata=headers, timeout=SECONDS)
        assert "is behind" in unquote(dict(call.initial_metadata())["rollforward-stale"])
        read = program(services.address)("aliases", "history", model, "--stale", "--output", "json")
        assert read.returncode == 0
        assert re.fullmatch(r"warning: results may be stale: projection registry is behind: .*\n", read.stderr)
        assert isinstance(json.loads(read.stdout), list)
        other.execute("ROLLBACK")
    until(lambda: is_ready(services), "ready again")
    _, call = services.registry.ListAliasHistory.with_call(request, metadata=headers, timeout=SECONDS)
    assert "rollforward-stale" not in dict(call.initial_metadata())
    assert program(services.address)("aliases", "history", model, "--stale").stderr == ""


def test_not_ready_while_database_is_down(tmp_path: Path) -> None:
    with running_postgres() as server:
        if not server.ours:
            pytest.skip("this PostgreSQL may not be stopped")
        with server.database() as url, up(tmp_path / "data", "--database", url) as services:
            until(lambda: is_ready(services), "ready")
            server.end(signal.SIGQUIT)
            until(lambda: is_unready(services), "not ready")
            server.start()
            until(lambda: is_ready(services), "ready again")
            assert services.program.terminate() == 0


@pytest.mark.busy
def test_not_ready_while_cluster_has_no_quorum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack)
        monkeypatch.setenv("ROLLFORWARD_REPLICAS", str(SERVERS))
        services = stack.enter_context(up(tmp_path / "data", "--nats", cluster.url))
        until(lambda: is_ready(services), "ready")
        model = services.new_model()
        # The registry log's leader survives: without a quorum, it steps down by itself after 10 to 20 s.
        leader = cluster.leader("registry")
        killed = [server for number, server in enumerate(cluster.servers) if number != leader]
        for server in killed:
            server.kill()
        problem = "cannot write to the registry log"
        until(
            lambda: any(problem in reported for reported in readiness(services).get("problems", [])),
            problem,
            scaled(60.0),
        )
        until(lambda: is_unready(services), "not ready")
        assert health(services, "rollforward.v1.RegistryService") != SERVING
        assert problem in " ".join(done(program(services.address)("status")).split())
        killed[0].start()
        until(lambda: is_ready(services), "ready again")
        assert re.search(r"^ready +yes$", done(program(services.address)("status")), re.MULTILINE)
        # The first try may wait for the log's consumer, which was lost with the leader: the same request is repeated.
        request = v1.MoveAliasRequest(model=model, alias="champion", version=1, request_id=new_id())
        until(lambda: succeeds(services, request), "moved", scaled(90.0))
        assert services.program.terminate() == 0


def succeeds(services: Up, request: v1.MoveAliasRequest) -> bool:
    """Return whether a move succeeds, rather than fail as one to be retried."""
    try:
        services.registry.MoveAlias(request, timeout=SECONDS)
    except grpc.RpcError as error:
        if cast("grpc.Call", error).code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


def move_until_full(services: Up, model: str) -> None:
    """Write until NATS has used up the space that it has reserved."""
    for number in range(10_000):
        services.move(model, 1 + number % 2)


@contextmanager
def fill_disk(disk: Path) -> Iterator[Path]:
    filler = disk / "filler"
    fill(filler)
    try:
        yield filler
    finally:
        filler.unlink(missing_ok=True)


def test_not_ready_while_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, up(disk / "data") as services:
        model = services.new_model()
        with fill_disk(disk):
            until(lambda: is_unready(services), "not ready")
            assert any("no space left on device" in problem for problem in readiness(services).get("problems", []))
            with pytest.raises(grpc.RpcError) as caught:
                move_until_full(services, model)
            error = from_rpc_error(caught.value)
            assert error.reason == "LOG_UNAVAILABLE"
            assert "no space left on device" in str(error)
        until(lambda: is_ready(services), "ready again")
        assert services.move(model, 2).position
        assert services.program.terminate() == 0


def test_start_on_full_disk_fails_with_reason(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        with up(disk / "data") as services:
            model = services.new_model()
            services.program.kill()
        with fill_disk(disk):
            command = [sys.executable, "-m", "services", "up", "--data", str(disk / "data"), "--grpc", "127.0.0.1:0"]
            start = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert start.returncode == 1
            assert "no space left on device" in start.stderr.splitlines()[-1].lower()
            assert str(disk / "data") in start.stderr.splitlines()[-1]
        with up(disk / "data") as services:
            assert services.move(model, 1).position
            assert services.program.terminate() == 0
