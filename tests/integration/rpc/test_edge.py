"""The edge of a system: starting, refusing to start, limits, stopping in good order, and starting again."""

from __future__ import annotations

import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
    """The one line with which a start is refused; 2 is the exit code of wrong use."""
    command = [sys.executable, "-m", "services", "up", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert (done.returncode, done.stdout) == (code, "")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("rollforward: ")
    return lines[0]


@pytest.fixture
def taken() -> Iterator[str]:
    """An address at which another program listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


class TestRefusesToStart:
    def test_on_a_data_directory_in_use_and_names_its_holder(self, system: Up) -> None:
        line = refused_start("--data", str(system.data), "--grpc", "127.0.0.1:0")
        assert re.search(rf"\b{system.pid}\b", line)
        assert system.heads()

    def test_on_a_taken_port(self, tmp_path: Path, taken: str) -> None:
        assert taken in refused_start("--data", str(tmp_path), "--grpc", taken)
        assert taken in refused_start("--data", str(tmp_path), "--grpc", "127.0.0.1:0", "--http", taken)

    @pytest.mark.parametrize("address", ["localhost", "localhost:", "localhost:99999", "localhost:-1"])
    def test_on_what_is_no_address(self, tmp_path: Path, address: str) -> None:
        assert address in refused_start("--data", str(tmp_path), "--grpc", address, code=2)

    def test_where_no_program_can_listen(self, tmp_path: Path) -> None:
        assert "192.0.2.1:0" in refused_start("--data", str(tmp_path), "--grpc", "192.0.2.1:0")

    @pytest.mark.parametrize("option", ["--grpc", "--http"])
    @pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "[::ffff:0.0.0.0]:0", "0:0", "0x0.0:0"])
    def test_where_other_machines_can_call(self, tmp_path: Path, option: str, address: str) -> None:
        others = {"--grpc": "127.0.0.1:0", "--http": "127.0.0.1:0"} | {option: address}
        line = refused_start("--data", str(tmp_path / "data"), *(word for pair in others.items() for word in pair))
        assert "--insecure" in line
        assert not (tmp_path / "data").exists()

    def test_one_service_where_other_machines_can_call(self) -> None:
        command = [sys.executable, "-m", "services", "start", "registry", "--nats", "nats://127.0.0.1:1"]
        done = subprocess.run(
            [*command, "--grpc", "0.0.0.0:0"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert "--insecure" in done.stderr

    @pytest.mark.parametrize(
        ("database", "code"), [("mysql://localhost/db", 2), ("postgresql://nobody@127.0.0.1:1/db", 1)]
    )
    def test_without_its_database(self, tmp_path: Path, database: str, code: int) -> None:
        refused_start("--data", str(tmp_path), "--grpc", "127.0.0.1:0", "--database", database, code=code)

    def test_without_a_place_for_artifacts(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for place in ("ftp://host/x", str(tmp_path / "file" / "x")):
            refused_start("--data", str(tmp_path / "data"), "--grpc", "127.0.0.1:0", "--artifacts", place, code=2)

    @pytest.mark.parametrize("options", [["start", "nothing"], ["start", "registry"], ["up", "--nothing"]])
    def test_when_it_is_asked_wrongly(self, options: list[str]) -> None:
        command = [sys.executable, "-m", "services", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=scaled(60), check=False)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr

    def test_a_start_that_waits_for_nats_can_be_broken_off(self, tmp_path: Path, taken: str) -> None:
        command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path), "--nats", f"nats://{taken}"]
        with (tmp_path / "out").open("wb") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out) as start:
            with socket.create_server(("127.0.0.1", 0)):
                _until_connected(taken, start.pid)
            start.terminate()
            assert start.wait(scaled(10)) == 0


def test_listens_where_other_machines_can_call_when_that_is_asked_for(tmp_path: Path) -> None:
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
def test_a_caller_who_claims_to_be_a_service_is_refused(system: Up, model: str, actor: str) -> None:
    headers = (("rollforward-actor", quote(actor)),)
    request = v1.MoveAliasRequest(model=model, alias="champion", version=1)
    assert system.refused(system.registry.MoveAlias, request, headers).reason == "ACTOR_RESERVED"
    experiment = v1.CreateExperimentRequest(name=new_id())
    assert system.refused(system.tracking.CreateExperiment, experiment, headers).reason == "ACTOR_RESERVED"


def test_a_caller_whose_name_is_near_a_service_s_is_not_refused(system: Up, model: str) -> None:
    system.move(model, 1, headers=(("rollforward-actor", "webhooks-team"),))


def _until_connected(address: str, pid: int) -> None:
    port = int(address.rpartition(":")[2])

    def connected() -> bool:
        return any(link.raddr and link.raddr.port == port for link in psutil.Process(pid).net_connections())

    until(connected, "a connection to NATS")


class TestLimits:
    def test_an_event_of_more_than_a_megabyte(self, system: Up) -> None:
        batch = v1.LogBatchRequest(run_id=system.new_run(), tags={f"tag-{number}": "x" * 8000 for number in range(130)})
        error = system.refused(system.tracking.LogBatch, batch)
        assert (type(error), error.reason) == (InvalidRequest, "MESSAGE_TOO_LARGE")
        assert int(error.metadata["size"]) > int(error.metadata["limit"])

    def test_a_message_of_more_than_four_megabytes(self, system: Up) -> None:
        request = v1.CreateModelRequest(name="a", description="x" * 4_200_000)
        error = system.refused(system.registry.CreateModel, request)
        assert (type(error), error.reason) == (InvalidRequest, "MESSAGE_TOO_LARGE")

    def test_what_is_wrong_is_told_however_long_it_is(self, system: Up) -> None:
        odd = "\N{FULL BLOCK}"
        for request in (
            v1.CreateModelRequest(name=odd * 300),
            v1.CreateModelRequest(name="@" + odd * 254),
            v1.CreateModelRequest(name="a", registration_gate=odd * 3000),
            v1.CreateModelRequest(name="a", registration_gate=f"'{odd * 3000}"),
        ):
            error = system.refused(system.registry.CreateModel, request)
            assert (type(error), error.reason in {"INVALID_NAME", "INVALID_GATE"}) == (InvalidRequest, True)

    def test_a_method_that_there_is_not(self, system: Up) -> None:
        call: Any = system.channel.unary_unary("/rollforward.v1.RegistryService/Nothing")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=SECONDS)
        assert isinstance(refused.value, grpc.Call)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_bytes_that_are_no_message(self, system: Up) -> None:
        heads = system.heads()
        call: Any = system.channel.unary_unary("/rollforward.v1.RegistryService/CreateModel")
        with pytest.raises(grpc.RpcError):
            call(b"\xff\xff\xff", timeout=SECONDS)
        assert system.heads() == heads

    def test_a_position_that_the_log_has_not_reached_is_refused(self, system: Up) -> None:
        head = system.heads()["registry"]
        headers = (("rollforward-min-position", f"registry={head + 1_000_000}"),)
        refusal = system.refused(system.registry.ListModels, v1.ListModelsRequest(), headers)
        assert refusal.reason == "POSITION_AHEAD"


@pytest.mark.parametrize("wanted", ["head", "registry={position}"])
def test_a_wait_for_rows_ends_before_the_deadline_of_its_call(tmp_path: Path, wanted: str) -> None:
    with up(tmp_path / "data") as services:
        model = services.new_model()
        with locked(services, "registry"):
            headers = (("rollforward-min-position", wanted.format(position=services.move(model, 1).position)),)
            # A busy machine may miss a deadline; a server that knows of none misses all of them.
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


class TestStopsInGoodOrder:
    def test_calls_that_run_are_answered_and_watches_are_told(self, tmp_path: Path) -> None:
        with up(tmp_path / "data") as services:
            model = services.new_model()
            behind = (("rollforward-min-position", f"registry={services.heads()['registry']}"),)
            watches: list[Any] = [
                services.registry.WatchAliases(v1.WatchAliasesRequest(model=model), metadata=behind, timeout=SECONDS),
                services.serving.WatchAssignments(
                    v1.WatchAssignmentsRequest(pod_id=new_id(), targets=[v1.Target(model=model, alias="champion")]),
                    metadata=behind,
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
            # What was refused was not written, save what nobody took the answer of.
            assert len(history) <= len(set(written)) + len(writers)

    def test_a_start_again_keeps_everything(self, tmp_path: Path) -> None:
        with up(tmp_path / "data") as first:
            model, run_id = first.new_model(), first.new_run()
            tags = {letter: letter for letter in "zyxwvutsrqponmlk"}
            first.registry.CreateModel(v1.CreateModelRequest(name=f"{model}-tagged", tags=tags), timeout=SECONDS)
            first.tracking.CreateExperiment(v1.CreateExperimentRequest(name="tagged", tags=tags), timeout=SECONDS)
            moved = [first.move(model, version) for version in (1, 2, 1)]
            request = v1.MoveAliasRequest(model=model, alias="other", version=2, request_id=new_id())
            answer = first.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS)
            heads, before = first.heads(), _everything(first, model, run_id)
            assert first.program.terminate() == 0
        with up(tmp_path / "data") as again:
            assert again.heads() == heads
            assert _everything(again, model, run_id) == before
            assert again.registry.MoveAlias(request, metadata=ACTOR, timeout=SECONDS) == answer
            assert again.heads() == heads
            back = v1.RollbackRequest(models=model, aliases="champion")
            (change,) = again.registry.Rollback(back, timeout=SECONDS).changes
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


def _everything(services: Client, model: str, run_id: str) -> list[object]:
    return [
        services.registry.GetModel(v1.GetModelRequest(name=model), timeout=SECONDS),
        services.registry.ListVersions(v1.ListVersionsRequest(model=model), timeout=SECONDS),
        services.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=model), timeout=SECONDS),
        services.tracking.GetRun(v1.GetRunRequest(run_id=run_id), timeout=SECONDS),
        services.audit.ListEvents(v1.ListEventsRequest(page_size=1000), timeout=SECONDS),
    ]


def test_it_listens_where_it_says(tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path / "data"), "--grpc", "[::1]:0"]
    program = Program(command, tmp_path / "log")
    try:
        _, line = program.line(" listens on ")
        client = Client(line.rpartition(" ")[2])
        assert client.heads() == {"tracking": 0, "registry": 0, "serving": 0, "webhooks": 0}
        client.channel.close()
    finally:
        assert program.terminate() == 0
