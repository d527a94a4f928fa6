"""Starting and stopping a system: refused starts, limits, graceful stops and restarts."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import grpc
import psutil
import pytest

from rollforward import v1
from rollforward.errors import InvalidRequest, RollforwardError, Unavailable, from_rpc_error
from services.rpc.positions import MAX_WAIT_SECONDS
from tests.e2e.program import ROOT, Program, gone, until
from tests.integration.up import ACTOR, SECONDS, Client, Up, new_id, up
from tests.timeouts import scaled


def refused_start(*options: str, code: int = 1) -> str:
    """Return the single line that a refused start prints; exit code 2 means wrong usage."""
    command = [sys.executable, "-m", "services", "up", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert (done.returncode, done.stdout) == (code, "")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("rollforward: ")
    return lines[0]


@pytest.fixture
def taken() -> Iterator[str]:
    """Yield an address at which another program listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class TestRefusesToStart:
    def test_data_directory_in_use_is_refused_with_process_id(self, system: Up) -> None:
        line = refused_start("--data", str(system.data), "--grpc", "127.0.0.1:0")
        assert re.search(rf"\b{system.pid}\b", line)
        assert system.heads()

    def test_port_in_use_is_refused(self, tmp_path: Path, taken: str) -> None:
        assert taken in refused_start("--data", str(tmp_path), "--grpc", taken)
        assert taken in refused_start("--data", str(tmp_path), "--grpc", "127.0.0.1:0", "--http", taken)

    @pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:99999", "localhost:-1"])
    def test_invalid_address_is_refused(self, tmp_path: Path, address: str) -> None:
        assert address in refused_start("--data", str(tmp_path), "--grpc", address, code=2)

    def test_foreign_address_is_refused(self, tmp_path: Path) -> None:
        assert "192.0.2.1:0" in refused_start("--data", str(tmp_path), "--grpc", "192.0.2.1:0")

    @pytest.mark.parametrize("option", ["--grpc", "--http"])
    @pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "[::ffff:0.0.0.0]:0", "0:0", "0x0.0:0"])
    def test_public_address_is_refused_without_insecure(self, tmp_path: Path, option: str, address: str) -> None:
        others = {"--grpc": "127.0.0.1:0", "--http": "127.0.0.1:0"} | {option: address}
        line = refused_start("--data", str(tmp_path / "data"), *(word for pair in others.items() for word in pair))
        assert "--insecure" in line
        assert not (tmp_path / "data").exists()

    def test_public_address_of_single_service_is_refused_without_insecure(self) -> None:
        command = [sys.executable, "-m", "services", "start", "registry", "--nats", "nats://127.0.0.1:1"]
        done = subprocess.run(
            [*command, "--grpc", "0.0.0.0:0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert "--insecure" in done.stderr

    @pytest.mark.parametrize(
        ("database", "code"), [("mysql://localhost/db", 2), ("postgresql://nobody@127.0.0.1:1/db", 1)]
    )
    def test_unavailable_database_is_refused(self, tmp_path: Path, database: str, code: int) -> None:
        refused_start("--data", str(tmp_path), "--grpc", "127.0.0.1:0", "--database", database, code=code)

    def test_invalid_artifact_location_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for location in ("ftp://host/x", str(tmp_path / "file" / "x")):
            refused_start("--data", str(tmp_path / "data"), "--grpc", "127.0.0.1:0", "--artifacts", location, code=2)

    @pytest.mark.parametrize("options", [["start", "nothing"], ["start", "registry"], ["up", "--nothing"]])
    def test_wrong_usage_is_refused(self, options: list[str]) -> None:
        command = [sys.executable, "-m", "services", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr

    def test_start_that_waits_for_nats_can_be_stopped(self, tmp_path: Path, taken: str) -> None:
        command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path), "--nats", f"nats://{taken}"]
        with (
            (tmp_path / "out").open("wb") as out,
            subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as process,
        ):
            with socket.create_server(("127.0.0.1", 0)):
                _wait_until_connected(taken, process.pid)
            process.terminate()
            assert process.wait(scaled(10)) == 0


def test_insecure_listens_on_public_address(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path / "data"), "--insecure"]
    program = Program([*command, "--grpc", "0.0.0.0:0", "--http", "[::1]:0"], tmp_path / "log")
    try:
        _, line = program.line(" listens on ")
        client = Client("127.0.0.1:" + line.split()[4].rpartition(":")[2])
        assert client.heads()
        client.channel.close()
    finally:
        program.terminate()


RESERVED = ["webhooks", "tracking", "registry", "serving", "audit", "system", "schedules", "rollforward"]


@pytest.mark.parametrize("actor", [*RESERVED, "Webhooks", "TRACKING", "\uff41\uff55\uff44\uff49\uff54"])
def test_reserved_actor_is_rejected(system: Up, model: str, actor: str) -> None:
    headers = (("rollforward-actor", quote(actor)),)
    request = v1.MoveAliasRequest(model=model, alias="champion", version=1)
    assert system.refused(system.registry.MoveAlias, request, headers).reason == "ACTOR_RESERVED"
    experiment = v1.CreateExperimentRequest(name=new_id())
    assert system.refused(system.tracking.CreateExperiment, experiment, headers).reason == "ACTOR_RESERVED"


def test_actor_similar_to_reserved_one_is_accepted(system: Up, model: str) -> None:
    system.move(model, 1, headers=(("rollforward-actor", "webhooks-team"),))


def _wait_until_connected(address: str, pid: int) -> None:
    port = int(address.rpartition(":")[2])

    def connected() -> bool:
        return any(
            connection.raddr and connection.raddr.port == port for connection in psutil.Process(pid).net_connections()
        )

    until(connected, "a connection to NATS")


class TestLimits:
    def test_event_larger_than_megabyte_is_rejected(self, system: Up) -> None:
        batch = v1.LogBatchRequest(run_id=system.new_run(), tags={f"tag-{number}": "x" * 8000 for number in range(130)})
        error = system.refused(system.tracking.LogBatch, batch)
        assert (type(error), error.reason) == (InvalidRequest, "MESSAGE_TOO_LARGE")
        assert int(error.metadata["size"]) > int(error.metadata["limit"])

    def test_message_larger_than_four_megabytes_is_rejected(self, system: Up) -> None:
        request = v1.CreateModelRequest(name="a", description="x" * 4_200_000)
        error = system.refused(system.registry.CreateModel, request)
        assert (type(error), error.reason) == (InvalidRequest, "MESSAGE_TOO_LARGE")

    def test_very_long_invalid_value_is_rejected(self, system: Up) -> None:
        odd = "\N{FULL BLOCK}"
        for request in (
            v1.CreateModelRequest(name=odd * 300),
            v1.CreateModelRequest(name="@" + odd * 254),
            v1.CreateModelRequest(name="a", registration_gate=odd * 3000),
            v1.CreateModelRequest(name="a", registration_gate=f"'{odd * 3000}"),
        ):
            error = system.refused(system.registry.CreateModel, request)
            assert (type(error), error.reason in {"INVALID_NAME", "INVALID_GATE"}) == (InvalidRequest, True)

    def test_unknown_method_is_unimplemented(self, system: Up) -> None:
        call: Any = system.channel.unary_unary("/rollforward.v1.RegistryService/Nothing")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=SECONDS)
        assert isinstance(refused.value, grpc.Call)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_invalid_message_is_rejected(self, system: Up) -> None:
        heads = system.heads()
        call: Any = system.channel.unary_unary("/rollforward.v1.RegistryService/CreateModel")
        with pytest.raises(grpc.RpcError):
            call(b"\xff\xff\xff", timeout=SECONDS)
        assert system.heads() == heads

    def test_position_ahead_of_log_is_rejected(self, system: Up) -> None:
        head = system.heads()["registry"]
        headers = (("rollforward-min-position", f"registry={head + 1_000_000}"),)
        refusal = system.refused(system.registry.ListModels, v1.ListModelsRequest(), headers)
        assert refusal.reason == "POSITION_AHEAD"


@pytest.mark.parametrize("position_header", ["head", "registry={position}"])
def test_wait_for_rows_ends_before_deadline_of_call(tmp_path: Path, position_header: str) -> None:
    with up(tmp_path / "data") as services:
        model = services.new_model()
        with locked(services, "registry"):
            headers = (("rollforward-min-position", position_header.format(position=services.move(model, 1).position)),)
            # A busy machine may miss a deadline; a server that ignores deadlines misses all of them.
            ends = (ended_by_server(services, headers, seconds) for seconds in (0.5, 1, 2, 4, 8, 8, 8))
            error = next((end for end in ends if end), None)
            assert error
            assert (type(error), error.reason) == (Unavailable, "PROJECTION_BEHIND")
        (found,) = services.registry.ListModels(v1.ListModelsRequest(), metadata=headers, timeout=SECONDS).models
        assert found.name == model


def ended_by_server(services: Client, headers: Sequence[tuple[str, str]], seconds: float) -> RollforwardError | None:
    """Return how the server ended a call with a deadline shorter than it waits without one; None if it did not."""
    assert seconds < MAX_WAIT_SECONDS
    with pytest.raises(grpc.RpcError) as late:
        services.registry.ListModels(v1.ListModelsRequest(), metadata=tuple(headers), timeout=seconds)
    error = from_rpc_error(late.value)
    return None if error.reason == "DEADLINE_EXCEEDED" else error


@contextmanager
def locked(services: Up, projection: str) -> Iterator[None]:
    """Keep a projection's rows from following their log."""
    (path,) = (services.data / "rows").glob(f"rf_{projection}_[0-9a-f]*.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


class TestGracefulStop:
    def test_stop_answers_running_calls_and_ends_watches(self, tmp_path: Path) -> None:
        with up(tmp_path / "data") as services:
            model = services.new_model()
            headers_at_head = (("rollforward-min-position", f"registry={services.heads()['registry']}"),)
            watches: list[Any] = [
                services.registry.WatchAliases(
                    v1.WatchAliasesRequest(model=model), metadata=headers_at_head, timeout=SECONDS
                ),
                services.serving.WatchAssignments(
                    v1.WatchAssignmentsRequest(pod_id=new_id(), targets=[v1.Target(model=model, alias="champion")]),
                    metadata=headers_at_head,
                    timeout=SECONDS,
                ),
            ]
            assert all(next(watch).position for watch in watches)
            moving, written = threading.Event(), list[int]()

            def move_until_refused() -> RollforwardError:
                while True:
                    try:
                        for version in (1, 2):
                            written.append(services.move(model, version).position)
                            moving.set()
                    except grpc.RpcError as error:
                        return from_rpc_error(error)

            with ThreadPoolExecutor(2) as pool:
                writers: list[Future[RollforwardError]] = [pool.submit(move_until_refused) for _ in range(2)]
                assert moving.wait(SECONDS)
                nats = [child.pid for child in services.program.children("nats-server")]
                assert services.program.terminate() == 0
                refusals = [writer.result(SECONDS) for writer in writers]
            assert {type(error) for error in refusals} == {Unavailable}
            for watch in watches:
                assert _end_of(watch) == "SHUTTING_DOWN"
            assert len(nats) == 1
            assert gone(nats[0])
            assert "Traceback" not in services.program.errors
        with up(tmp_path / "data") as again:
            history = _history(again, model)
            assert set(written) <= set(history)
            # Rejected moves were not written, except those whose responses were lost.
            assert len(history) <= len(set(written)) + len(writers)

    def test_restart_keeps_everything(self, tmp_path: Path) -> None:
        with up(tmp_path / "data") as first:
            model, run_id = first.new_model(), first.new_run()
            tags = {letter: letter for letter in "zyxwvutsrqponmlk"}
            first.registry.CreateModel(v1.CreateModelRequest(name=f"{model}-tagged", tags=tags), timeout=SECONDS)
            first.tracking.CreateExperiment(v1.CreateExperimentRequest(name="tagged", tags=tags), timeout=SECONDS)
            moved = [first.move(model, version) for version in (1, 2, 1)]
            request = v1.MoveAliasRequest(model=model, alias="other", version=2, request_id=new_id())
            response = first.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS)
            heads, before = first.heads(), _read_all(first, model, run_id)
            assert first.program.terminate() == 0
        with up(tmp_path / "data") as again:
            assert again.heads() == heads
            assert _read_all(again, model, run_id) == before
            assert again.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS) == response
            assert again.heads() == heads
            rollback = v1.RollbackRequest(models=model, aliases="champion")
            (change,) = again.registry.Rollback(rollback, timeout=SECONDS).changes
            assert change.restored_revision == moved[1].position
            for name in ("registry", "tracking", "audit-registry"):
                steps = again.system.RebuildProjection(v1.RebuildProjectionRequest(name=name), timeout=SECONDS)
                last = list(steps)[-1]
                assert last.live_digest == last.rebuilt_digest != ""


def _end_of(watch: Any) -> str:
    with pytest.raises(grpc.RpcError) as ended:
        for _ in watch:
            pass
    error = from_rpc_error(ended.value)
    assert isinstance(error, Unavailable)
    return error.reason


def _history(services: Client, model: str) -> list[int]:
    request = v1.ListAliasHistoryRequest(model=model, page_size=1000)
    return [change.revision for change in services.registry.ListAliasHistory(request, timeout=SECONDS).changes]


def _read_all(services: Client, model: str, run_id: str) -> list[object]:
    return [
        services.registry.GetModel(v1.GetModelRequest(name=model), timeout=SECONDS),
        services.registry.ListVersions(v1.ListVersionsRequest(model=model), timeout=SECONDS),
        services.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=model), timeout=SECONDS),
        services.tracking.GetRun(v1.GetRunRequest(run_id=run_id), timeout=SECONDS),
        services.audit.ListEvents(v1.ListEventsRequest(page_size=1000), timeout=SECONDS),
    ]


def test_printed_address_is_reachable(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path / "data"), "--grpc", "[::1]:0"]
    program = Program([*command, "--http", ""], tmp_path / "log")
    try:
        _, line = program.line(" listens on ")
        client = Client(line.rpartition(" ")[2])
        assert client.heads() == {"tracking": 0, "registry": 0, "serving": 0, "webhooks": 0}
        client.channel.close()
    finally:
        assert program.terminate() == 0


def test_http_moves_to_a_free_port_unless_an_address_is_given(tmp_path: Path) -> None:
    """Without an address, HTTP takes the next free port and says so; '' turns it off."""
    command = [sys.executable, "-m", "services", "up", "--grpc", "127.0.0.1:0"]
    with ExitStack() as stack:
        with suppress(OSError):  # another test may have it
            stack.enter_context(socket.create_server(("127.0.0.1", 5000)))
        moved = Program([*command, "--data", str(tmp_path / "moved")], tmp_path / "moved.log")
        stack.callback(moved.terminate)
        _, line = moved.line(" listens on ")
        url = line.split()[-1]
        assert re.fullmatch(r"http://127\.0\.0\.1:50\d\d", url)
        assert url != "http://127.0.0.1:5000"
        warning = f"warning: 127.0.0.1:5000 is in use; HTTP is at {url.removeprefix('http://')} instead"
        assert warning in [text for _, text in moved.lines()]
        with urlopen(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=SECONDS) as answer:  # noqa: S310
            assert json.load(answer)["experiment"]["name"] == "Default"
        off = Program([*command, "--data", str(tmp_path / "off"), "--http", ""], tmp_path / "off.log")
        stack.callback(off.terminate)
        _, line = off.line(" listens on ")
        assert "http" not in line
