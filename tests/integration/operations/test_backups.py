"""Backups: taken while aliases move, restored elsewhere and compared with every acknowledged write."""

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
    """Run `backup` or `restore`, and return its output, or its errors if it is to fail."""
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
    """Moves an alias until it is stopped, and keeps every acknowledgement."""

    def __init__(self, services: Up, model: str) -> None:
        self.moved: list[v1.MoveAliasResponse] = []
        self._services, self._model = services, model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Mover:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.moved.append(self._services.move(self._model, 1 + len(self.moved) % 2))

    def wait_for(self, count: int) -> None:
        """Wait until the alias has moved so often."""
        until(lambda: len(self.moved) >= count, f"{count} moves")


def history(services: Up, model: str) -> list[tuple[int, str, int, int]]:
    """Return every change of the model's aliases, oldest first: revision, event, version and time."""
    with rf.Client(services.address) as client:
        changes = client.aliases.history(f"{model}@champion", limit=None)
    return [
        (change.revision, change.event_id, change.to_version, change.time.ToNanoseconds())
        for change in reversed(changes)
    ]


def digests(services: Up, model: str) -> list[str]:
    """Return the digests of the model's versions."""
    with rf.Client(services.address) as client:
        return [version.digest for version in client.versions.list(model)]


def test_restore_has_every_acknowledged_write(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with up(data, "--webhooks-allow-private") as services:
        model = services.new_model(2)
        run_id = services.new_run()
        with Mover(services, model) as mover:
            mover.wait_for(20)
            acknowledged = list(mover.moved)
            first = run("backup", backup, "--data", str(data))
            mover.wait_for(len(acknowledged) + 10)
        second = run("backup", backup, "--data", str(data))
        changes, version_digests = history(services, model), digests(services, model)
        secret = (data / "webhook.key").read_bytes()
    assert first["positions"]["registry"] >= acknowledged[-1].position
    assert second["positions"]["registry"] >= mover.moved[-1].position
    restored = run("restore", backup, "--data", str(tmp_path / "restored"))
    assert restored["positions"] == second["positions"]
    assert (tmp_path / "restored" / "webhook.key").read_bytes() == secret
    with up(tmp_path / "restored") as services:
        # Positions, ids and times are those of the log that was backed up.
        assert history(services, model) == changes
        assert digests(services, model) == version_digests
        assert services.tracking.GetRun(v1.GetRunRequest(run_id=run_id), timeout=SECONDS).run.run_id == run_id
        resolved = services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"))
        assert resolved.epoch == restored["epochs"]["registry"]
        # An old position is rejected, and a new move gets a later one.
        header = (("rollforward-min-position", f"registry={changes[-1][0]}"),)
        rejected = services.refused(services.registry.GetModel, v1.GetModelRequest(name=model), headers=header)
        assert rejected.reason == "LOG_EPOCH_CHANGED"
        assert services.move(model, 3 - resolved.alias.version).position > changes[-1][0]


def test_repeated_request_is_recognized_after_restore(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with up(data) as services:
        model = services.new_model(2)
        move = v1.MoveAliasRequest(model=model, alias="champion", version=2, request_id="once")
        first = services.registry.MoveAlias(move, timeout=SECONDS)
        run("backup", backup, "--data", str(data))
    run("restore", backup, "--data", str(tmp_path / "restored"))
    with up(tmp_path / "restored") as services:
        again = services.registry.MoveAlias(move, timeout=SECONDS)
        assert again.position == first.position
        assert again.alias.revision == first.alias.revision
        assert len(history(services, model)) == 1


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Return a backup of a stopped system, with its data directory beside it."""
    data = tmp_path / "data"
    with up(data) as services:
        services.move(services.new_model(2), 1)
    run("backup", tmp_path / "backup", "--data", str(data))
    return tmp_path / "backup"


def files(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_restore_overwrites_nothing(tmp_path: Path, backup: Path) -> None:
    before = files(tmp_path / "data" / "nats" / "store")
    errors = run("restore", backup, "--data", str(tmp_path / "data"), fails=True)
    assert "WOULD_OVERWRITE" in errors
    assert files(tmp_path / "data" / "nats" / "store") == before


@pytest.mark.parametrize("damaged", ["logs", "artifacts", "manifest.json", "webhook.key"])
def test_damaged_backup_is_rejected_and_restores_nothing(tmp_path: Path, backup: Path, damaged: str) -> None:
    damaged_path = backup / damaged
    file = (
        damaged_path
        if damaged_path.is_file()
        else max((p for p in damaged_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    )
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data) if damaged != "manifest.json" else bytes(data[:-10]))
    errors = run("restore", backup, "--data", str(tmp_path / "restored"), fails=True)
    assert "INVALID_BACKUP" in errors
    assert not (tmp_path / "restored").exists()


def test_second_backup_copies_new_files_only(tmp_path: Path, backup: Path) -> None:
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


def test_backup_needs_logs_and_backup_directory(tmp_path: Path) -> None:
    assert "NOTHING_TO_BACK_UP" in run("backup", tmp_path / "backup", "--data", str(tmp_path / "none"), fails=True)
    assert not (tmp_path / "backup").exists()
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    errors = run("backup", tmp_path / "other", "--data", str(tmp_path / "none"), fails=True)
    assert "INVALID_BACKUP" in errors


def test_rows_ahead_of_restored_log_need_accepted_loss(tmp_path: Path, backup: Path) -> None:
    data, restored = tmp_path / "data", tmp_path / "restored"
    with up(data) as services:
        model = services.new_model(2)
        services.move(model, 1)
    run("restore", backup, "--data", str(restored))
    shutil.copytree(data / "rows", restored / "rows")
    command = [ROLLFORWARD, "up", "--data", str(restored), "--grpc", "127.0.0.1:0"]
    start = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert start.returncode == 1
    assert "LOG_LOST" in start.stderr
    with up(restored, "--accept-log-loss", "registry") as services:
        assert services.heads()["registry"]
    assert list((restored / "rows").glob("lost_*.db"))


@pytest.fixture(scope="module")
def external_servers() -> Iterator[tuple[NatsAddress, NatsAddress]]:
    """Yield two external NATS servers."""
    with running_nats() as first, running_nats() as second:
        yield first, second


def test_external_server_is_backed_up_and_restored(
    tmp_path: Path, external_servers: tuple[NatsAddress, NatsAddress], monkeypatch: pytest.MonkeyPatch
) -> None:
    backup, artifacts = tmp_path / "backup", ("--artifacts", str(tmp_path / "artifacts"))
    source, target = external_servers
    for name, value in access(source).items():
        monkeypatch.setenv(name, value)
    with up(tmp_path / "data", *artifacts) as services:
        model = services.new_model(2)
        services.move(model, 2)
        run("backup", backup, "--data", str(tmp_path / "data"), *artifacts, nats=source)
        changes = history(services, model)
    restored = ("--data", str(tmp_path / "restored"), "--artifacts", str(tmp_path / "artifacts-restored"))
    assert run("restore", backup, *restored, nats=target)["restart_nats"]
    assert "WOULD_OVERWRITE" in run("restore", backup, *restored, fails=True, nats=target)
    for name, value in access(target).items():
        monkeypatch.setenv(name, value)
    with up(tmp_path / "restored", *restored[2:]) as services:
        assert history(services, model) == changes

    async def is_protected(address: NatsAddress) -> bool:
        async with connection(address.url, address.user, address.password) as client:
            stream = await find_stream(client, "registry")
            return bool(stream and stream.config["deny_purge"] and stream.config["deny_delete"])

    assert asyncio.run(is_protected(external_servers[1]))


def test_artifacts_in_bucket_are_backed_up_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than one request carries, so that the digest proves that all parts are there and in order.
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
            changes = history(services, "fraud")
        run("restore", backup, "--data", str(tmp_path / "restored"), *new)
        objects = open_objects(old[1])
        for name in objects.sizes():
            objects.delete(name)
        with up(tmp_path / "restored", *new) as services, rf.Client(services.address) as client:
            assert history(services, "fraud") == changes
            assert "rows restored from a snapshot" in services.program.errors
            downloaded = client.artifacts.download("models:/fraud@champion", tmp_path / "found")
            assert {name: (downloaded / name).read_bytes() for name in contents} == contents
            assert client.versions.register("fraud", logged, artifact="model").version == 2
            assert services.upload(b"new weights")


def access(address: NatsAddress) -> dict[str, str]:
    """Return the settings for a connection to a server."""
    return {
        "ROLLFORWARD_NATS": address.url,
        "ROLLFORWARD_NATS_USER": address.user,
        "ROLLFORWARD_NATS_PASSWORD": address.password,
    }
