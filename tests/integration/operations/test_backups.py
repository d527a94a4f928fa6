"""A backup drill: taken while moves go on, restored elsewhere, and compared with what was acknowledged."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rollforward as rf
from eventstore.jetstream.archive import find_stream
from rollforward import v1
from services.artifacts.objects import PART, open_objects
from services.backups.connection import connection
from services.nats.server import NatsAddress
from tests.e2e.processes import ROLLFORWARD
from tests.e2e.program import until
from tests.integration.up import SECONDS, Up, up
from tests.servers.nats import running_nats
from tests.servers.seaweedfs import running_seaweedfs


def run(command: str, backup: Path, *options: str, fails: bool = False, nats: NatsAddress | None = None) -> Any:
    """Run `backup` or `restore`; its answer, or what it says when it fails."""
    done = subprocess.run(
        [ROLLFORWARD, command, str(backup), *options, "-o", "json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **(access(nats) if nats else {})},
    )
    assert done.returncode == (1 if fails else 0), done.stderr
    return done.stderr if fails else json.loads(done.stdout)


class Mover:
    """Moves an alias again and again, and remembers what was acknowledged."""

    def __init__(self, services: Up, model: str) -> None:
        self.moved: list[v1.MoveAliasResponse] = []
        self._services, self._model = services, model
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Mover:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._enough.is_set():
            self.moved.append(self._services.move(self._model, 1 + len(self.moved) % 2))

    def has_moved(self, count: int) -> None:
        """Return once it has moved so often."""
        until(lambda: len(self.moved) >= count, f"{count} moves")


def history(services: Up, model: str) -> list[tuple[int, str, int, int]]:
    """Return every change of the model's aliases, oldest first: revision, event, version and time."""
    with rf.Client(services.address) as client:
        changes = client.aliases.history(f"{model}@champion", limit=None)
    return [(one.revision, one.event_id, one.to_version, one.time.ToNanoseconds()) for one in reversed(changes)]


def digests(services: Up, model: str) -> list[str]:
    """Return the digests of the model's versions."""
    with rf.Client(services.address) as client:
        return [version.digest for version in client.versions.list(model)]


def test_what_was_acknowledged_before_a_backup_is_restored(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with up(data, "--webhooks-allow-private") as services:
        model = services.new_model(2)
        run_id = services.new_run()
        with Mover(services, model) as mover:
            mover.has_moved(20)
            acknowledged = list(mover.moved)
            taken = run("backup", backup, "--data", str(data))
            mover.has_moved(len(acknowledged) + 10)
        later = run("backup", backup, "--data", str(data))
        known, stored = history(services, model), digests(services, model)
        secret = (data / "webhook.key").read_bytes()
    assert taken["positions"]["registry"] >= acknowledged[-1].position
    assert later["positions"]["registry"] >= mover.moved[-1].position
    restored = run("restore", backup, "--data", str(tmp_path / "restored"))
    assert restored["positions"] == later["positions"]
    assert (tmp_path / "restored" / "webhook.key").read_bytes() == secret
    with up(tmp_path / "restored") as services:
        # Positions, ids and times are those of the log that was backed up.
        assert history(services, model) == known
        assert digests(services, model) == stored
        assert services.tracking.GetRun(v1.GetRunRequest(run_id=run_id), timeout=SECONDS).run.run_id == run_id
        resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"))
        assert resolved.epoch == restored["epochs"]["registry"]
        # An old position is refused, a new move follows.
        header = (("rollforward-min-position", f"registry={known[-1][0]}"),)
        refused = services.refused(services.registry.GetModel, v1.GetModelRequest(name=model), headers=header)
        assert refused.reason == "LOG_EPOCH_CHANGED"
        assert services.move(model, 3 - resolved.alias.version).position > known[-1][0]


def test_a_repeated_command_is_known_after_a_restore(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with up(data) as services:
        model = services.new_model(2)
        ask = v1.MoveAliasRequest(model=model, alias="champion", version=2, request_id="once")
        first = services.registry.MoveAlias(ask, timeout=SECONDS)
        run("backup", backup, "--data", str(data))
    run("restore", backup, "--data", str(tmp_path / "restored"))
    with up(tmp_path / "restored") as services:
        again = services.registry.MoveAlias(ask, timeout=SECONDS)
        assert again.position == first.position
        assert again.alias.revision == first.alias.revision
        assert len(history(services, model)) == 1


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of a stopped system, with its data directory beside it."""
    data = tmp_path / "data"
    with up(data) as services:
        services.move(services.new_model(2), 1)
    run("backup", tmp_path / "backup", "--data", str(data))
    return tmp_path / "backup"


def files(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_restore_overwrites_nothing(tmp_path: Path, backup: Path) -> None:
    before = files(tmp_path / "data" / "nats" / "store")
    said = run("restore", backup, "--data", str(tmp_path / "data"), fails=True)
    assert "WOULD_OVERWRITE" in said
    assert files(tmp_path / "data" / "nats" / "store") == before


@pytest.mark.parametrize("damaged", ["logs", "artifacts", "manifest.json", "webhook.key"])
def test_a_damaged_backup_is_refused_and_restores_nothing(tmp_path: Path, backup: Path, damaged: str) -> None:
    place = backup / damaged
    file = (
        place if place.is_file() else max((p for p in place.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    )
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data) if damaged != "manifest.json" else bytes(data[:-10]))
    said = run("restore", backup, "--data", str(tmp_path / "restored"), fails=True)
    assert "INVALID_BACKUP" in said
    assert not (tmp_path / "restored").exists()


def test_a_second_backup_copies_only_what_is_new(tmp_path: Path, backup: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in backup.rglob("*") if path.is_file()}
    run("backup", backup, "--data", str(tmp_path / "data"))
    after = {path: path.stat().st_mtime_ns for path in backup.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed == {"manifest.json", "webhook.key"}
    with up(tmp_path / "data") as services:
        services.upload(b"other weights")
        services.new_model(1)
        run("backup", backup, "--data", str(tmp_path / "data"))
    newest = {path: path.stat().st_mtime_ns for path in backup.rglob("*") if path.is_file()}
    assert {path.name.partition("-")[0] for path in (backup / "logs").iterdir()} == {
        *("registry", "tracking", "serving", "webhooks")
    }
    logs = {path.name.partition("-")[0] for path in newest if path.parent.name == "logs" and path not in after}
    assert logs == {"registry"}
    assert [path for path in newest if len(path.name) == 64 and path not in after]


def test_a_place_without_logs_is_no_backup(tmp_path: Path) -> None:
    assert "NOTHING_TO_BACK_UP" in run("backup", tmp_path / "backup", "--data", str(tmp_path / "none"), fails=True)
    assert not (tmp_path / "backup").exists()
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    said = run("backup", tmp_path / "other", "--data", str(tmp_path / "none"), fails=True)
    assert "INVALID_BACKUP" in said


def test_rows_that_know_more_than_a_restored_log_are_refused_until_that_is_accepted(
    tmp_path: Path, backup: Path
) -> None:
    data, restored = tmp_path / "data", tmp_path / "restored"
    with up(data) as services:
        model = services.new_model(2)
        services.move(model, 1)
    run("restore", backup, "--data", str(restored))
    shutil.copytree(data / "rows", restored / "rows")
    command = [ROLLFORWARD, "up", "--data", str(restored), "--grpc", "127.0.0.1:0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert refused.returncode == 1
    assert "LOG_LOST" in refused.stderr
    with up(restored, "--accept-log-loss", "registry") as services:
        assert services.heads()["registry"]
    assert list((restored / "rows").glob("lost_*.db"))


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[NatsAddress, NatsAddress]]:
    """Two outside NATS servers."""
    with running_nats() as one, running_nats() as other:
        yield one, other


def test_an_outside_server_is_backed_up_and_restored(
    tmp_path: Path, outside: tuple[NatsAddress, NatsAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, places = tmp_path / "backup", ("--artifacts", str(tmp_path / "artifacts"))
    source, target = outside
    for name, value in access(source).items():
        monkeypatch.setenv(name, value)
    with up(tmp_path / "data", *places) as services:
        model = services.new_model(2)
        services.move(model, 2)
        run("backup", backup, "--data", str(tmp_path / "data"), *places, nats=source)
        known = history(services, model)
    here = ("--data", str(tmp_path / "restored"), "--artifacts", str(tmp_path / "artifacts-restored"))
    assert run("restore", backup, *here, nats=target)["restart_nats"]
    assert "WOULD_OVERWRITE" in run("restore", backup, *here, fails=True, nats=target)
    for name, value in access(target).items():
        monkeypatch.setenv(name, value)
    with up(tmp_path / "restored", *here[2:]) as services:
        assert history(services, model) == known

    async def guarded(address: NatsAddress) -> bool:
        async with connection(address.url, address.user, address.password) as client:
            found = await find_stream(client, "registry")
            return bool(found and found.config["deny_purge"] and found.config["deny_delete"])

    assert asyncio.run(guarded(outside[1]))


def test_artifacts_in_a_bucket_are_backed_up_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than goes up or comes down in one request, so that the digest proves that all parts are there, in order.
    contents = {"weights.bin": random.Random(1).randbytes(PART + PART // 2), "labels.json": b"[]", "é/empty": b""}
    source = tmp_path / "source"
    for name, content in contents.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    backup = tmp_path / "backup"
    with running_seaweedfs() as bucket:
        for name, value in bucket.environment().items():
            monkeypatch.setenv(name, value)
        old, new = (("--artifacts", f"s3://{bucket.bucket}/{name}") for name in ("old", "new"))
        with up(tmp_path / "data", *old) as services, rf.Client(services.address) as client:
            with client.runs.start("experiment") as logged:
                logged.log_artifacts(source, "model")
            version = client.versions.register("fraud", logged, artifact="model")
            client.aliases.move("fraud@champion", version)
            list(client.system.snapshot("registry"))
            run("backup", backup, "--data", str(tmp_path / "data"), *old)
            known = history(services, "fraud")
        run("restore", backup, "--data", str(tmp_path / "restored"), *new)
        place = open_objects(old[1])
        for name in place.sizes():
            place.delete(name)
        with up(tmp_path / "restored", *new) as services, rf.Client(services.address) as client:
            assert history(services, "fraud") == known
            assert "rows are those of a snapshot" in services.program.errors
            found = client.artifacts.download("models:/fraud@champion", tmp_path / "found")
            assert {name: (found / name).read_bytes() for name in contents} == contents
            assert client.versions.register("fraud", logged, artifact="model").version == 2
            assert services.upload(b"new weights")


def access(address: NatsAddress) -> dict[str, str]:
    """Return the settings that name a server."""
    return {
        "ROLLFORWARD_NATS": address.url,
        "ROLLFORWARD_NATS_USER": address.user,
        "ROLLFORWARD_NATS_PASSWORD": address.password,
    }
