"""The turn of a collection in a bucket: an object that is made once, renewed as long as the turn lasts, and removed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from eventstore import end
from services.artifacts.digests import collection_running

if TYPE_CHECKING:
    from obstore import ObjectMeta, UpdateVersion

LEASE_SECONDS = 600.0

_KEY = "collection.lock"


class Lease:
    """A turn that lasts until it was not renewed for half of the time after which another one may begin."""

    resolution = 1.0

    def __init__(self, store: S3Store, tag: str, began: float, seconds: float) -> None:
        self.began = began
        self._store = store
        self._tag = tag
        self._seconds = seconds
        self._until = time.monotonic() + seconds / 2

    def lasts(self) -> bool:
        """Implement `Turn.lasts`."""
        return time.monotonic() < self._until

    async def renew(self) -> None:
        """Renew the lease periodically, until another collection holds it."""
        while True:
            await asyncio.sleep(self._seconds / 10)
            sent = time.monotonic()
            try:
                self._tag = await _write(self._store, {"e_tag": self._tag})
            except (PreconditionError, FileNotFoundError):
                self._until = 0.0
                return
            except BaseError:
                continue  # it lasts as long as it was renewed for
            self._until = sent + self._seconds / 2

    async def give_back(self) -> None:
        """Release the lease, so that others can start at once."""
        if self.lasts():
            await obstore.delete_async(self._store, _KEY)


@asynccontextmanager
async def leased(store: S3Store, seconds: float = LEASE_SECONDS) -> AsyncGenerator[Lease]:
    """Hold the lease of a collection; a lease that was not renewed in time has ended.

    Raises `Rejected` COLLECTION_RUNNING when another one has it.
    """
    tag = await _take(store, seconds)
    lease = Lease(store, tag, _seconds(await obstore.head_async(store, _KEY)), seconds)
    renewing = asyncio.create_task(lease.renew())
    try:
        yield lease
    finally:
        await end(renewing)
        await lease.give_back()


async def _take(store: S3Store, seconds: float) -> str:
    try:
        return await _write(store, "create")
    except AlreadyExistsError:
        lock = await _read_lock(store)
    if lock is None:  # it was just given back
        return await _take(store, seconds)
    if await _now(store) - _seconds(lock) < seconds:
        raise collection_running()
    try:
        return await _write(store, {"e_tag": lock["e_tag"] or ""})
    except PreconditionError as error:
        raise collection_running() from error


async def _write(store: S3Store, mode: UpdateVersion | str) -> str:
    body = uuid.uuid4().bytes  # another one each time, and so another tag
    return (await obstore.put_async(store, _KEY, body, mode=mode))["e_tag"] or ""  # type: ignore[arg-type]


async def _read_lock(store: S3Store) -> ObjectMeta | None:
    try:
        return await obstore.head_async(store, _KEY)
    except FileNotFoundError:
        return None


async def _now(store: S3Store) -> float:
    """Return the time by the store's clock."""
    key = f"{_KEY}.clock"
    await obstore.put_async(store, key, b"")
    return _seconds(await obstore.head_async(store, key))


def _seconds(meta: ObjectMeta) -> float:
    last_modified: datetime = meta["last_modified"]
    return last_modified.timestamp()
