"""Files of runs: what is found at paths where no single artifact was logged, and how names are normalized."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

import rollforward as rf
from rollforward import v1
from tests.integration.cli.command_line import Cli, answer
from tests.integration.registry.scored_models import headers_at_head
from tests.integration.up import SECONDS, Up, new_id

NFC, NFD = unicodedata.normalize("NFC", "café.txt"), unicodedata.normalize("NFD", "café.txt")


@pytest.fixture
def client(system: Up) -> Iterator[rf.Client]:
    with rf.Client(system.address) as connection:
        yield connection


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Create files to log; each contains its own name."""
    for name in ("model.skops", "notes.txt", "tree/top", "tree/sub/file", "tree/sub/deep/file"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "files"


@pytest.fixture
def run(client: rf.Client, files: Path) -> str:
    """Start a run that logs single files and a directory, as users of MLflow do."""
    with client.runs.start(f"e-{new_id()}", heartbeat=False) as live:
        live.log_artifact(files / "model.skops", "model")
        live.log_artifact(files / "notes.txt", "model/docs")
        live.log_artifacts(files / "tree", "tree")
        live.log_artifact(files / "notes.txt")
    return live.run_id


# The files at a path of the run and their contents, as downloaded and as registered.
TREES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "model": ({"model.skops": "model.skops", "docs/notes.txt": "notes.txt"},) * 2,
    "model/docs": ({"notes.txt": "notes.txt"},) * 2,
    "model/model.skops": ({"model.skops": "model.skops"},) * 2,
    "notes.txt": ({"notes.txt": "notes.txt"},) * 2,
    "tree": ({"top": "tree/top", "sub/file": "tree/sub/file", "sub/deep/file": "tree/sub/deep/file"},) * 2,
    "tree/sub/file": ({"sub/file": "tree/sub/file"}, {"file": "tree/sub/file"}),
    "tree/sub": (
        {"sub/file": "tree/sub/file", "sub/deep/file": "tree/sub/deep/file"},
        {"file": "tree/sub/file", "deep/file": "tree/sub/deep/file"},
    ),
    "": (
        {
            "model/model.skops": "model.skops",
            "model/docs/notes.txt": "notes.txt",
            "tree/top": "tree/top",
            "tree/sub/file": "tree/sub/file",
            "tree/sub/deep/file": "tree/sub/deep/file",
            "notes.txt": "notes.txt",
        },
    )
    * 2,
}


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", TREES)
def test_files_at_path_of_run_are_downloaded_and_registered(
    path: str, run: str, client: rf.Client, tmp_path: Path, cli: Cli
) -> None:
    downloaded, registered = TREES[path]
    reference = f"runs:/{run}/{path}"
    assert contents(client.artifacts.download(reference, tmp_path / "there")) == downloaded
    assert {file.path for file in client.artifacts.list_files(reference)} == set(downloaded)
    model = f"m-{new_id()}"
    version = client.versions.register(model, run, artifact=path)
    assert (version.run_id, version.artifact_path) == (run, path)
    assert contents(client.artifacts.download(f"models:/{model}/1", tmp_path / "version")) == registered
    printed = answer(cli("artifacts", "list", reference, "-o", "json"))
    assert {file["path"] for file in printed} == set(downloaded)
    # A trailing slash changes nothing; registered again, the files are the same artifact.
    again = client.versions.register(model, run, artifact=f"{path}/")
    assert again.digest == version.digest
    for file in downloaded:
        single = client.artifacts.download(f"{reference}/", tmp_path / "one" / file, path=file)
        assert contents(single) == {file: downloaded[file]}


@pytest.mark.parametrize("path", ["nosuch", "mode", "model/nosuch", "tree/sub/nosuch", "tree/sub/file/x", "treetop"])
def test_path_without_files_is_rejected(path: str, run: str, client: rf.Client, system: Up) -> None:
    with pytest.raises(rf.NotFound) as refused:
        client.artifacts.download(f"runs:/{run}/{path}")
    assert refused.value.reason == "ARTIFACT_NOT_FOUND"
    request = v1.RegisterVersionRequest(model=f"m-{new_id()}", run_id=run, artifact_path=path)
    assert (
        system.refused(system.registry.RegisterVersion, request, headers_at_head(system)).reason == "ARTIFACT_NOT_FOUND"
    )


def test_digest_must_match_files_at_path(run: str, client: rf.Client, system: Up) -> None:
    digest = client.versions.register(f"m-{new_id()}", run, artifact="model").digest
    request = v1.RegisterVersionRequest(model=f"m-{new_id()}", run_id=run, artifact_path="model", digest=digest)
    assert (
        system.registry.RegisterVersion(request, timeout=SECONDS, metadata=headers_at_head(system)).version.digest
        == digest
    )
    wrong = v1.RegisterVersionRequest(model=f"m-{new_id()}", run_id=run, artifact_path="model", digest=system.upload())
    assert system.refused(system.registry.RegisterVersion, wrong, headers_at_head(system)).reason == "INVALID_DIGEST"


def test_artifact_logged_at_path_is_used_alone(client: rf.Client, files: Path) -> None:
    with client.runs.start(f"e-{new_id()}", heartbeat=False) as live:
        digest = live.log_artifacts(files / "tree", "out")
        live.log_artifact(files / "notes.txt", "out")
    version = client.versions.register(f"m-{new_id()}", live, artifact="out")
    assert version.digest == digest
    found = client.artifacts.list_files(f"runs:/{live.run_id}/out")
    assert {file.path for file in found} == {"top", "sub/file", "sub/deep/file"}


def test_artifact_logged_nearest_to_file_wins(client: rf.Client, files: Path) -> None:
    with client.runs.start(f"e-{new_id()}", heartbeat=False) as live:
        live.log_artifacts(files / "tree" / "sub", "a/b")
        live.log_artifact(files / "notes.txt", "a/b/deep")
        live.log_artifact(files / "tree" / "sub" / "file", "a/b/deep")
    found = {file.path: file for file in client.artifacts.list_files(f"runs:/{live.run_id}/a")}
    assert set(found) == {"b/file", "b/deep/file", "b/deep/notes.txt"}
    assert found["b/deep/file"].size_bytes == len("tree/sub/file")


def test_artifact_replaces_earlier_one_at_path(client: rf.Client, files: Path) -> None:
    with client.runs.start(f"e-{new_id()}", heartbeat=False) as live:
        live.log_artifacts(files / "tree", "out")
        live.log_artifacts(files / "tree" / "sub", "out")
    found = client.artifacts.list_files(f"runs:/{live.run_id}/out")
    assert {file.path for file in found} == {"file", "deep/file"}


def test_file_names_are_equal_in_any_normal_form(client: rf.Client, tmp_path: Path) -> None:
    folder = tmp_path / NFD.removesuffix(".txt")
    folder.mkdir()
    (folder / NFD).write_text("naïve")
    with client.runs.start(f"e-{new_id()}", heartbeat=False) as live:
        digest = live.log_artifact(folder / NFD)
        below = live.log_artifact(folder / NFD, unicodedata.normalize("NFD", "crème"))
        live.log_artifacts(folder, unicodedata.normalize("NFD", "brûlée"))
    paths = [artifact.path for artifact in client.runs.get(live).artifacts]
    assert paths == ["brûlée", NFC, f"crème/{NFC}"]
    assert digest == below
    for name in (NFC, NFD):
        assert contents(client.artifacts.download(f"runs:/{live.run_id}/{name}")) == {NFC: "naïve"}
        part = client.artifacts.download(f"runs:/{live.run_id}/brûlée", path=name)
        assert contents(part) == {NFC: "naïve"}
        version = client.versions.register(f"m-{new_id()}", live, artifact=name)
        assert version.digest == digest
    for path in (folder, folder / NFD):
        assert client.versions.register(f"m-{new_id()}", path=path).digest == digest


def test_directory_without_files_raises_warning(client: rf.Client, tmp_path: Path) -> None:
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with client.runs.start(f"e-{new_id()}", heartbeat=False) as live:
        with pytest.warns(RuntimeWarning):
            assert live.log_artifacts(tmp_path / "empty", "out") == ""
        live.log_metric("loss", 0.5)
    assert not client.runs.get(live).artifacts
