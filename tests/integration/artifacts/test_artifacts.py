"""Artifacts through the whole system: what garbage collections keep, parts of artifacts, and the command line."""

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
from tests.integration.cli.command_line import SCRIPT, Cli, Facts, answer, done, environment, refused
from tests.integration.up import SECONDS, Up, new_id, up


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A system whose garbage is nobody else's."""
    with up(tmp_path_factory.mktemp("own") / "data") as services:
        yield services


@pytest.fixture(scope="module")
def client(own: Up) -> Iterator[rf.Client]:
    """A client of it."""
    with rf.Client(own.address) as connection:
        yield connection


def collect(client: rf.Client, *, dry_run: bool = False) -> v1.CollectGarbageResponse:
    """Collect garbage of a second, to the end."""
    steps = list(client.artifacts.collect_garbage(dry_run=dry_run, min_age=1))
    assert steps[-1].done
    return steps[-1]


def is_stored(client: rf.Client, digest: str) -> bool:
    """Whether an artifact is there with all its files."""
    try:
        manifest = client.artifacts.get_manifest(digest)
    except rf.NotFound:
        return False
    request = v1.FindMissingBlobsRequest(digests=[file.digest for file in manifest.files])
    return not client.connection.call(client.connection.artifacts.FindMissingBlobs, request).missing


def log(own: Up, run_id: str, digest: str, path: str = "model") -> None:
    request = v1.LogArtifactRequest(run_id=run_id, path=path, digest=digest, request_id=new_id())
    own.tracking.LogArtifact(request, timeout=SECONDS)


def of_a_deleted_version(own: Up) -> str:
    """The artifact of a version that was deleted, of a model that was too."""
    digest, name = own.upload(new_id().encode()), f"model-{new_id()}"
    own.registry.RegisterVersion(v1.RegisterVersionRequest(model=name, digest=digest), timeout=SECONDS)
    own.registry.DeleteVersion(v1.DeleteVersionRequest(model=name, version=1), timeout=SECONDS)
    own.registry.DeleteModel(v1.DeleteModelRequest(model=name), timeout=SECONDS)
    return digest


def of_a_deleted_run(own: Up) -> str:
    """The artifact of a run that was deleted."""
    digest, run_id = own.upload(new_id().encode()), own.new_run()
    log(own, run_id, digest)
    own.tracking.DeleteRun(v1.DeleteRunRequest(run_id=run_id), timeout=SECONDS)
    return digest


def of_a_deleted_logged_model(own: Up) -> str:
    """The artifact of a logged model that was deleted."""
    digest, model_id = own.upload(new_id().encode()), f"m-{new_id()}"
    models = v1.LoggedModelServiceStub(own.channel)
    create = v1.CreateLoggedModelRequest(model_id=model_id, experiment_id=own.new_experiment(), name="net")
    at = (("rollforward-min-position", f"tracking={own.heads()['tracking']}"),)
    models.CreateLoggedModel(create, metadata=at, timeout=SECONDS)
    models.LogLoggedModelArtifact(v1.LogLoggedModelArtifactRequest(model_id=model_id, digest=digest), timeout=SECONDS)
    models.DeleteLoggedModel(v1.DeleteLoggedModelRequest(model_id=model_id), timeout=SECONDS)
    return digest


def of_a_run_that_logged_another(own: Up) -> str:
    """An artifact in whose place the run logged another one."""
    digest, run_id = own.upload(new_id().encode()), own.new_run()
    log(own, run_id, digest)
    log(own, run_id, own.upload(new_id().encode()))
    return digest


def test_garbage_is_what_neither_log_names(own: Up, client: rf.Client) -> None:
    kept = [of_a_deleted_version(own), of_a_deleted_run(own), of_a_deleted_logged_model(own)]
    garbage = [own.upload(new_id().encode()), of_a_run_that_logged_another(own)]
    until(lambda: collect(client, dry_run=True).set_aside >= 6, "all garbage is old enough")
    assert collect(client, dry_run=True).removed == 0
    removed: list[v1.CollectGarbageResponse] = []

    def is_removed() -> bool:
        removed.append(collect(client))
        return sum(one.removed for one in removed) >= 6

    until(is_removed, "all garbage is removed")
    assert [is_stored(client, digest) for digest in kept] == [True] * 3
    assert [is_stored(client, digest) for digest in garbage] == [False] * 2


def test_what_is_registered_after_it_was_set_aside_stays(own: Up, client: rf.Client) -> None:
    digest = own.upload(new_id().encode())
    until(lambda: collect(client).set_aside >= 3, "it is set aside")
    own.registry.RegisterVersion(v1.RegisterVersionRequest(model=f"model-{new_id()}", digest=digest), timeout=SECONDS)
    until(lambda: not collect(client).set_aside and collect(client).kept > 0, "it stays")
    assert is_stored(client, digest)
    trash = own.data / "artifacts" / "trash"
    assert not list(trash.rglob(digest.removeprefix("sha256:")))


@pytest.mark.parametrize("age", [0, -1])
def test_garbage_has_an_age(client: rf.Client, age: int) -> None:
    with pytest.raises(rf.InvalidRequest) as wrong:
        next(client.artifacts.collect_garbage(min_age=age))
    assert wrong.value.reason == "INVALID_AGE"


@pytest.fixture
def tree(system: Up, tmp_path: Path) -> str:
    """An artifact with directories; its digest."""
    source = tmp_path / "tree"
    for path in ("weights/a", "weights/deep/b", "weights.txt", "readme"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(path)
    with rf.Client(system.address) as client:
        return client.artifacts.upload(source)[0]


def files_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("weights", {"weights/a", "weights/deep/b"}),
        ("weights/", {"weights/a", "weights/deep/b"}),
        ("weights/deep", {"weights/deep/b"}),
        ("weights/a", {"weights/a"}),
        ("readme", {"readme"}),
        ("", {"weights/a", "weights/deep/b", "weights.txt", "readme"}),
    ],
)
def test_a_part_of_an_artifact_is_downloaded(
    system: Up, tree: str, path: str, found: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with rf.Client(system.address) as client:
        client.artifacts.download(tree, tmp_path / "part", path=path)
        assert files_of(tmp_path / "part") == {one: one for one in found}
        cached = client.artifacts.download(tree, path=path)
        assert files_of(cached) == {one: one for one in found}
        assert client.artifacts.download(tree, path=path) == cached
        assert {file.path for file in client.artifacts.list_files(tree, path)} == found


@pytest.mark.parametrize("path", ["absent", "weight", "weights/a/b", "../readme", "/readme"])
def test_a_part_that_is_not_there_is_not_found(system: Up, tree: str, path: str, tmp_path: Path) -> None:
    with rf.Client(system.address) as client, pytest.raises(rf.NotFound) as missing:
        client.artifacts.download(tree, tmp_path / "part", path=path)
    assert missing.value.reason == "PATH_NOT_FOUND"
    assert not (tmp_path / "part").exists()


def test_the_command_line_lists_and_gets_parts(cli: Cli, payloads: Facts, tmp_path: Path) -> None:
    reference = f"runs:/{payloads.runs[0]}/model"
    listed = answer(cli("artifacts", "list", reference, "-o", "json"))
    assert [file["path"] for file in listed] == ["labels.json", "weights.bin"]
    assert listed[1]["size_bytes"] == 256 * 8192
    assert "weights.bin" in done(cli("artifacts", "list", f"{payloads.model}/1"))
    target = tmp_path / "part"
    assert done(cli("download", f"models:/{payloads.model}/1", str(target), "--path", "labels.json")) == f"{target}\n"
    assert [path.name for path in target.iterdir()] == ["labels.json"]
    assert refused(cli("artifacts", "list", reference, "--path", "absent")) == "PATH_NOT_FOUND"


def on_a_terminal(address: str, *words: str) -> tuple[str, str]:
    """What a command prints, and what it shows meanwhile to who watches a terminal."""
    ours, theirs = pty.openpty()
    variables = environment(ROLLFORWARD_URI=address, TERM="xterm", COLUMNS="120")
    with subprocess.Popen([SCRIPT, *words], stdout=subprocess.PIPE, stderr=theirs, env=variables) as process:
        os.close(theirs)
        shown = bytearray()
        with suppress(OSError):  # what Linux says when the other side is closed
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
        assert process.stdout is not None
        said = process.stdout.read().decode()
        assert process.wait(SECONDS) == 0
    return said, shown.decode()


def test_the_command_line_shows_how_far_a_transfer_is(system: Up, payloads: Facts, tmp_path: Path) -> None:
    name = f"model-{new_id()}"
    _, shown = on_a_terminal(system.address, "models", "register", name, str(payloads.files), "-o", "json")
    assert str(payloads.files)[:20] in shown
    assert "2.1/2.1 MB" in shown
    said, shown = on_a_terminal(system.address, "download", f"{name}/1", str(tmp_path / "back"))
    assert said == f"{tmp_path / 'back'}\n"
    assert "2.1/2.1 MB" in shown


def test_the_command_line_collects_garbage(cli: Cli, payloads: Facts, own: Up) -> None:
    would = answer(cli("artifacts", "gc", "--dry-run", "-o", "json", ROLLFORWARD_URI=own.address))
    assert would["done"]
    assert (would["seen"], would["set_aside"], would["removed"]) == (would["kept"], 0, 0)
    assert "put back" in done(cli("artifacts", "gc", ROLLFORWARD_URI=own.address))
    assert refused(cli("artifacts", "gc", "--min-age", "0"), 2) == "INVALID_AGE"
