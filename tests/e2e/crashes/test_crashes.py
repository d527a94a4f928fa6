"""SIGKILL of the services, of nats-server and of the pod, under load: acknowledged writes stay, and nothing else.

ROLLFORWARD_CRASH_ROUNDS and ROLLFORWARD_CRASH_SEED make other and longer schedules of kills.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from rollforward import v1
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.history import Logs, changes_in, check_acknowledged, check_nothing_else, read_logs
from tests.e2e.load import Load, Watcher, ask
from tests.e2e.models import write_constant_model
from tests.e2e.processes import Pod, Services
from tests.e2e.program import until

ROUNDS = int(os.environ.get("ROLLFORWARD_CRASH_ROUNDS", "2"))
SEED = int(os.environ.get("ROLLFORWARD_CRASH_SEED", "20"))
TARGET = "served@champion"
PROJECTIONS = {
    *("tracking", "registry", "registry-runs", "named-artifacts", "serving", "serving-assignments"),
    *("audit-tracking", "audit-registry", "audit-serving", "webhooks", "audit-webhooks"),
}

pytestmark = [pytest.mark.timeout(100 + 40 * ROUNDS), pytest.mark.xdist_group("crashes")]


@dataclass
class Scene:
    """A running system with a pod, under load."""

    services: Services
    pod: Pod
    load: Load
    dice: random.Random
    restarts: list[float] = field(default_factory=list)
    nats_kills: int = 0

    def progress(self) -> None:
        """Wait until some more commands were answered."""
        goal = len(self.load.history) + self.dice.randrange(5, 80)
        until(lambda: self.load.is_well() and len(self.load.history) >= goal, "more commands answered")

    def answers(self) -> None:
        """Wait until the pod has answered some more requests."""
        goal = len(self.load.predictions) + self.dice.randrange(10, 50)
        until(lambda: self.load.is_well() and len(self.load.predictions) >= goal, "more predictions")

    def restart_services(self) -> None:
        """Start the services."""
        self.restarts.append(self.services.start())
        self.nats_kills = 0

    def crash_services(self) -> None:
        """Kill the services."""
        self.services.kill()
        self.answers()
        self.restart_services()

    def crash_services_as_they_start(self) -> None:
        """Kill the services, and again while they start."""
        self.services.kill()
        program = self.services.spawn()
        moment = self.dice.uniform(0.0, 1.0)
        begun = len(self.load.predictions)
        until(lambda: self.load.is_well() and len(self.load.predictions) > begun + 200 * moment, "a moment has passed")
        program.kill()
        self.restart_services()

    def crash_nats(self) -> None:
        """Kill nats-server; not too often, because its supervisor gives up on repeated deaths."""
        if self.nats_kills == 4:
            self.services.kill()
            self.restart_services()
        self.nats_kills += 1
        self.services.kill_nats()

    def crash_nats_and_services(self) -> None:
        """Kill nats-server, and the services while it is down."""
        self.services.kill_nats()
        self.answers()
        self.services.kill()
        self.restart_services()

    def crash_pod(self) -> None:
        """Kill the pod."""
        self.pod.kill()
        self.pod.start()
        self.pod.ready()

    def crash_pod_and_services(self) -> None:
        """Kill both, and start the pod alone."""
        self.services.kill()
        self.crash_pod()
        self.answers()
        self.restart_services()

    @property
    def crashes(self) -> list[Callable[[], None]]:
        """Return all ways to crash."""
        return [
            self.crash_services,
            self.crash_services_as_they_start,
            self.crash_nats,
            self.crash_nats_and_services,
            self.crash_pod,
            self.crash_pod_and_services,
        ]


@dataclass(frozen=True)
class Aftermath:
    """The state after all crashes: the running system, the results that clients received, the logs."""

    scene: Scene
    logs: Logs
    watched: dict[str, tuple[int, list[v1.AliasChange]]]
    digests: dict[str, tuple[str, str]]

    @property
    def load(self) -> Load:
        """Return the clients."""
        return self.scene.load


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """Crash everything again and again, in another order each time."""
    home = tmp_path_factory.mktemp("crashes")
    with Services(home / "data") as services, Pod(services.address, home / "pod", TARGET) as pod:
        scene = Scene(services, pod, Load(services.address), random.Random(SEED))
        try:
            watchers = _begin(scene, home)
            for _ in range(ROUNDS):
                for crash in scene.dice.sample(scene.crashes, len(scene.crashes)):
                    scene.progress()
                    crash()
            scene.progress()
        finally:
            scene.load.finish()
        watched = _end(scene, watchers)
        scene.load.close()
        digests = _rebuild_all(services)
        assert services.stop() == 0
        logs = read_logs(services.data)
        services.start()
        yield Aftermath(scene, logs, watched, digests)


def _begin(scene: Scene, home: Path) -> dict[str, Watcher]:
    load, services = scene.load, scene.services
    client = load.client("setup")
    registry, tracking = client.sdk.connection.registry, client.sdk.connection.tracking
    constants = [client.sdk.artifacts.upload(write_constant_model(home / f"v{n}", n))[0] for n in (1, 2)]
    for model in ("served", "fought-over", "quiet"):
        client.send(registry.CreateModel, v1.CreateModelRequest(name=model))
        for digest in constants:
            client.send(registry.RegisterVersion, v1.RegisterVersionRequest(model=model, digest=digest))
    experiment = client.send(tracking.CreateExperiment, v1.CreateExperimentRequest(name="crashes")).experiment_id
    first = v1.MoveAliasRequest(model="served", alias="champion", version=1)
    client.send(registry.MoveAlias, first)
    scene.pod.start()
    scene.pod.ready()
    watchers = {
        "": Watcher(load.client("watcher").sdk, from_revision=0),
        "served": Watcher(load.client("watcher").sdk, "served"),
    }
    load.move("mover", "served", "champion")
    load.move("mover-of-another", "quiet", "champion")
    load.move("red", "fought-over", "champion")
    load.move("blue", "fought-over", "champion")
    for number in range(2):
        load.log(f"logger-{number}", experiment)
    load.register("registrar", "quiet", constants[0])
    (home / "files").mkdir()
    load.upload("uploader", experiment, home / "files")
    load.predict(scene.pod.address, TARGET)
    assert services.running
    return watchers


def _end(scene: Scene, watchers: dict[str, Watcher]) -> dict[str, tuple[int, list[v1.AliasChange]]]:
    moves = [answer for answer in scene.load.history.acknowledged if isinstance(answer.request, v1.MoveAliasRequest)]
    watched = {}
    for model, watcher in watchers.items():
        last = max(answer.response.position for answer in moves if model in ("", answer.request.model))
        watcher.expect(last)
        watched[model] = watcher.began_at, list(watcher.close())
    return watched


def _rebuild_all(services: Services) -> dict[str, tuple[str, str]]:
    digests = {}
    with services.connect("auditor") as connection:
        for projection in connection.system.status().projections:
            *_, last = connection.system.rebuild(projection.name)
            assert last.done
            digests[projection.name] = last.live_digest, last.rebuilt_digest
    return digests


def test_acknowledged_writes_are_logged_once_and_unchanged(aftermath: Aftermath) -> None:
    history = aftermath.load.history
    assert len(history.acknowledged) > 100 * ROUNDS
    check_acknowledged(history, aftermath.logs)


def test_log_has_no_other_writes(aftermath: Aftermath) -> None:
    history = aftermath.load.history
    assert {answer.refusal for answer in history.refused} == {"WRONG_REVISION"}
    check_nothing_else(history, aftermath.logs, frozenset(aftermath.load.actors))


def test_watch_from_start_delivers_every_change_once_in_order(aftermath: Aftermath) -> None:
    _, changes = aftermath.watched[""]
    assert [(change.revision, change.to_version) for change in changes] == changes_in(aftermath.logs)


def test_watch_from_now_delivers_every_later_change_of_model(aftermath: Aftermath) -> None:
    began_at, changes = aftermath.watched["served"]
    expected = changes_in(aftermath.logs, lambda payload: payload.model == "served")
    assert [(change.revision, change.to_version) for change in changes] == [
        change for change in expected if change[0] > began_at
    ]


def test_read_models_equal_rebuild(aftermath: Aftermath) -> None:
    assert aftermath.digests.keys() == PROJECTIONS
    for name, (live, rebuilt) in aftermath.digests.items():
        assert live, name
        assert live == rebuilt, name


def test_acknowledged_artifacts_download_unchanged(aftermath: Aftermath, tmp_path: Path) -> None:
    assert aftermath.load.uploads
    with aftermath.scene.services.connect("auditor") as connection:
        for number, (digest, content) in enumerate(aftermath.load.uploads.items()):
            (file,) = connection.artifacts.download(digest, tmp_path / str(number)).iterdir()
            assert file.read_bytes() == content


def test_services_recovered_from_each_kill(aftermath: Aftermath) -> None:
    assert len(aftermath.scene.restarts) >= 4 * ROUNDS


def test_pod_failed_only_requests_cut_off_by_its_crashes(aftermath: Aftermath) -> None:
    pod, predictions = aftermath.scene.pod, aftermath.load.predictions
    failed = [one for one in predictions if one.failure and not pod.was_down(one.begun, one.ended)]
    assert failed == []
    assert len(pod.outages) == 1 + 2 * ROUNDS
    assert all(one.label == one.version for one in predictions if not one.failure)


def test_pod_never_regressed_below_acknowledged_revision(aftermath: Aftermath) -> None:
    payloads = [(event.time, event.data) for event in aftermath.logs["serving"]]
    applied = [(time, payload.revision) for time, payload in payloads if isinstance(payload, v1.AssignmentApplied)]
    starts = aftermath.scene.pod.starts
    for life, (start, end) in enumerate(zip(starts, [*starts[1:], max(starts) * 2], strict=True)):
        newest = max((revision for time, revision in applied if time < start), default=0)
        answered = [one for one in aftermath.load.predictions if start < one.answered_at < end and not one.failure]
        assert answered, life
        for one in answered:
            assert one.revision >= newest, f"life {life}: {one} after {newest}"
            newest = one.revision


def test_pod_finally_serves_version_in_log(aftermath: Aftermath) -> None:
    last, version = changes_in(aftermath.logs, lambda payload: payload.model == "served")[-1]
    with grpc.insecure_channel(aftermath.scene.pod.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        until(lambda: ask(stub, TARGET).revision == last, "the pod serves the newest assignment")
        assert ask(stub, TARGET).label == version
