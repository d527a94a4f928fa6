"""Taking a backup: logs first, as NATS snapshots them, then the artifacts that they name."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from eventstore import Kind, RecordedEvent, Rejected, mark_of
from eventstore.jetstream import JetStreamStore
from eventstore.jetstream.archive import NatsClient, StreamArchive, find_stream, snapshot_stream
from services.app import LOGS
from services.artifacts.objects import ObjectPlace, open_objects
from services.backups.connection import connected
from services.backups.manifest import ARTIFACTS, KEY, NAME, LogBackup, Manifest, digest_of, read_manifest
from services.settings import Settings

ORDER = ("webhooks", "serving", "registry", "tracking")
"""The logs, each before those that its events refer to: what a restored event refers to is restored too."""

SNAPSHOTS = "snapshots/"
_LEFT_OUT = ("tmp/", "uploads/", "lost/", "trash/")

Progress = Callable[[str], None]


async def take_backup(settings: Settings, backup: Path, progress: Progress) -> Manifest:
    """Take a backup into a directory; what it has of an earlier one is not copied again.

    Everything acknowledged before it began is in it. Services and jobs go on.

    Args:
        settings: Where the logs and the artifacts are.
        backup: The directory; made if it is missing.
        progress: Is given a line after each step.

    Raises:
        Rejected: NOTHING_TO_BACK_UP when there is no log; INVALID_BACKUP when the directory holds something else.
        StoreUnavailable: NATS or the artifact store is out of reach.
        OSError: The backup cannot be written.
    """
    before = _earlier(backup)
    created = datetime.now(UTC).isoformat()
    _check_logs(settings)
    for folder in (backup, backup / "logs", backup / ARTIFACTS):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = open_objects(settings.artifacts_location)
    # Before the logs, so that no snapshot of rows knows more than its log.
    artifacts = await asyncio.to_thread(_copy, place, backup, progress, snapshots=True)
    async with connected(settings) as client:
        logs = {}
        for log in ORDER:
            if taken := await _take_log(client, log, backup, before.get(log)):
                logs[log] = taken
                progress(f"{log} log: position {taken.position}, {taken.size} bytes")
    if not logs:
        raise Rejected(Kind.NOT_FOUND, "NOTHING_TO_BACK_UP", "the NATS server has no logs")
    artifacts |= await asyncio.to_thread(_copy, place, backup, progress, snapshots=False)
    key = _copy_key(settings, backup)
    manifest = Manifest(created, version("rollforward-server"), logs, artifacts, key)
    await asyncio.to_thread(manifest.write, backup)
    _tidy(backup, manifest)
    return manifest


def _earlier(backup: Path) -> Mapping[str, LogBackup]:
    if (backup / NAME).exists():
        return read_manifest(backup).logs
    if backup.exists() and any(backup.iterdir()) and not (backup / "logs").exists():
        message = f"{backup} is not empty and has no backup: expected an empty directory, or that of an earlier backup"
        raise Rejected(Kind.INVALID, "INVALID_BACKUP", message)
    return {}


def _check_logs(settings: Settings) -> None:
    store = settings.data / "nats" / "store" / "jetstream"
    if not settings.nats and not store.exists():
        message = f"{settings.data} has no logs. Set the data directory with --data, or the NATS server with --nats"
        raise Rejected(Kind.NOT_FOUND, "NOTHING_TO_BACK_UP", message)


async def _take_log(client: NatsClient, log: str, backup: Path, earlier: LogBackup | None) -> LogBackup | None:
    store = JetStreamStore(client, log, LOGS[log])
    stream = await find_stream(client, log)
    if stream is None or not await store.find():
        return None
    head = int(stream.state["last_seq"])
    mark = _mark(await store.event_at(head))
    if earlier and (earlier.position, earlier.mark) == (head, mark) and (backup / earlier.file).exists():
        return earlier
    archive, name = stream, f"logs/{log}-{head:020}-{mark or 'none'}"
    new, digest, size = backup / f"{name}.new", hashlib.sha256(), 0
    with new.open("wb") as file:
        async with aclosing(snapshot_stream(client, log)) as parts:
            async for part in parts:
                if isinstance(part, StreamArchive):
                    archive = part
                else:
                    file.write(part)
                    digest.update(part)
                    size += len(part)
        file.flush()
        os.fsync(file.fileno())
    new.replace(backup / name)
    return LogBackup(
        name, size, digest.hexdigest(), head, mark, int(stream.state["messages"]), archive.config, archive.state
    )


def _mark(event: RecordedEvent | None) -> str:
    return mark_of(event.id) if event else ""


def _copy(place: ObjectPlace, backup: Path, progress: Progress, *, snapshots: bool) -> dict[str, int]:
    """Copy the objects that the backup does not have yet; return all of them with their sizes."""
    wanted = {
        name: size
        for name, size in place.sizes(SNAPSHOTS.rstrip("/") if snapshots else "").items()
        if name.startswith(SNAPSHOTS) == snapshots and not name.startswith(_LEFT_OUT) and "#" not in name
    }
    copied = {}
    for number, (name, size) in enumerate(sorted(wanted.items()), 1):
        path = backup / ARTIFACTS / name
        if not (path.exists() and path.stat().st_size == size) and not _fetch(place, name, path):
            continue  # it was collected as garbage meanwhile
        copied[name] = size
        if not snapshots and (number % 1000 == 0 or number == len(wanted)):
            progress(f"artifacts: {number} of {len(wanted)} objects")
    return copied


def _fetch(place: ObjectPlace, name: str, path: Path) -> bool:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            file.writelines(place.get(name))
    except LookupError:
        new.unlink()
        return False
    new.replace(path)
    return True


def _copy_key(settings: Settings, backup: Path) -> str:
    key = settings.data / KEY
    if not key.exists():
        return ""
    new = backup / f"{KEY}.new"
    shutil.copyfile(key, new)
    new.chmod(0o600)
    new.replace(backup / KEY)
    return digest_of(backup / KEY)


def _tidy(backup: Path, manifest: Manifest) -> None:
    """Remove the snapshots of logs that the manifest names no more."""
    kept = {backup / entry.file for entry in manifest.logs.values()}
    for path in (backup / "logs").iterdir():
        if path not in kept:
            path.unlink()
