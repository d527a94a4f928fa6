"""Restarts of a system: with missing rows, with a log that lost its tail, on a directory in use."""

from __future__ import annotations

import asyncio
import shutil
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rollforward as rf
from eventstore.event import Metadata, NewEvent
from rollforward import Client, v1
from rollforward._transport.channel import open_channel
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from services import registry
from services.nats.server import EmbeddedNats
from services.pod.cache import LastKnownGood
from tests.e2e.load import ask
from tests.e2e.models import write_constant_model
from tests.e2e.processes import Pod, Services
from tests.e2e.program import until
from tests.servers.nats import open_log

pytestmark = pytest.mark.busy

CHAMPION = "m@champion"


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Yield a running system."""
    with Services(tmp_path / "data") as running:
        yield running


def fill(client: Client, folder: Path) -> None:
    """Create a model with two versions that predict 1 and 2, move the champion to the first, and start a run."""
    for number in (1, 2):
        client.versions.register("m", path=write_constant_model(folder / f"v{number}", number))
    client.aliases.move(CHAMPION, 1)
    with client.runs.start("e") as run:
        run.log_metric("loss", 0.5)


def read_state(client: Client) -> list[object]:
    """Return the contents of the read models."""
    return [
        *client.models.list(),
        *client.versions.list("m"),
        *client.aliases.history("m"),
        *client.runs.search(),
        *client.audit.list(limit=None),
    ]


def expect_equal_rebuild(client: Client) -> None:
    """Fail when a read model differs from its rebuild."""
    for projection in client.system.status().projections:
        *_, last = client.system.rebuild(projection.name)
        assert last.done
        assert last.live_digest == last.rebuilt_digest


def move_back_and_forth(client: Client, times: int) -> None:
    """Move the champion a number of times."""
    for _ in range(times):
        client.aliases.move(CHAMPION, 3 - client.aliases.resolve(CHAMPION).version)


def test_killed_system_restarts_with_same_state(services: Services, tmp_path: Path) -> None:
    with services.connect("user") as client:
        fill(client, tmp_path)
        before = read_state(client)
        services.kill()
        services.start()
        assert read_state(client) == before


def test_graceful_stop_exits_0_and_fails_no_call(services: Services, tmp_path: Path) -> None:
    enough = threading.Event()

    def write_and_read() -> None:
        while not enough.is_set():
            move_back_and_forth(client, 1)

    def read() -> None:
        while not enough.is_set():
            client.versions.list("m")

    with services.connect("user") as client, Pod(services.address, tmp_path / "pod", CHAMPION) as pod:
        fill(client, tmp_path)
        pod.start()
        pod.ready()
        with ThreadPoolExecutor(4) as pool, client.aliases.watch("m"):
            busy = [pool.submit(work) for work in [write_and_read, *[read] * 3]]
            until(lambda: len(client.aliases.history("m")) > 10, "some moves")
            assert services.stop() == 0
            assert pod.program.terminate() == 0
            services.start()
            enough.set()
            for work in busy:
                work.result()
        assert services.stop() == 0


def test_second_system_on_same_directory_is_rejected_with_owner(services: Services) -> None:
    second = Services(services.data)
    program = second.spawn()
    assert program.wait() == 1
    assert f"process {services.program.pid}" in program.errors
    assert services.running


def test_missing_rows_are_rebuilt_from_log(services: Services, tmp_path: Path) -> None:
    with services.connect("user") as client:
        fill(client, tmp_path)
        before = read_state(client)
        assert services.stop() == 0
        shutil.rmtree(services.data / "rows")
        services.start()
        assert read_state(client) == before
        expect_equal_rebuild(client)


def lose_tail(services: Services, tmp_path: Path) -> tuple[list[object], list[object]]:
    """Put an older copy of the log below newer rows; return what was shown then, and what was shown last."""
    with services.connect("user") as client:
        fill(client, tmp_path)
        then = read_state(client)
        assert services.stop() == 0
        shutil.copytree(services.data / "nats", tmp_path / "older")
        services.start()
        move_back_and_forth(client, 5)
        last = read_state(client)
        assert services.stop() == 0
    shutil.rmtree(services.data / "nats")
    (tmp_path / "older").rename(services.data / "nats")
    return then, last


ACCEPTED = ("--accept-log-loss", "registry", "--accept-log-loss", "tracking")


def expect_log_lost(services: Services) -> None:
    """Fail unless a start is refused because a log lost events."""
    before = services.data.with_suffix(".log").stat().st_size
    program = services.spawn()
    until(lambda: not program.running, "the start is refused", 60.0)
    program.kill()
    with services.data.with_suffix(".log").open() as log:
        log.seek(before)
        assert "LOG_LOST" in log.read()


def test_rows_ahead_of_truncated_log_are_set_aside_on_acceptance(services: Services, tmp_path: Path) -> None:
    then, last = lose_tail(services, tmp_path)
    expect_log_lost(services)
    services.start(*ACCEPTED)
    with services.connect("user") as client:
        assert [one for one in read_state(client) if "LogEpochBegan" not in str(one)] == then != last
        move_back_and_forth(client, 3)
        expect_equal_rebuild(client)


def test_rows_of_other_history_are_set_aside_on_acceptance(services: Services, tmp_path: Path) -> None:
    """Replace the lost events, up to the position of the rows, with other ones."""
    lose_tail(services, tmp_path)
    count = 5
    asyncio.run(append_moves(services.data, count))
    expect_log_lost(services)
    services.start(*ACCEPTED)
    with services.connect("user") as client:
        aliases = [change.alias for change in client.aliases.history("m")]
        assert aliases == ["elsewhere"] * count + ["champion"]
        expect_equal_rebuild(client)


async def append_moves(data: Path, count: int) -> None:
    """Append moves of an alias to the log itself."""
    async with EmbeddedNats(data / "nats") as nats, open_log(nats.address, registry.EVENTS, "registry") as log:
        for _ in range(count):
            moved = v1.AliasMoved(model="m", alias="elsewhere", to_version=1, to_digest=f"sha256:{'0' * 64}")
            event_id = uuid.uuid4().hex
            await log.append([NewEvent("model/m", moved, Metadata("another"), event_id, event_id)])


@pytest.mark.parametrize("quiet", [False, True], ids=["after it has followed events", "before it has"])
def test_log_truncated_under_running_system_is_rejected(services: Services, tmp_path: Path, quiet: bool) -> None:
    store = services.data / "nats" / "store"
    with services.connect("user") as client:
        fill(client, tmp_path)
        assert services.stop() == 0
        shutil.copytree(store, tmp_path / "older")
        services.start()
        move_back_and_forth(client, 5)
        if quiet:
            assert services.stop() == 0
            services.start()
    services.kill_nats()
    store.rename(tmp_path / "newer")
    (tmp_path / "older").rename(store)
    until(lambda: fails_or_reads_log(services), "nobody is shown what the log does not hold", 4.0)
    services.kill()
    expect_log_lost(services)


def fails_or_reads_log(services: Services) -> bool:
    """Return whether a read fails, or shows the state of the log as it is."""
    if not services.running:
        return True
    with services.connect("reader", timeout=1.0) as client:
        try:
            (head,) = [log.head for log in client.system.status().logs if log.name == "registry"]
            return client.aliases.resolve(CHAMPION).revision <= head
        except rf.Unavailable as refusal:
            return refusal.reason != "DEADLINE_EXCEEDED"


def test_pod_persists_assignment_before_acknowledging(services: Services, tmp_path: Path) -> None:
    with services.connect("user") as client, Pod(services.address, tmp_path / "pod", CHAMPION) as pod:
        fill(client, tmp_path)
        pod.start()
        pod.ready()
        written = LastKnownGood(tmp_path / "pod" / "cache", services.address)

        def acknowledged() -> int:
            (deployment,) = client.deployments.list("m")
            return deployment.pods[0].revision

        for number in range(60):
            revision = client.aliases.move(CHAMPION, 2 - number % 2).revision
            until(lambda: acknowledged() >= revision, "the pod says that it serves it")  # noqa: B023 - called at once
            assert [assignment.revision for assignment in written.read()] >= [revision]


def test_pods_sharing_a_cache_keep_each_others_state(tmp_path: Path) -> None:
    async def serve(model: str) -> None:
        written = LastKnownGood(tmp_path, "localhost:50051")
        for revision in range(1, 51):
            target = v1.Target(model=model, alias="champion")
            await written.write([v1.Assignment(target=target, version=1, revision=revision)])
            assert (model, revision) in [(one.target.model, one.revision) for one in written.read()]

    with ThreadPoolExecutor() as pool:
        for serving in [pool.submit(asyncio.run, serve(model)) for model in ("red", "blue")]:
            serving.result()


def test_pod_starts_offline_from_last_acknowledged_assignment(services: Services, tmp_path: Path) -> None:
    with services.connect("user") as client, Pod(services.address, tmp_path / "pod", CHAMPION) as pod:
        fill(client, tmp_path)
        pod.start()
        pod.ready()
        newest = client.aliases.move(CHAMPION, 2)
        pod.program.line(f"revision {newest.revision}")
        until(lambda: client.deployments.list("m")[0].pods[0].revision == newest.revision, "acknowledged")
        pod.kill()
        services.kill()
        pod.start()
        pod.ready()
        with open_channel(pod.address) as channel:
            answer = ask(GRPCInferenceServiceStub(channel), CHAMPION)
            assert (answer.label, answer.version, answer.revision) == (2, 2, newest.revision)
            services.start()
            latest = client.aliases.move(CHAMPION, 1)
            until(
                lambda: ask(GRPCInferenceServiceStub(channel), CHAMPION).revision == latest.revision, "it follows again"
            )
