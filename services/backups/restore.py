"""Restoring a backup where nothing is yet: verified, and in a new epoch of each log."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from eventstore import Kind, Metadata, Rejected, StoreUnavailable, begin_epoch, mark_of, next_epoch
from eventstore.jetstream import JetStreamStore
from eventstore.jetstream.archive import NatsClient, StreamArchive, find_stream, restore_stream
from rollforward import v1
from services.app import LOGS
from services.artifacts.objects import ObjectPlace, open_objects
from services.backups.connection import connection, started
from services.backups.manifest import ARTIFACTS, KEY, LogBackup, Manifest, digest_of, invalid, pieces_of, read_manifest
from services.backups.take import Progress
from services.event_logs import operator
from services.settings import Settings

_HEX_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored.

    Attributes:
        manifest: The backup.
        epochs: By log, the epoch that began.
        restart: Whether an outside NATS server must be started again before anything is written.
    """

    manifest: Manifest
    epochs: dict[str, int]
    restart: bool


async def restore_backup(settings: Settings, backup: Path, progress: Progress) -> Restored:
    """Restore a backup into a data directory, or into an outside NATS server and artifact store, that holds nothing.

    Raises:
        Rejected: INVALID_BACKUP when the backup is damaged; WOULD_OVERWRITE when something is there already.
        StoreUnavailable: NATS or the artifact store is out of reach, or refuses what it is given.
        OSError: Something cannot be written.
    """
    manifest = read_manifest(backup)
    await asyncio.to_thread(_verify, backup, manifest)
    progress(f"verified: {len(manifest.logs)} logs, {len(manifest.artifacts)} objects")
    place = open_objects(settings.artifacts_location)
    await asyncio.to_thread(_refuse_overwriting, settings, manifest, place)
    if settings.nats:
        async with connection(settings.nats, settings.nats_user, settings.nats_password) as client:
            await _refuse_streams(client, manifest)
            await asyncio.to_thread(_restore_files, settings, backup, manifest, place)
            await _restore_logs(client, backup, manifest, progress)
            epochs = await _begin_epochs(client, manifest, settings)
        return Restored(manifest, epochs, restart=True)
    await asyncio.to_thread(_restore_files, settings, backup, manifest, place)
    # Under another name until it is whole: services never start on a part of it.
    new = settings.data / "nats.restoring"
    shutil.rmtree(new, ignore_errors=True)
    async with started(new) as client:
        await _restore_logs(client, backup, manifest, progress)
    # Started again: only then does NATS know which events it has, so that a repeated one is none.
    async with started(new) as client:
        epochs = await _begin_epochs(client, manifest, settings)
    new.replace(settings.data / "nats")
    return Restored(manifest, epochs, restart=False)


def _verify(backup: Path, manifest: Manifest) -> None:
    for log, entry in manifest.logs.items():
        if not (backup / entry.file).exists() or digest_of(backup / entry.file) != entry.sha256:
            raise invalid(f"the {log} log in {backup} is damaged: {entry.file} has another digest. Use another backup")
    for name, size in manifest.artifacts.items():
        path = backup / ARTIFACTS / name
        if not path.exists() or path.stat().st_size != size:
            raise invalid(f"the object {name} in {backup} is missing or has another size. Use another backup")
        if len(path.name) == _HEX_DIGITS and digest_of(path) != path.name:
            raise invalid(f"the object {name} in {backup} is damaged: it has another digest. Use another backup")
    if manifest.webhook_key and (not (backup / KEY).exists() or digest_of(backup / KEY) != manifest.webhook_key):
        raise invalid(f"{KEY} in {backup} is missing or damaged. Use another backup")


def _refuse_overwriting(settings: Settings, manifest: Manifest, place: ObjectPlace) -> None:
    there = place.sizes()
    if changed := [name for name, size in there.items() if manifest.artifacts.get(name, size) != size]:
        raise _overwrites(f"{settings.artifacts_location} already has the object {changed[0]}, with another size")
    if not settings.nats and (settings.data / "nats").exists():
        raise _overwrites(f"{settings.data / 'nats'} already exists")
    key = settings.data / KEY
    if manifest.webhook_key and key.exists() and digest_of(key) != manifest.webhook_key:
        raise _overwrites(f"{key} already exists and differs")


async def _refuse_streams(client: NatsClient, manifest: Manifest) -> None:
    for log in manifest.logs:
        if await find_stream(client, log):
            raise _overwrites(f"the NATS server already has a {log} log")


def _overwrites(fault: str) -> Rejected:
    message = f"{fault}. Restore into an empty data directory"
    return Rejected(Kind.PRECONDITION, "WOULD_OVERWRITE", message)


def _restore_files(settings: Settings, backup: Path, manifest: Manifest, place: ObjectPlace) -> None:
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = place.sizes()
    for name in manifest.artifacts:
        if name not in there:
            place.put(name, pieces_of(backup / ARTIFACTS / name))
    if manifest.webhook_key:
        shutil.copyfile(backup / KEY, settings.data / KEY)
        (settings.data / KEY).chmod(0o600)


async def _restore_logs(client: NatsClient, backup: Path, manifest: Manifest, progress: Progress) -> None:
    for log, entry in manifest.logs.items():

        async def pieces(path: Path = backup / entry.file) -> AsyncIterator[bytes]:
            for piece in pieces_of(path):
                yield piece

        await restore_stream(client, log, StreamArchive(entry.config, entry.state), pieces())
        await _check(client, log, entry)
        progress(f"{log} log: restored up to position {entry.position}")


async def _check(client: NatsClient, log: str, entry: LogBackup) -> None:
    """Raise when a restored log does not hold what was backed up."""
    stream = await find_stream(client, log)
    store = JetStreamStore(client, log, LOGS[log])
    if stream is None or not await store.find():
        raise StoreUnavailable(f"the {log} log is missing after the restore")
    event = await store.event_at(entry.position)
    holds = (mark_of(event.id) if event else "") == entry.mark
    if int(stream.state["messages"]) < entry.messages or not holds:
        raise StoreUnavailable(f"the restored {log} log differs from its backup")


async def _begin_epochs(client: NatsClient, manifest: Manifest, settings: Settings) -> dict[str, int]:
    """Begin an epoch in every log: whoever saw what came after the backup must not take these for those positions."""
    epochs = {}
    for log in manifest.logs:
        store = JetStreamStore(client, log, LOGS[log])
        await store.find()
        epoch = next_epoch(store.epochs, time.time_ns() // 1_000_000)
        began = v1.LogEpochBegan(
            epoch=epoch,
            previous_epoch=store.epochs[-1],
            kept_until=await store.head(),
            detail=f"restored from a backup of {manifest.created}",
        )
        await begin_epoch(store, began, Metadata(operator(settings), "rollforward restore"))
        epochs[log] = epoch
    return epochs
