"""The lifecycle of a model: train, track, gate, register, serve, move, roll back, audit; by SDK and command line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import rollforward as rf
from rollforward import Client, v1
from rollforward._transport.channel import open_channel
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.e2e.load import Load, Prediction, Watcher, ask
from tests.e2e.processes import ROLLFORWARD, Pod, Services
from tests.e2e.program import until
from tests.timeouts import scaled

MODEL = "diagnosis"
CHAMPION = f"{MODEL}@champion"
GATE = "run.metrics.accuracy > 0.8"
ESTIMATORS = {
    "guess": DummyClassifier(strategy="most_frequent"),
    "stump": DecisionTreeClassifier(max_depth=1, random_state=0),
    "line": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
}


@dataclass
class Lifecycle:
    """The steps of the lifecycle, and their results."""

    services: Services
    client: Client
    pod: Pod
    folders: dict[str, Path] = field(default_factory=dict)
    runs: dict[str, v1.Run] = field(default_factory=dict)
    versions: list[v1.Version] = field(default_factory=list)
    refusal: rf.PreconditionFailed | None = None
    aliases: list[v1.Alias] = field(default_factory=list)
    row: list[float] = field(default_factory=list)
    answers: dict[int, int] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    watched: Sequence[v1.AliasChange] = ()

    def train(self, name: str, folder: Path) -> None:
        """Run one training job."""
        data = load_breast_cancer()
        train_rows, test_rows = np.arange(0, 569, 2), np.arange(1, 569, 2)
        estimator = ESTIMATORS[name].fit(data.data[train_rows], data.target[train_rows])
        accuracy = float(estimator.score(data.data[test_rows], data.target[test_rows]))
        folder.mkdir()
        skops.io.dump(estimator, folder / "model.skops")
        (folder / "input_example.json").write_text(json.dumps(data.data[:2].tolist()))
        with self.client.runs.start("breast-cancer", name=name) as run:
            run.log_params({"estimator": type(estimator).__name__, "rows": len(train_rows)})
            for step in range(10):
                run.log_metric("accuracy", accuracy * step / 9, step=step)
            run.log_artifacts(folder, "model")
        self.folders[name] = folder
        self.runs[name] = self.client.runs.get(run)

    def register(self) -> None:
        """Register the runs that pass the gate."""
        self.client.models.create(MODEL, gate=GATE, reason="only good ones")
        for run in self.runs.values():
            try:
                self.versions.append(self.client.versions.register(MODEL, run, artifact="model"))
            except rf.PreconditionFailed as refusal:
                self.refusal = refusal

    def choose_row(self) -> None:
        """Choose a row of real data that the two versions predict differently, and note both predictions."""
        rows = load_breast_cancer().data
        stump, line = (ESTIMATORS[name].predict(rows) for name in ("stump", "line"))
        chosen = int(np.flatnonzero(stump != line)[0])
        self.row = rows[chosen].tolist()
        self.answers = {1: int(stump[chosen]), 2: int(line[chosen])}

    def serve_and_move(self) -> None:
        """Move the champion forward and back under load."""
        load = Load(self.services.address)
        self.aliases = [self.client.aliases.move(CHAMPION, self.versions[0], expected_revision=0)]
        watcher = Watcher(self.client, CHAMPION)
        self.pod.start()
        self.pod.ready()
        try:
            for _ in range(3):
                load.predict(self.pod.address, CHAMPION, self.row)
            wait_for_predictions(load, self.aliases[0])
            forward = {"reason": "beats v1", "expected_revision": self.aliases[0].revision}
            self.aliases.append(self.client.aliases.move(CHAMPION, 2, **forward))  # type: ignore[arg-type]
            wait_for_predictions(load, self.aliases[1])
            self.client.aliases.rollback(CHAMPION, reason="false alarms")
            self.aliases.append(self.client.aliases.resolve(CHAMPION))
            wait_for_predictions(load, self.aliases[2])
            watcher.expect(self.aliases[2].revision)
        finally:
            load.finish()
            self.watched = watcher.close()
        self.predictions = load.predictions


def wait_for_predictions(load: Load, alias: v1.Alias) -> None:
    """Wait until an assignment has answered many requests."""
    until(
        lambda: load.is_well() and sum(one.revision == alias.revision for one in load.predictions) > 100,
        f"v{alias.version} answers",
    )


@pytest.fixture(scope="module")
def lifecycle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lifecycle]:
    """Run the whole lifecycle once."""
    home = tmp_path_factory.mktemp("lifecycle")
    with (
        Services(home / "data") as services,
        Client(services.address, actor="ada", correlation_id="the-story") as client,
        Pod(services.address, home / "pod", CHAMPION) as pod,
    ):
        lifecycle = Lifecycle(services, client, pod)
        for name in ESTIMATORS:
            lifecycle.train(name, home / name)
        lifecycle.register()
        lifecycle.choose_row()
        lifecycle.serve_and_move()
        yield lifecycle


def test_runs_are_tracked(lifecycle: Lifecycle) -> None:
    runs = lifecycle.client.runs.search("breast-cancer")
    assert [run.name for run in reversed(runs)] == list(ESTIMATORS)
    for run in runs:
        assert run.status == v1.RUN_STATUS_FINISHED
        assert (run.actor, run.params["rows"]) == ("ada", "285")
        points = lifecycle.client.metrics.history(run, "accuracy")
        assert list(points.steps) == list(range(10))
        assert points.values[-1] == run.metrics["accuracy"].last == run.metrics["accuracy"].max


def test_gate_registers_passing_runs_and_refuses_others_with_evidence(lifecycle: Lifecycle) -> None:
    assert [(version.version, version.run_id) for version in lifecycle.versions] == [
        (number, lifecycle.runs[name].run_id) for number, name in enumerate(("stump", "line"), 1)
    ]
    assert all(version.evidence.passed and version.evidence.expression == GATE for version in lifecycle.versions)
    assert lifecycle.refusal is not None
    assert lifecycle.refusal.reason == "GATE_FAILED"
    assert lifecycle.refusal.evidence is not None
    assert lifecycle.refusal.evidence.run.metrics["accuracy"] == lifecycle.runs["guess"].metrics["accuracy"].last


def test_no_prediction_fails_during_move_and_rollback(lifecycle: Lifecycle) -> None:
    assert len(lifecycle.predictions) > 300
    assert [one for one in lifecycle.predictions if one.failure] == []
    assert {one.revision: one.version for one in lifecycle.predictions} == {
        alias.revision: alias.version for alias in lifecycle.aliases
    }


def test_predictions_match_reported_version(lifecycle: Lifecycle) -> None:
    assert lifecycle.answers[1] != lifecycle.answers[2]
    assert all(one.label == lifecycle.answers[one.version] for one in lifecycle.predictions)


def test_alias_history_records_actor_reason_and_versions(lifecycle: Lifecycle) -> None:
    changes = lifecycle.client.aliases.history(CHAMPION)
    first, second, third = reversed(changes)
    assert [(change.from_version, change.to_version, change.reason) for change in (first, second, third)] == [
        (0, 1, ""),
        (1, 2, "beats v1"),
        (2, 1, "false alarms"),
    ]
    assert [change.cause for change in (first, second)] == [v1.ALIAS_CAUSE_REQUEST] * 2
    assert (third.cause, third.restored_revision) == (v1.ALIAS_CAUSE_ROLLBACK, first.revision)
    assert {change.actor for change in changes} == {"ada"}
    assert list(reversed(changes)) == [first, *lifecycle.watched]


def test_past_is_resolved_by_revision_and_time(lifecycle: Lifecycle) -> None:
    first, second, third = lifecycle.aliases
    client = lifecycle.client
    assert client.aliases.resolve(CHAMPION).revision == third.revision
    assert client.aliases.resolve(CHAMPION, second.revision) == second
    assert client.aliases.resolve(CHAMPION, third.revision - 1) == second
    assert client.aliases.resolve(CHAMPION, second.moved_at.ToJsonString()) == second
    with pytest.raises(rf.NotFound) as unset:
        client.aliases.resolve(CHAMPION, first.revision - 1)
    assert unset.value.reason == "ALIAS_NOT_FOUND"


def test_downloads_equal_trained_artifacts(lifecycle: Lifecycle, tmp_path: Path) -> None:
    for place, (reference, name) in enumerate(
        {
            f"models:/{CHAMPION}": "stump",
            f"models:/{MODEL}/2": "line",
            f"runs:/{lifecycle.runs['guess'].run_id}/model": "guess",
            lifecycle.versions[1].digest: "line",
        }.items()
    ):
        found = lifecycle.client.artifacts.download(reference, tmp_path / str(place))
        assert contents(found) == contents(lifecycle.folders[name])


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_deployment_reports_version_served_by_pod(lifecycle: Lifecycle) -> None:
    def pods() -> list[v1.PodStatus]:
        (deployment,) = lifecycle.client.deployments.list(MODEL)
        assert deployment.desired.revision == lifecycle.aliases[-1].revision
        return list(deployment.pods)

    until(lambda: [pod.state for pod in pods()] == [v1.POD_STATE_CURRENT], "the pod says that it is current")
    assert [(pod.version, pod.revision, pod.endpoint) for pod in pods()] == [
        (1, lifecycle.aliases[-1].revision, lifecycle.pod.address)
    ]


def test_audit_lists_every_event(lifecycle: Lifecycle) -> None:
    events = lifecycle.client.audit.list(correlation_id="the-story", log="registry", limit=None)
    assert [event.type.rpartition(".")[2] for event in reversed(events)] == [
        "ModelCreated",
        "RegistrationGateSet",
        "VersionRefused",
        *["VersionRegistered"] * 2,
        *["AliasMoved"] * 3,
    ]
    assert {(event.actor, event.stream) for event in events} == {("ada", f"model/{MODEL}")}
    assert [event.reason for event in reversed(events)][-2:] == ["beats v1", "false alarms"]
    applied = lifecycle.client.audit.list(type="AssignmentApplied")
    assert len(applied) == len(lifecycle.aliases)


def test_pod_rejects_invalid_requests_and_keeps_serving(lifecycle: Lifecycle) -> None:
    with open_channel(lifecycle.pod.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert ask(stub, CHAMPION, [1.0, 2.0]).failure.startswith("INVALID_ARGUMENT")
        assert ask(stub, "nobody@champion", lifecycle.row).failure.startswith("NOT_FOUND")
        assert ask(stub, CHAMPION, lifecycle.row).label == lifecycle.answers[1]


def command(lifecycle: Lifecycle, *arguments: str, expected: int = 0) -> Any:
    """Run the command line; return its JSON, or the error message of a failure."""
    environment = {**os.environ, "ROLLFORWARD_URI": lifecycle.services.address, "ROLLFORWARD_ACTOR": "grace"}
    done = subprocess.run(
        [ROLLFORWARD, "-o", "json", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )
    assert done.returncode == expected, done.stderr
    return json.loads(done.stdout) if not expected else done.stderr


def test_command_line_shows_same_state(lifecycle: Lifecycle) -> None:
    first, second, third = lifecycle.aliases
    assert command(lifecycle, "aliases", "get", CHAMPION)["revision"] == third.revision
    assert command(lifecycle, "aliases", "get", CHAMPION, "--at", str(second.revision))["version"] == 2
    history = command(lifecycle, "aliases", "history", CHAMPION)
    assert [change["revision"] for change in history] == [third.revision, second.revision, first.revision]
    assert len(command(lifecycle, "runs", "list", "--experiment", "breast-cancer")) == len(ESTIMATORS)
    events = command(lifecycle, "audit", "list", "--type", "AliasMoved", "--actor", "ada")
    assert [event["position"] for event in events] == [third.revision, second.revision, first.revision]
    rebuilt = command(lifecycle, "rebuild", "registry")
    assert rebuilt["live_digest"] == rebuilt["rebuilt_digest"] != ""


def test_command_line_moves_rejects_and_rolls_back(lifecycle: Lifecycle) -> None:
    other = f"{MODEL}@candidate"
    moved = command(lifecycle, "aliases", "move", other, "v1", "--expect-revision", "0", "--reason", "first")
    assert (moved["version"], moved["actor"]) == (1, "grace")
    assert "WRONG_REVISION" in command(lifecycle, "aliases", "move", other, "2", "--expect-revision", "0", expected=1)
    assert "VERSION_NOT_FOUND" in command(lifecycle, "aliases", "move", other, "9", expected=1)
    assert "INVALID_ALIAS" in command(lifecycle, "aliases", "move", f"{MODEL}@latest", "1", expected=2)
    command(lifecycle, "aliases", "move", other, "zwei", expected=2)
    once = ["aliases", "move", other, "2", "--request-id", "the-same"]
    assert command(lifecycle, *once) == command(lifecycle, *once)
    assert "REQUEST_ID_REUSED" in command(lifecycle, *once[:3], "1", *once[4:], expected=1)
    (back,) = command(lifecycle, "rollback", other, "--to", str(moved["revision"]))["changes"]
    assert (back["to_version"], back["restored_revision"]) == (1, moved["revision"])
    assert [change["to_version"] for change in command(lifecycle, "aliases", "history", other)] == [1, 2, 1]
