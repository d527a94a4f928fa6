"""Artifacts through the whole system: garbage collection, parts of artifacts, and the command line."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import rollforward as rf
from rollforward import v1
from tests.e2e.program import until
from tests.integration.cli.command_line import SCRIPT, Cli, SampleData, answer, done, environment, refused
from tests.integration.up import SECONDS, Up, new_id, up


@pytest.fixture(scope="module")
def own_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a separate system, whose garbage no other test makes."""
    with up(tmp_path_factory.mktemp("own") / "data") as services:
        yield services


@pytest.fixture(scope="module")
def client(own_system: Up) -> Iterator[rf.Client]:
    """Connect a client to the separate system."""
    with rf.Client(own_system.address) as connection:
        yield connection


def collect(client: rf.Client, *, dry_run: bool = False) -> v1.CollectGarbageResponse:
    """Run a complete garbage collection, with a minimum age of one second."""
    steps = list(client.artifacts.collect_garbage(dry_run=dry_run, min_age=1))
    assert steps[-1].done
    return steps[-1]


def is_stored(client: rf.Client, digest: str) -> bool:
    """Return whether an artifact is stored with all its files."""
    try:
        manifest = client.artifacts.get_manifest(digest)
    except rf.NotFound:
        return False
    request = v1.FindMissingBlobsRequest(digests=[file.digest for file in manifest.files])
    return not client.connection.call(client.connection.artifacts.FindMissingBlobs, request).missing


def log_artifact(own_system: Up, run_id: str, digest: str, path: str = "model") -> None:
    request = v1.LogArtifactRequest(run_id=run_id, path=path, digest=digest, request_id=new_id())
    own_system.tracking.LogArtifact(request, timeout=SECONDS)


def artifact_of_deleted_version(own_system: Up) -> str:
    """Return the artifact of a deleted version of a deleted model."""
    digest, name = own_system.upload(new_id().encode()), f"model-{new_id()}"
    own_system.registry.RegisterVersion(v1.RegisterVersionRequest(model=name, digest=digest), timeout=SECONDS)
    own_system.registry.DeleteVersion(v1.DeleteVersionRequest(model=name, version=1), timeout=SECONDS)
    own_system.registry.DeleteModel(v1.DeleteModelRequest(model=name), timeout=SECONDS)
    return digest


def artifact_of_deleted_run(own_system: Up) -> str:
    """Return the artifact of a deleted run."""
    digest, run_id = own_system.upload(new_id().encode()), own_system.new_run()
    log_artifact(own_system, run_id, digest)
    own_system.tracking.DeleteRun(v1.DeleteRunRequest(run_id=run_id), timeout=SECONDS)
    return digest


def artifact_of_deleted_logged_model(own_system: Up) -> str:
    """Return the artifact of a deleted logged model."""
    digest, model_id = own_system.upload(new_id().encode()), f"m-{new_id()}"
    models = v1.LoggedModelServiceStub(own_system.channel)
    create = v1.CreateLoggedModelRequest(model_id=model_id, experiment_id=own_system.new_experiment(), name="net")
    at = (("rollforward-min-position", f"tracking={own_system.heads()['tracking']}"),)
    models.CreateLoggedModel(create, metadata=at, timeout=SECONDS)
    models.LogLoggedModelArtifact(v1.LogLoggedModelArtifactRequest(model_id=model_id, digest=digest), timeout=SECONDS)
    models.DeleteLoggedModel(v1.DeleteLoggedModelRequest(model_id=model_id), timeout=SECONDS)
    return digest


def replaced_artifact(own_system: Up) -> str:
    """Return an artifact that its run has replaced."""
    digest, run_id = own_system.upload(new_id().encode()), own_system.new_run()
    log_artifact(own_system, run_id, digest)
    log_artifact(own_system, run_id, own_system.upload(new_id().encode()))
    return digest


def test_only_unreferenced_artifacts_are_removed(own_system: Up, client: rf.Client) -> None:
    kept = [
        artifact_of_deleted_version(own_system),
        artifact_of_deleted_run(own_system),
        artifact_of_deleted_logged_model(own_system),
    ]
    garbage = [own_system.upload(new_id().encode()), replaced_artifact(own_system)]
    until(lambda: collect(client, dry_run=True).set_aside >= 6, "all garbage is old enough")
    assert collect(client, dry_run=True).removed == 0
    removed: list[v1.CollectGarbageResponse] = []

    def is_removed() -> bool:
        removed.append(collect(client))
        return sum(collection.removed for collection in removed) >= 6

    until(is_removed, "all garbage is removed")
    assert [is_stored(client, digest) for digest in kept] == [True] * 3
    assert [is_stored(client, digest) for digest in garbage] == [False] * 2


def test_artifact_registered_after_being_set_aside_stays(own_system: Up, client: rf.Client) -> None:
    digest = own_system.upload(new_id().encode())
    until(lambda: collect(client).set_aside >= 3, "it is set aside")
    own_system.registry.RegisterVersion(
        v1.RegisterVersionRequest(model=f"model-{new_id()}", digest=digest), timeout=SECONDS
    )
    until(lambda: not collect(client).set_aside and collect(client).kept > 0, "it stays")
    assert is_stored(client, digest)
    trash = own_system.data / "artifacts" / "trash"
    assert not list(trash.rglob(digest.removeprefix("sha256:")))


@pytest.mark.parametrize("age", [0, -1])
def test_invalid_age_is_rejected(client: rf.Client, age: int) -> None:
    with pytest.raises(rf.InvalidRequest) as wrong:
        next(client.artifacts.collect_garbage(min_age=age))
    assert wrong.value.reason == "INVALID_AGE"


@pytest.fixture
def artifact(system: Up, tmp_path: Path) -> str:
    """Upload an artifact with directories; return its digest."""
    source = tmp_path / "tree"
    for path in ("weights/a", "weights/deep/b", "weights.txt", "readme"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(path)
    with rf.Client(system.address) as client:
        return client.artifacts.upload(source)[0]


def files_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("weights", {"weights/a", "weights/deep/b"}),
        ("weights/", {"weights/a", "weights/deep/b"}),
        ("weights/deep", {"weights/deep/b"}),
        ("weights/a", {"weights/a"}),
        ("readme", {"readme"}),
        ("", {"weights/a", "weights/deep/b", "weights.txt", "readme"}),
    ],
)
def test_part_of_artifact_is_downloaded(
    system: Up, artifact: str, path: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with rf.Client(system.address) as client:
        client.artifacts.download(artifact, tmp_path / "part", path=path)
        assert files_of(tmp_path / "part") == {name: name for name in expected}
        cached = client.artifacts.download(artifact, path=path)
        assert files_of(cached) == {name: name for name in expected}
        assert client.artifacts.download(artifact, path=path) == cached
        assert {file.path for file in client.artifacts.list_files(artifact, path)} == expected


@pytest.mark.parametrize("path", ["absent", "weight", "weights/a/b", "../readme", "/readme"])
def test_missing_part_is_not_found(system: Up, artifact: str, path: str, tmp_path: Path) -> None:
    with rf.Client(system.address) as client, pytest.raises(rf.NotFound) as missing:
        client.artifacts.download(artifact, tmp_path / "part", path=path)
    assert missing.value.reason == "PATH_NOT_FOUND"
    assert not (tmp_path / "part").exists()


def test_command_line_lists_and_downloads_parts(cli: Cli, sample: SampleData, tmp_path: Path) -> None:
    reference = f"runs:/{sample.runs[0]}/model"
    listed = answer(cli("artifacts", "list", reference, "-o", "json"))
    assert [file["path"] for file in listed] == ["labels.json", "weights.bin"]
    assert listed[1]["size_bytes"] == 256 * 8192
    assert "weights.bin" in done(cli("artifacts", "list", f"{sample.model}/1"))
    target = tmp_path / "part"
    assert done(cli("download", f"models:/{sample.model}/1", str(target), "--path", "labels.json")) == f"{target}\n"
    assert [path.name for path in target.iterdir()] == ["labels.json"]
    assert refused(cli("artifacts", "list", reference, "--path", "absent")) == "PATH_NOT_FOUND"


def run_on_terminal(address: str, *arguments: str) -> tuple[str, str]:
    """Run a command on a terminal; return its output, and what the terminal shows."""
    ours, theirs = pty.openpty()
    variables = environment(ROLLFORWARD_URI=address, TERM="xterm", COLUMNS="120")
    with subprocess.Popen([SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=theirs, env=variables) as process:
        os.close(theirs)
        shown = bytearray()
        with suppress(OSError):  # raised on Linux when the other side is closed
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
        assert process.stdout is not None
        output = process.stdout.read().decode()
        assert process.wait(SECONDS) == 0
    return output, shown.decode()


def test_command_line_shows_progress_of_transfer(system: Up, sample: SampleData, tmp_path: Path) -> None:
    name = f"model-{new_id()}"
    _, shown = run_on_terminal(system.address, "models", "register", name, str(sample.files), "-o", "json")
    assert str(sample.files)[:20] in shown
    assert "2.1/2.1 MB" in shown
    output, shown = run_on_terminal(system.address, "download", f"{name}/1", str(tmp_path / "back"))
    assert output == f"{tmp_path / 'back'}\n"
    assert "2.1/2.1 MB" in shown


def test_command_line_collects_garbage(cli: Cli, sample: SampleData, own_system: Up) -> None:
    planned = answer(cli("artifacts", "gc", "--dry-run", "-o", "json", ROLLFORWARD_URI=own_system.address))
    assert planned["done"]
    assert (planned["seen"], planned["set_aside"], planned["removed"]) == (planned["kept"], 0, 0)
    assert "put back" in done(cli("artifacts", "gc", ROLLFORWARD_URI=own_system.address))
    assert refused(cli("artifacts", "gc", "--min-age", "0"), 2) == "INVALID_AGE"
