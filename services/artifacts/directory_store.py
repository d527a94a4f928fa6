"""Blobs as files of a directory, which one machine's processes may share.

`put` returns when the file and the entries that lead to it are on disk. Setting aside and putting back rename, so that
a blob is in one place at each moment.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

from eventstore import sync_directory, try_lock
from services.artifacts.digests import (
    CHUNK,
    budget,
    check_upload_id,
    collection_running,
    digest_at,
    end_of,
    hex_of,
    key_of,
    not_found,
    upload_not_found,
)
from services.artifacts.store import Entry
from services.artifacts.uploads import Received, Spool, Upload, to_its_end

_LISTED = 500  # blobs listed at a time


class Locked:
    """The turn of the collection that holds a directory's lock: it ends with the process."""

    resolution = 0.05

    def __init__(self, fd: int) -> None:
        os.utime(fd)
        self.began = os.fstat(fd).st_mtime  # by the clock of the file system, which may be another machine's

    def lasts(self) -> bool:
        """Implement `Turn.lasts`."""
        return True


class LocalBlobs:
    """Blobs below the directory `root`; `folder` is "" or ends in "/"."""

    def __init__(self, root: Path, spool: Spool, folder: str = "") -> None:
        self._root = root
        self._spool = spool
        self._folder = folder

    async def sizes(self, digests: Collection[str]) -> dict[str, int]:
        """Implement `BlobStore.sizes`."""
        return await asyncio.to_thread(self._sizes, digests, self._find)

    async def keep(self, digests: Collection[str]) -> dict[str, int]:
        """Implement `BlobStore.keep`."""
        return await asyncio.to_thread(self._sizes, digests, self._put_back)

    async def put(self, digest: str, chunks: AsyncIterator[bytes], upload: Upload | None = None) -> int:
        """Implement `BlobStore.put`."""
        path = self._path(digest)

        def publish(received: Received) -> Awaitable[None]:
            return to_its_end(partial(self._publish, received, path))

        return await self._spool.receive(digest, chunks, upload, lambda: self._stored(digest), publish)

    async def _stored(self, digest: str) -> int | None:
        return (await self.keep([digest])).get(digest)

    async def received(self, upload_id: str) -> int:
        """Implement `BlobStore.received`."""
        return await self._spool.received(upload_id)

    async def open(self, digest: str, offset: int = 0, length: int = 0) -> AsyncGenerator[bytes, None]:
        """Implement `BlobStore.open`."""
        with self._open(digest) as file:  # at once: a thread's would be lost with a cancelled call
            left = end_of(digest, offset, length, os.fstat(file.fileno()).st_size) - offset
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, min(CHUNK, left)):
                left -= len(chunk)
                yield chunk

    def within(self, name: str) -> LocalBlobs:
        """Implement `BlobStore.within`."""
        return LocalBlobs(self._root, self._spool, f"{self._folder}{name}/")

    async def sign_uploads(self, upload_ids: Sequence[str]) -> list[str]:  # noqa: ARG002 - files have no URLs
        """Implement `BlobStore.sign_uploads`."""
        return []

    async def commit(self, digest: str, upload_id: str) -> int:
        """Implement `BlobStore.commit`."""
        hex_of(digest)
        check_upload_id(upload_id)
        raise upload_not_found(upload_id)

    async def sign_downloads(self, digests: Sequence[str]) -> list[str]:
        """Implement `BlobStore.sign_downloads`."""
        stored = await self.sizes(digests)
        for digest in digests:
            if digest not in stored:
                raise not_found(digest)
        return []

    @asynccontextmanager
    async def collecting(self) -> AsyncGenerator[Locked]:
        """Implement `BlobStore.collecting`."""
        fd = os.open(self._root / "collection.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(fd)
            yield Locked(fd)
        finally:
            os.close(fd)

    async def entries(self, *, aside: bool) -> AsyncGenerator[list[Entry], None]:
        """Implement `BlobStore.entries`."""
        digests = _walk((self._trash if aside else self._root) / self._folder)
        while page := await asyncio.to_thread(lambda: list(islice(digests, _LISTED))):
            yield page

    async def set_aside(self, digest: str, still: Callable[[], bool]) -> bool:
        """Implement `BlobStore.set_aside`."""
        return await asyncio.to_thread(self._set_aside, digest, still)

    async def remove(self, digest: str) -> None:
        """Implement `BlobStore.remove`."""
        await asyncio.to_thread(self._aside(digest).unlink, missing_ok=True)

    async def discard_abandoned(self) -> None:
        """Implement `BlobStore.discard_abandoned`."""
        await asyncio.to_thread(self._spool.prepare)

    @property
    def _trash(self) -> Path:
        return self._root / "trash"

    def _path(self, digest: str) -> Path:
        return self._root / f"{self._folder}{key_of(digest)}"

    def _aside(self, digest: str) -> Path:
        return self._trash / f"{self._folder}{key_of(digest)}"

    def _sizes(self, digests: Collection[str], find: Callable[[str], int | None]) -> dict[str, int]:
        return {digest: size for digest in digests if (size := find(digest)) is not None}

    def _find(self, digest: str) -> int | None:
        for path in self._places(digest):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return None

    def _open(self, digest: str) -> IO[bytes]:
        for path in self._places(digest):
            with suppress(FileNotFoundError):
                return path.open("rb")
        raise not_found(digest)

    def _places(self, digest: str) -> tuple[Path, Path, Path]:
        """Return where a blob may be, the first place again at the end: it may be put back there meanwhile."""
        return self._path(digest), self._aside(digest), self._path(digest)

    def _put_back(self, digest: str) -> int | None:
        """Return the size of a blob that is in its place now; only such a blob is certain to stay."""
        path, aside = self._path(digest), self._aside(digest)
        for _ in range(2):  # another may set it aside, or put it back, while one looks
            with suppress(FileNotFoundError):
                return path.stat().st_size
            with suppress(FileNotFoundError):
                os.utime(aside)
                self._move(aside, path)
        with suppress(FileNotFoundError):
            return path.stat().st_size
        return None

    def _set_aside(self, digest: str, still: Callable[[], bool]) -> bool:
        path, aside = self._path(digest), self._aside(digest)
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.utime(path)  # before it moves: it must never be there with an older time
        if not still():
            return False
        self._move(path, aside)
        return True

    def _publish(self, received: Received, path: Path) -> None:
        with budget():
            os.fsync(received.fd)
            os.utime(received.fd)
            # Also over a blob that is there: its writer may not have come to the syncs yet.
            self._move(received.path, path)

    def _move(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        for folder in target.relative_to(self._root).parents:
            sync_directory(self._root / folder)


def _lock(fd: int) -> None:
    if not try_lock(fd):
        raise collection_running()


def _walk(folder: Path) -> Iterator[Entry]:
    for path in folder.glob("sha256/*/*"):
        digest = digest_at(path.relative_to(folder).as_posix())
        if digest:
            with suppress(FileNotFoundError):  # it was moved meanwhile
                status = path.stat()
                yield Entry(digest, status.st_size, status.st_mtime)
