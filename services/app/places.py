"""The places of a process: its data directory, its database, its artifacts, and what they know of the logs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa
from obstore.exceptions import BaseError

from eventstore import Database, Generations, Kind, Rejected, Snapshots, StoreUnavailable, error_text
from services.artifacts.objects import ObjectPlace, open_objects
from services.event_logs import Derived, Knowledge
from services.file_permissions import make_private
from services.nats.data_directory import DirectoryLock
from services.service import Service
from services.settings import Settings


def open_places(settings: Settings) -> tuple[Database, ObjectPlace]:
    """Open the database and the object store, before anything is started that an invalid place would stop.

    Raises:
        Rejected: INVALID_SETTING.
    """
    with checking_places():
        if {"tracking", "registry"} & set(settings.services) and "://" not in settings.artifacts_location:
            Path(settings.artifacts_location).mkdir(parents=True, exist_ok=True)
        return Database(settings.database_location), open_objects(settings.artifacts_location)


async def lock_data_directory(settings: Settings, stack: AsyncExitStack) -> None:
    """Keep other processes off the data directory, and a second process with one of these services.

    A second one would deliver webhooks twice. A process that keeps nothing in the directory does not touch it: its file
    system may be read-only.

    Raises:
        DataDirectoryError: Another process has it.
    """
    if not settings.keeps_files:
        return
    for service in settings.services:
        lock = await DirectoryLock.acquire(settings.data, f"locks/{service}")
        stack.callback(lock.release)
    await asyncio.to_thread(make_private, settings.data)


async def read_knowledge(
    settings: Settings, services: Sequence[Service], database: Database, objects: ObjectPlace
) -> Knowledge:
    """Return what rows, snapshots and notes know of the logs.

    Raises:
        StoreUnavailable: DATABASE_UNAVAILABLE.
    """
    derived: dict[str, list[tuple[Generations, Snapshots]]] = {}
    for service in services:
        for projection in service.projections:
            generations = Generations(projection.create(), database)
            derived.setdefault(projection.log, []).append((generations, Snapshots(generations, objects)))
    knowledge = Knowledge(settings.data, [Derived(log, rows) for log, rows in derived.items()])
    with checking_database():
        await asyncio.to_thread(knowledge.read)
    return knowledge


@contextmanager
def checking_places() -> Iterator[None]:
    """Turn the error of an unusable place into a rejected setting."""
    try:
        yield
    except (ValueError, ImportError, OSError, BaseError, sa.exc.ArgumentError) as error:
        message = f"cannot open the database or artifact store: {error_text(error)}"
        raise Rejected(Kind.INVALID, "INVALID_SETTING", message) from error


@contextmanager
def checking_database() -> Iterator[None]:
    """Turn an error of the database into `StoreUnavailable`."""
    try:
        yield
    except (sa.exc.DBAPIError, OSError) as error:
        text = error_text(getattr(error, "orig", error))
        raise StoreUnavailable(f"cannot use the database: {text}", "DATABASE_UNAVAILABLE") from error
