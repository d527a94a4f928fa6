"""Uploads on their way: files in which bytes wait until all of them are there and are what they were said to be.

An upload with an id stays when its call breaks off, across restarts of the service too, and goes on from where it was;
one without leaves nothing. What nobody went on with for a day is removed.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from eventstore.errors import Kind, Rejected, StoreUnavailable
from services.tracking.digests import CHUNK, check_digest_is, check_room, check_upload_id, room

ABANDONED = 24 * 60 * 60
"""Seconds since anything was written to an upload's file, after which it is removed."""


_T = TypeVar("_T")


class Upload(NamedTuple):
    """Which upload a call goes on with, from which byte, and of how many in all, as far as it was said."""

    upload_id: str
    offset: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Received:
    """A file that holds all of a blob, open and locked as `fd`; whoever renames it keeps it.

    Threads that use it must be waited for by `to_its_end`.
    """

    path: Path
    fd: int
    size: int


class _Receiving:
    """A call that is being received, until a later one for the same upload wants it to give way."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self._scope: asyncio.Timeout | None = None
        self._unwanted = False

    def give_way(self) -> None:
        """End it, unless it has all bytes already."""
        if self._scope and not self._unwanted:
            self._scope.reschedule(0)
        self._unwanted = True

    @asynccontextmanager
    async def wanted(self) -> AsyncGenerator[None]:
        """Raises `StoreUnavailable` UPLOAD_TAKEN inside, at once, when it has to give way."""
        if self._unwanted:
            raise _taken_over()
        try:
            async with asyncio.timeout(None) as scope:
                self._scope = scope
                try:
                    yield
                finally:
                    self._scope = None
        except TimeoutError as error:
            raise _taken_over() from error


class Spool:
    """Files of uploads in a folder, which is made when the first one comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._receiving: dict[str, _Receiving] = {}

    def prepare(self) -> None:
        """Make the folder, and rid it of what was abandoned. Blocks."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # it was completed, or another process was faster
                if time.time() - path.stat().st_mtime > ABANDONED:
                    _remove_unless_held(path)

    async def received(self, upload_id: str) -> int:
        """How many bytes of an upload were received. Raises `Rejected` INVALID_UPLOAD_ID."""
        check_upload_id(upload_id)
        try:
            return (await asyncio.to_thread((self._folder / upload_id).stat)).st_size
        except FileNotFoundError:
            return 0

    @asynccontextmanager
    async def receive(
        self, digest: str, chunks: AsyncIterator[bytes], upload: Upload | None
    ) -> AsyncGenerator[Received]:
        """All bytes of a blob, verified, in a file that is removed afterwards unless it was renamed.

        A later call for the same upload takes it over from one that is still being received.
        Raises `Rejected` DIGEST_MISMATCH, INVALID_UPLOAD_ID or INVALID_OFFSET, `StoreUnavailable` BLOB_STORE_FULL or
        UPLOAD_TAKEN. Nothing stays of a mismatch, nor of what filled the disk: the log may be on the same.
        """
        await asyncio.to_thread(self.prepare)
        if upload is None:
            async with self._new_file() as (path, fd):
                yield Received(path, fd, await _fill(fd, digest, chunks))
            return
        check_upload_id(upload.upload_id)
        path = self._folder / upload.upload_id
        async with self._taken(upload.upload_id) as call, _held(path) as fd:
            try:
                async with call.wanted():
                    size = await _go_on(fd, digest, chunks, upload)
            except (Rejected, StoreUnavailable) as error:
                if error.reason in {"DIGEST_MISMATCH", "BLOB_STORE_FULL"}:
                    _remove(fd, path)
                raise
            yield Received(path, fd, size)
            _remove(fd, path)

    @asynccontextmanager
    async def _new_file(self) -> AsyncGenerator[tuple[Path, int]]:
        with room():
            fd, name = tempfile.mkstemp(dir=self._folder)  # at once: a thread's would be lost with a cancelled call
        try:
            yield Path(name), fd
        finally:
            os.close(fd)
            # Of a call that is cancelled again meanwhile, a thread that has not begun would never begin.
            await to_its_end(partial(Path(name).unlink, missing_ok=True))

    @asynccontextmanager
    async def _taken(self, upload_id: str) -> AsyncGenerator[_Receiving]:
        """This call as the one that an upload is received from; the one before it ends."""
        while before := self._receiving.get(upload_id):
            before.give_way()
            await before.over.wait()
        mine = self._receiving[upload_id] = _Receiving()
        try:
            yield mine
        finally:
            del self._receiving[upload_id]
            mine.over.set()


@asynccontextmanager
async def _held(path: Path) -> AsyncGenerator[int]:
    """The file of an upload, locked. Raises `StoreUnavailable` UPLOAD_TAKEN when another process has it."""
    with room():
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken_over() from error
        if not _is_at(fd, path):  # it was completed between the two: it is a blob now, and not to be written
            raise _taken_over()
        yield fd
    finally:
        os.close(fd)


async def _go_on(fd: int, digest: str, chunks: AsyncIterator[bytes], upload: Upload) -> int:
    held = os.fstat(fd).st_size
    if upload.offset == 0:
        os.ftruncate(fd, 0)
    elif upload.offset != held:
        message = f"{held} bytes of this upload were received, not {upload.offset}"
        raise Rejected(Kind.INVALID, "INVALID_OFFSET", message, size_bytes=str(held))
    check_room(fd, upload.size - upload.offset)
    return await _fill(fd, digest, chunks, upload.size)


async def _fill(fd: int, digest: str, chunks: AsyncIterator[bytes], wanted: int = 0) -> int:
    """Append the chunks to a file, and return how many bytes it has.

    Raises `Rejected` DIGEST_MISMATCH, `StoreUnavailable` UPLOAD_INCOMPLETE when there are fewer than `wanted`: a client
    that died may look like one that has said all.
    """
    sha256 = hashlib.sha256()

    def reread() -> None:
        while held := os.read(fd, CHUNK):
            sha256.update(held)

    def absorb(chunk: bytes) -> None:
        sha256.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]

    with room():
        await to_its_end(reread)
        async for chunk in chunks:
            await to_its_end(partial(absorb, chunk))
            if 0 < wanted < os.fstat(fd).st_size:
                break  # it is another blob already, and would only fill the disk
    size = os.fstat(fd).st_size
    if size < wanted:
        raise StoreUnavailable(f"{size} of {wanted} bytes were received", "UPLOAD_INCOMPLETE")
    check_digest_is(digest, f"sha256:{sha256.hexdigest()}", size)
    return size


async def to_its_end(work: Callable[[], _T]) -> _T:
    """Do this in a thread, and go on only when it is done, cancelled or not: a file that it uses is closed later."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    finally:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])


def _remove(fd: int, path: Path) -> None:
    if _is_at(fd, path):
        path.unlink()


def _remove_unless_held(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(fd, path)
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _taken_over() -> StoreUnavailable:
    return StoreUnavailable("another call goes on with this upload", "UPLOAD_TAKEN")
