"""Blobs as objects of an S3 bucket.

What a crash leaves behind are parts of a multipart upload, which a bucket's lifecycle rule should remove. Setting aside
and putting back copy before anything is deleted, and only a collection deletes, so that a blob is always somewhere.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from services.artifacts.digests import check_upload_id, digest_at, end_of, key_of, not_found, upload_not_found
from services.artifacts.s3 import presigned
from services.artifacts.s3.bucket import Bucket, in_reach
from services.artifacts.s3.lease import Lease, leased
from services.artifacts.store import Entry
from services.artifacts.uploads import Received, Spool, Upload

_REQUESTS = 64  # requests of one call that are under way at a time

_Found = TypeVar("_Found")


class S3Blobs:
    """Blobs in a bucket; `folder` is "" or ends in "/". Uploads are received in `spool`, on this machine.

    Args:
        direct: Whether clients may transfer past the service.
    """

    def __init__(self, bucket: Bucket, spool: Spool, folder: str = "", *, direct: bool = True) -> None:
        self._bucket = bucket
        self._spool = spool
        self._folder = folder
        self._direct = direct

    async def sizes(self, digests: Collection[str]) -> dict[str, int]:
        """Implement `BlobStore.sizes`."""
        return await self._each(digests, self._find)

    async def keep(self, digests: Collection[str]) -> dict[str, int]:
        """Implement `BlobStore.keep`."""
        return await self._each(digests, self._put_back)

    async def put(self, digest: str, chunks: AsyncIterator[bytes], upload: Upload | None = None) -> int:
        """Implement `BlobStore.put`."""
        key = self._key(digest)

        async def publish(received: Received) -> None:
            with os.fdopen(received.fd, "rb", closefd=False) as file:
                file.seek(0)
                await self._bucket.create(key, file, received.size)

        return await self._spool.receive(digest, chunks, upload, lambda: self._stored(digest), publish)

    async def _stored(self, digest: str) -> int | None:
        return (await self.keep([digest])).get(digest)

    async def received(self, upload_id: str) -> int:
        """Implement `BlobStore.received`."""
        return await self._spool.received(upload_id)

    async def open(self, digest: str, offset: int = 0, length: int = 0) -> AsyncGenerator[bytes, None]:
        """Implement `BlobStore.open`."""
        key, size = await self._locate(digest)
        end = end_of(digest, offset, length, size)
        while offset < end:
            try:
                async for chunk in self._bucket.read(key, offset, end):
                    offset += len(chunk)
                    yield chunk
            except FileNotFoundError:  # it was set aside or put back meanwhile
                key, _ = await self._locate(digest)

    def within(self, name: str) -> S3Blobs:
        """Implement `BlobStore.within`."""
        return S3Blobs(self._bucket, self._spool, f"{self._folder}{name}/", direct=self._direct)

    async def sign_uploads(self, upload_ids: Sequence[str]) -> list[str]:
        """Implement `BlobStore.sign_uploads`."""
        return await presigned.sign_uploads(self._bucket, upload_ids) if self._direct else []

    async def commit(self, digest: str, upload_id: str) -> int:
        """Implement `BlobStore.commit`."""
        check_upload_id(upload_id)
        size = await presigned.commit(self._bucket, digest, upload_id, self._key(digest))
        if size is None:  # perhaps a repetition of one that was committed
            size = await self._stored(digest)
        if size is None:
            raise upload_not_found(upload_id)
        return size

    async def sign_downloads(self, digests: Sequence[str]) -> list[str]:
        """Implement `BlobStore.sign_downloads`."""
        places = await self._each(digests, self._find_place)
        for digest in digests:
            if digest not in places:
                raise not_found(digest)
        return await self._bucket.sign("GET", [places[digest][0] for digest in digests]) if self._direct else []

    @asynccontextmanager
    async def collecting(self) -> AsyncGenerator[Lease]:
        """Implement `BlobStore.collecting`."""
        with in_reach():
            async with leased(self._bucket.store) as lease:
                yield lease

    async def entries(self, *, aside: bool) -> AsyncGenerator[list[Entry], None]:
        """Implement `BlobStore.entries`."""
        place = f"trash/{self._folder}" if aside else self._folder
        async for page in self._bucket.below(f"{place}sha256/"):
            named = [(digest_at(meta["path"].removeprefix(place)), meta) for meta in page]
            yield [Entry(digest, meta["size"], meta["last_modified"].timestamp()) for digest, meta in named if digest]

    async def set_aside(self, digest: str, still: Callable[[], bool]) -> bool:
        """Implement `BlobStore.set_aside`."""
        if not await self._bucket.copy(self._key(digest), self._aside(digest)) or not still():
            return False
        await self._bucket.delete(self._key(digest))
        return True

    async def remove(self, digest: str) -> None:
        """Implement `BlobStore.remove`."""
        await self._bucket.delete(self._aside(digest))

    async def discard_abandoned(self) -> None:
        """Implement `BlobStore.discard_abandoned`."""
        await asyncio.to_thread(self._spool.prepare)
        await presigned.discard_abandoned(self._bucket)

    def _key(self, digest: str) -> str:
        return f"{self._folder}{key_of(digest)}"

    def _aside(self, digest: str) -> str:
        return f"trash/{self._folder}{key_of(digest)}"

    async def _find_place(self, digest: str) -> tuple[str, int] | None:
        # The first place twice: it may be put back there after one has looked.
        for key in (self._key(digest), self._aside(digest), self._key(digest)):
            size = await self._bucket.size(key)
            if size is not None:
                return key, size
        return None

    async def _find(self, digest: str) -> int | None:
        place = await self._find_place(digest)
        return place[1] if place else None

    async def _locate(self, digest: str) -> tuple[str, int]:
        place = await self._find_place(digest)
        if place is None:
            raise not_found(digest)
        return place

    async def _put_back(self, digest: str) -> int | None:
        """Return the size of a blob that is in its place now; only such a blob is certain to stay."""
        size = await self._bucket.size(self._key(digest))
        if size is None:
            await self._bucket.copy_soon(self._aside(digest), self._key(digest))
            size = await self._bucket.size(self._key(digest))
        return size

    @staticmethod
    async def _each(digests: Collection[str], find: Callable[[str], Awaitable[_Found | None]]) -> dict[str, _Found]:
        for digest in digests:
            key_of(digest)
        wanted = list(dict.fromkeys(digests))
        known: dict[str, _Found | None] = {}
        for start in range(0, len(wanted), _REQUESTS):
            chunk = wanted[start : start + _REQUESTS]
            known |= dict(zip(chunk, await asyncio.gather(*map(find, chunk)), strict=True))
        return {digest: found_object for digest, found_object in known.items() if found_object is not None}
