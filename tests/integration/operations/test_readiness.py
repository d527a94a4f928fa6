"""What a process says of itself is true: over HTTP, gRPC health, `status`, metrics and in the results of reads."""

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
    """What /readyz answers."""
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
    """Whether all ways to ask say so."""
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    with urlopen(f"{services.http}/metrics", timeout=SECONDS) as answer:  # noqa: S310 - a loopback address
        metric = b"rollforward_ready 1.0" in answer.read()
    answers = {readiness(services)["status"] == 200, status.ready, metric, health(services) == SERVING}
    return answers == {True}


def is_unready(services: Up) -> bool:
    """Whether all ways to ask say so."""
    status = services.system.GetStatus(v1.GetStatusRequest(), timeout=SECONDS)
    return readiness(services)["status"] == 503 and not status.ready and health(services) != SERVING


def nats_of(services: Up) -> psutil.Process:
    (child,) = [one for one in psutil.Process(services.pid).children() if one.name() == "nats-server"]
    return child


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Up]:
    with up(tmp_path / "data") as services:
        yield services
        assert "internal error" not in services.program.errors


def test_not_ready_while_nats_is_stopped(services: Up) -> None:
    until(lambda: is_ready(services), "ready")
    nats = nats_of(services)
    nats.suspend()
    try:
        until(lambda: is_unready(services), "not ready")
        assert any("log takes no writes" in problem for problem in readiness(services).get("problems", []))
    finally:
        nats.resume()
    until(lambda: is_ready(services), "ready again")


def test_not_ready_while_the_rows_are_stuck_and_reads_say_so(services: Up) -> None:
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


def test_not_ready_while_the_database_is_away(tmp_path: Path) -> None:
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
def test_not_ready_while_the_cluster_has_no_quorum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack)
        monkeypatch.setenv("ROLLFORWARD_REPLICAS", str(SERVERS))
        services = stack.enter_context(up(tmp_path / "data", "--nats", cluster.url))
        until(lambda: is_ready(services), "ready")
        model = services.new_model()
        # The registry log's leader survives: left alone, it steps down by itself after 10 to 20 s.
        leader = cluster.leader("registry")
        lost = [server for number, server in enumerate(cluster.servers) if number != leader]
        for server in lost:
            server.kill()
        problem = "the registry log takes no writes"
        until(lambda: any(problem in one for one in readiness(services).get("problems", [])), problem, scaled(60.0))
        until(lambda: is_unready(services), "not ready")
        assert health(services, "rollforward.v1.RegistryService") != SERVING
        assert problem in " ".join(done(program(services.address)("status")).split())
        lost[0].start()
        until(lambda: is_ready(services), "ready again")
        assert re.search(r"^ready +yes$", done(program(services.address)("status")), re.MULTILINE)
        # Its answer may wait for what hears the log, which went down with the leader: the same request is sent again.
        request = v1.MoveAliasRequest(model=model, alias="champion", version=1, request_id=new_id())
        until(lambda: is_answered(services, request), "moved", scaled(90.0))
        assert services.program.terminate() == 0


def is_answered(services: Up, request: v1.MoveAliasRequest) -> bool:
    """Return whether a move is answered, and not refused as one to be sent again."""
    try:
        services.registry.MoveAlias(request, timeout=SECONDS)
    except grpc.RpcError as error:
        if cast("grpc.Call", error).code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


def move_again_and_again(services: Up, model: str) -> None:
    """Write until what NATS had room for is used up."""
    for number in range(10_000):
        services.move(model, 1 + number % 2)


@contextmanager
def full(disk: Path) -> Iterator[Path]:
    filler = disk / "filler"
    fill(filler)
    try:
        yield filler
    finally:
        filler.unlink(missing_ok=True)


def test_not_ready_while_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, up(disk / "data") as services:
        model = services.new_model()
        with full(disk):
            until(lambda: is_unready(services), "not ready")
            assert any("no space left on device" in problem for problem in readiness(services).get("problems", []))
            with pytest.raises(grpc.RpcError) as refused:
                move_again_and_again(services, model)
            error = from_rpc_error(refused.value)
            assert error.reason == "LOG_UNAVAILABLE"
            assert "no space left on device" in str(error)
        until(lambda: is_ready(services), "ready again")
        assert services.move(model, 2).position
        assert services.program.terminate() == 0


def test_a_start_on_a_full_disk_says_so_at_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        with up(disk / "data") as services:
            model = services.new_model()
            services.program.kill()
        with full(disk):
            command = [sys.executable, "-m", "services", "up", "--data", str(disk / "data"), "--grpc", "127.0.0.1:0"]
            start = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert start.returncode == 1
            assert "no space left on device" in start.stderr.splitlines()[-1].lower()
            assert str(disk / "data") in start.stderr.splitlines()[-1]
        with up(disk / "data") as services:
            assert services.move(model, 1).position
            assert services.program.terminate() == 0
