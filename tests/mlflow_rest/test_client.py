"""MLflow's own client, unmodified, over HTTP and over its plugin's gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

import rollforward.mlflow
import rollforward.mlflow.transport
from rollforward import v1
from tests.e2e.program import until
from tests.integration.up import Up, new_id, up
from tests.servers.ports import free_port

NOW = (("rollforward-min-position", "head"),)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("mlflow") / "data") as services:
        yield services
        assert "Traceback" not in services.program.errors


@pytest.fixture(params=["http", "rollforward"])
def client(
    services: Up, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> MlflowClient:
    uri = services.http if request.param == "http" else f"rollforward://{services.address}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return MlflowClient()


def send(services: Up, method: str, path: str, body: object, **headers: str) -> tuple[int, Any]:
    """Send a request as a client in another language would."""
    address = urlsplit(services.http)
    connection = HTTPConnection(address.hostname or "", address.port)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(
        method, f"/api/2.0/mlflow/{path}", json.dumps(body), {"Content-Type": "application/json", **named}
    )
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_fluent_run_is_logged_and_found(client: MlflowClient) -> None:
    name = new_id()
    mlflow.set_experiment(name)
    with mlflow.start_run(run_name="parent", description="about it") as parent:
        mlflow.log_params({"depth": 7, "model": "tree"})
        mlflow.log_metrics({"auc": 0.5}, step=0)
        mlflow.log_metric("auc", 0.75, step=1)
        mlflow.set_tags({"team": "fraud"})
        with mlflow.start_run(nested=True) as child:
            mlflow.log_param("depth", 8)
    run = client.get_run(parent.info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"depth": "7", "model": "tree"}
    assert run.data.metrics == {"auc": 0.75}
    assert run.data.tags["mlflow.note.content"] == "about it"
    assert [point.value for point in client.get_metric_history(parent.info.run_id, "auc")] == [0.5, 0.75]
    experiment = client.get_experiment_by_name(name)
    assert experiment
    found = client.search_runs([experiment.experiment_id], "metrics.auc > 0.6 AND tags.team = 'fraud'")
    assert [run.info.run_id for run in found] == [parent.info.run_id]
    assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_run_without_an_experiment_is_in_the_default_one(client: MlflowClient) -> None:
    assert client.create_run("0").info.experiment_id == "0"
    default = client.get_experiment("0")
    assert default.name == "Default"


def test_artifacts_come_back_as_they_were(client: MlflowClient, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    contents = {"a.txt": b"hello", "deep/b.bin": bytes(range(256)) * 20_000, "deep/empty": b""}
    for path, data in contents.items():
        (source / path).write_bytes(data)
    run_id = client.create_run("0").info.run_id
    client.log_artifacts(run_id, str(source), "files")
    client.log_artifact(run_id, str(source / "a.txt"))
    assert [entry.path for entry in client.list_artifacts(run_id)] == ["a.txt", "files"]
    assert [(entry.path, entry.is_dir) for entry in client.list_artifacts(run_id, "files")] == [
        ("files/a.txt", False),
        ("files/deep", True),
    ]
    copy = Path(client.download_artifacts(run_id, "files", str(tmp_path)))
    assert {path: (copy / path).read_bytes() for path in contents} == contents


def test_registered_version_is_downloaded_by_alias_as_it_was_registered(client: MlflowClient, tmp_path: Path) -> None:
    name, run_id = new_id(), client.create_run("0").info.run_id
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("first")
    client.log_artifacts(run_id, str(tmp_path / "model"), "model")
    client.create_registered_model(name, tags={"team": "fraud"}, description="finds fraud")
    version = client.create_model_version(name, f"runs:/{run_id}/model", run_id, description="v1")
    client.set_registered_model_alias(name, "champion", version.version)
    (tmp_path / "model" / "weights").write_text("second")
    client.log_artifacts(run_id, str(tmp_path / "model"), "model")
    copy = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(tmp_path / "copy")))
    assert (copy / "weights").read_text() == "first"
    assert [model.name for model in client.search_registered_models(f"name = '{name}'")] == [name]
    assert client.get_model_version_by_alias(name, "champion").run_id == run_id


def test_files_of_a_logged_model_that_are_uploaded_at_once_are_all_kept(client: MlflowClient, tmp_path: Path) -> None:
    model = client.create_logged_model("0", name="m")
    for number in range(24):
        (tmp_path / f"{number}.txt").write_text(str(number))
    with ThreadPoolExecutor(8) as pool:
        paths = [str(tmp_path / f"{number}.txt") for number in range(24)]
        list(pool.map(lambda path: client.log_model_artifact(model.model_id, path), paths))
    client.finalize_logged_model(model.model_id, "READY")
    names = {entry.path for entry in client.list_logged_model_artifacts(model.model_id)}
    assert names == {f"{number}.txt" for number in range(24)}


def test_version_of_a_logged_model_belongs_to_its_run(client: MlflowClient, tmp_path: Path, services: Up) -> None:
    name, run_id = new_id(), client.create_run("0").info.run_id
    (tmp_path / "MLmodel").write_text("flavors: {}")
    model = client.create_logged_model("0", name="m", source_run_id=run_id)
    client.log_model_artifact(model.model_id, str(tmp_path / "MLmodel"))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model(name)
    client.create_model_version(name, f"models:/{model.model_id}", run_id, model_id=model.model_id)
    version = services.registry.GetVersion(v1.GetVersionRequest(model=name, version=1), metadata=NOW).version
    assert version.run_id == run_id
    assert version.digest
    copy = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/1", dst_path=str(tmp_path / "copy")))
    assert (copy / "MLmodel").read_text() == "flavors: {}"


def versions(client: MlflowClient, count: int) -> str:
    """Create a registered model with so many versions, and return its name."""
    name = new_id()
    client.create_registered_model(name)
    for number in range(count):
        client.create_model_version(name, f"s3://bucket/{number}")
    return name


def test_actor_and_reason_of_a_move_are_in_the_history(client: MlflowClient, services: Up) -> None:
    name = versions(client, 1)
    move = {"name": name, "alias": "champion", "version": "1"}
    headers = {"Rollforward_Actor": "Zo%C3%AB", "Rollforward_Reason": "better%20recall"}
    assert send(services, "POST", "registered-models/alias", move, **headers) == (200, {})
    history = services.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=name, alias="champion"), metadata=NOW)
    assert [(change.actor, change.reason) for change in history.changes] == [("Zoë", "better recall")]


def test_move_from_another_revision_than_expected_changes_nothing(client: MlflowClient, services: Up) -> None:
    name = versions(client, 2)
    client.set_registered_model_alias(name, "champion", "1")
    resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(model=name, alias="champion"), metadata=NOW)
    revision = resolved.alias.revision
    move = {"name": name, "alias": "champion", "version": "2"}
    status, answer = send(services, "POST", "registered-models/alias", move, If_Match=f'"{revision - 1}"')
    assert (status, answer["error_code"]) == (409, "RESOURCE_CONFLICT")
    assert client.get_model_version_by_alias(name, "champion").version == "1"
    assert send(services, "POST", "registered-models/alias", move, If_Match=f'"{revision}"') == (200, {})
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    status, answer = send(services, "POST", "registered-models/alias", move, If_Match="soon")
    assert (status, answer["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_move_that_a_policy_refuses_is_a_denied_permission(client: MlflowClient, services: Up) -> None:
    name = versions(client, 1)
    policy = v1.Policy(name=new_id(), models=name, aliases="champion", reason_required=True)
    services.policies.SetPolicy(v1.SetPolicyRequest(policy=policy))
    with pytest.raises(MlflowException, match="REASON_REQUIRED") as caught:
        client.set_registered_model_alias(name, "champion", "1")
    assert caught.value.error_code == "PERMISSION_DENIED"


def test_unsupported_request_is_answered_at_once(services: Up) -> None:
    status, answer = send(services, "POST", "traces/search", {})
    assert (status, answer["error_code"]) == (404, "ENDPOINT_NOT_FOUND")


def test_write_over_grpc_is_seen_over_http_and_the_other_way_round(client: MlflowClient, services: Up) -> None:
    name = versions(client, 1)
    assert services.registry.GetModel(v1.GetModelRequest(name=name), metadata=NOW).model.latest_version == 1
    services.registry.SetDescription(v1.SetDescriptionRequest(model=name, description="by gRPC"))
    client.set_registered_model_tag(name, "a", "b")
    model = client.get_registered_model(name)
    assert (model.description, model.tags) == ("by gRPC", {"a": "b"})


def test_model_logged_over_one_uri_is_loaded_over_the_other(services: Up, tmp_path: Path) -> None:
    uris = [services.http, f"rollforward://{services.address}"]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("kept")
    for number, (writing, reading) in enumerate([uris, uris[::-1]]):
        name, writer = new_id(), MlflowClient(writing, writing)
        run_id = writer.create_run("0").info.run_id
        mlflow.set_tracking_uri(writing)
        writer.log_artifacts(run_id, str(tmp_path / "model"), "model")
        writer.create_registered_model(name)
        source = f"{writer.get_run(run_id).info.artifact_uri}/model"
        version = writer.create_model_version(name, source, run_id)
        writer.set_registered_model_alias(name, "champion", version.version)
        mlflow.set_tracking_uri(reading)
        mlflow.set_registry_uri(reading)
        copy = mlflow.artifacts.download_artifacts(f"models:/{name}@champion", dst_path=str(tmp_path / str(number)))
        assert (Path(copy) / "weights").read_text() == "kept"


def test_version_of_an_alias_is_current_whoever_changed_it(client: MlflowClient, services: Up) -> None:
    name = versions(client, 2)
    client.set_registered_model_alias(name, "champion", "1")
    for number in range(5):
        request = v1.SetDescriptionRequest(model=name, version=1, description=f"d{number}")
        services.registry.SetDescription(request)  # by gRPC: a read over REST does not wait for it
        text = f"d{number}"
        until(lambda text=text: client.get_model_version_by_alias(name, "champion").description == text, text)  # type: ignore[misc]
    client.set_model_version_tag(name, "1", "a", "b")
    assert client.get_model_version_by_alias(name, "champion").tags == {"a": "b"}
    client.set_registered_model_alias(name, "champion", "2")
    assert client.get_model_version_by_alias(name, "champion").version == "2"


def test_reason_of_a_block_is_in_the_history(services: Up) -> None:
    client = MlflowClient(f"rollforward://{services.address}", f"rollforward://{services.address}")
    name = versions(client, 1)
    with rollforward.mlflow.reason("better recall"):
        client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "other", "1")
    history = services.registry.ListAliasHistory(v1.ListAliasHistoryRequest(model=name), metadata=NOW)
    assert {(change.alias, change.reason) for change in history.changes} == {
        ("champion", "better recall"),
        ("other", ""),
    }


def test_files_logged_later_are_added_to_those_that_are_there(client: MlflowClient, tmp_path: Path) -> None:
    run_id = client.create_run("0").info.run_id
    for number in range(3):
        folder = tmp_path / f"part{number}"
        folder.mkdir()
        (folder / f"{number}.txt").write_text(str(number))
        (folder / "last.txt").write_text(str(number))
        client.log_artifacts(run_id, str(folder), "files")
    assert [entry.path for entry in client.list_artifacts(run_id, "files")] == [
        "files/0.txt",
        "files/1.txt",
        "files/2.txt",
        "files/last.txt",
    ]
    copy = Path(client.download_artifacts(run_id, "files/last.txt", str(tmp_path)))
    assert copy.read_text() == "2"


def test_plugin_answers_what_it_cannot_do_at_once(services: Up) -> None:
    client = MlflowClient(f"rollforward://{services.address}", f"rollforward://{services.address}")
    with pytest.raises(MlflowException) as caught:
        client.search_traces(locations=["0"])
    assert caught.value.error_code == "ENDPOINT_NOT_FOUND"
    with pytest.raises(MlflowException, match="expected rollforward://HOST:PORT"):
        MlflowClient("rollforward:nowhere").get_run("0" * 32)


def test_server_that_is_away_is_an_error_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollforward.mlflow.transport, "_connections", {})
    with pytest.raises(MlflowException) as caught:
        MlflowClient(f"rollforward://127.0.0.1:{free_port()}").get_run("0" * 32)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"


def test_import_of_mlflow_loads_neither_grpc_nor_the_stores() -> None:
    """MLflow loads its plugins when it is imported."""
    program = (
        "import sys, mlflow.tracking;"
        "print(sorted({name for name in sys.modules if name.startswith('rollforward.') or name == 'grpc'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "['rollforward.mlflow', 'rollforward.mlflow.change_reason']"
