"""Objects of an S3 bucket, by key: read, written, copied and listed in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import IO, TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from eventstore import StoreUnavailable
from services.artifacts.digests import CHUNK
from services.artifacts.uploads import to_its_end

if TYPE_CHECKING:
    from obstore import ObjectMeta

URL_LIFE = timedelta(hours=1)

_PART = 8 * CHUNK  # an object up to this size goes up in one request
_PARTS = 10_000  # S3 takes no more in one upload
_COPIED = 1024**3  # S3 copies up to 5 GiB by itself; but its answer has to come within the request's timeout
_SOON = 5.0  # seconds
_CONCURRENCY = 2  # parts of an object that are sent at a time
_WHOLE, _IN_PARTS = 16, 2  # objects that are written at a time: memory holds up to 8 MiB of one, and three parts of one
_LISTED = 500


class Bucket:
    """The objects below a bucket's prefix.

    Every method raises `StoreUnavailable` if the bucket is out of reach.
    """

    def __init__(self, store: S3Store) -> None:
        self.store = store
        self._copying: dict[str, asyncio.Task[bool]] = {}
        self._whole, self._in_parts = asyncio.Semaphore(_WHOLE), asyncio.Semaphore(_IN_PARTS)

    async def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when there is none."""
        with in_reach():
            try:
                return (await obstore.head_async(self.store, key))["size"]
            except FileNotFoundError:
                return None

    async def create(self, key: str, file: IO[bytes], size: int) -> None:
        """Write an object from a file. Under one key there is ever one content: who overwrites it does no harm."""
        with in_reach():
            if size <= _PART:
                async with self._whole:
                    await obstore.put_async(self.store, key, await to_its_end(file.read))
            elif await self.size(key) != size:
                await self._put_in_parts(key, _chunks(file), size)

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield an object's bytes between two offsets, at most `CHUNK` at once. Raises `FileNotFoundError`."""
        # A request per part, not one for all: a slow reader would run into the request's timeout.
        for at in range(start, end, _PART):
            with in_reach():
                part = await obstore.get_range_async(self.store, key, start=at, end=min(at + _PART, end))
            view = memoryview(part)
            for offset in range(0, len(view), CHUNK):
                yield bytes(view[offset : offset + CHUNK])

    async def copy(self, source: str, target: str) -> bool:
        """Copy an object over what is at the target; False when there is none."""
        size = await self.size(source)
        if size is None:
            return False
        try:
            with in_reach():
                if size <= _COPIED:
                    await obstore.copy_async(self.store, source, target)
                else:
                    await self._put_in_parts(target, self.read(source, 0, size), size)
        except FileNotFoundError:
            return False
        return True

    async def copy_soon(self, source: str, target: str) -> bool:
        """Copy as `copy` does, within a time limit; False also when it takes longer: the copy then continues."""
        copying = self._copying.get(target)
        if copying is None:
            copying = self._copying[target] = asyncio.create_task(self.copy(source, target))
            copying.add_done_callback(lambda done: self._forget(target, done))
        await asyncio.wait([copying], timeout=_SOON)
        return copying.done() and copying.result()

    async def delete(self, key: str) -> None:
        """Remove an object if it is there."""
        with in_reach():
            await obstore.delete_async(self.store, key)

    async def below(self, prefix: str) -> AsyncGenerator[Sequence[ObjectMeta], None]:
        """Yield all objects whose keys begin with a prefix, in batches."""
        pages = obstore.list(self.store, prefix, chunk_size=_LISTED)
        while True:
            with in_reach():
                page = await anext(pages, None)
            if page is None:
                return
            yield page

    async def sign(self, method: Literal["GET", "PUT"], keys: Sequence[str]) -> list[str]:
        """Return a presigned URL for each object, valid for an hour."""
        with in_reach():
            return list(await obstore.sign_async(self.store, method, list(keys), URL_LIFE)) if keys else []

    def _forget(self, target: str, copied: asyncio.Task[bool]) -> None:
        del self._copying[target]
        if not copied.cancelled():
            copied.exception()  # whoever waits for it is told; nobody may

    async def _put_in_parts(self, key: str, chunks: AsyncIterator[bytes], size: int) -> None:
        # Of a file, obstore would hold twice as much.
        part = max(_PART, -(-size // _PARTS))
        async with self._in_parts:
            await obstore.put_async(
                self.store, key, chunks, use_multipart=True, chunk_size=part, max_concurrency=_CONCURRENCY
            )


@contextmanager
def in_reach() -> Iterator[None]:
    """Turn an error of the bucket into `StoreUnavailable`."""
    try:
        yield
    except BaseError as error:
        refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        message = (
            "the blob store denies access. Check the service's credentials"
            if refused
            else "the blob store cannot be reached"
        )
        raise StoreUnavailable(message, "BLOB_STORE_UNAVAILABLE") from error


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    while chunk := await to_its_end(partial(file.read, CHUNK)):
        yield chunk
