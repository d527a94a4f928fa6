"""Uploads in progress: files that collect the bytes of a blob until all of them have arrived and are verified.

An upload with an id stays when its call breaks off, even across restarts of the service, and can be continued. One
without an id leaves nothing. An upload that was abandoned for a day is removed. Calls for an upload that another call
receives wait for the blob, and take over when the other call stalls.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from eventstore import Kind, Rejected, StoreUnavailable, try_lock
from services.artifacts.digests import CHUNK, budget, check_digest_is, check_room, check_upload_id
from services.artifacts.receiving import Receiving, Stall, taken_over

ABANDONED = 24 * 60 * 60
"""Seconds since anything was written to an upload's file, after which it is removed."""

POLL_SECONDS = 0.1
"""How often a file is looked at that another process writes to."""

_T = TypeVar("_T")


class Upload(NamedTuple):
    """The upload that a call continues: its id, the first byte, and the size in bytes of the whole, 0 if not known."""

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


Stored = Callable[[], Awaitable[int | None]]
Publish = Callable[[Received], Awaitable[object]]


class Spool:
    """Files of uploads in a folder, which is made when the first one comes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._receiving: dict[str, Receiving] = {}

    def prepare(self) -> None:
        """Make the folder, and rid it of what was abandoned. Blocks."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):  # it was completed, or another process was faster
                if time.time() - path.stat().st_mtime > ABANDONED:
                    _remove_unless_locked(path)

    async def received(self, upload_id: str) -> int:
        """Return how many bytes of an upload were received. Raises `Rejected` INVALID_UPLOAD_ID."""
        check_upload_id(upload_id)
        try:
            return (await asyncio.to_thread((self._folder / upload_id).stat)).st_size
        except FileNotFoundError:
            return 0

    async def receive(
        self, digest: str, chunks: AsyncIterator[bytes], upload: Upload | None, stored: Stored, publish: Publish
    ) -> int:
        """Receive all bytes of a blob, verify and publish them, and return how many there are.

        A call for an upload that another is ahead with waits until the blob is there. It takes over when the one ahead
        ends without it, or when nothing more arrives from that for `STALLED_SECONDS`.

        Args:
            digest: The blob.
            chunks: Its bytes, from the upload's offset on.
            upload: The upload to continue, if it can be continued.
            stored: Finds the size of the blob if it is stored.
            publish: Stores the file of the blob; what it does not rename is removed.

        Raises:
            Rejected: DIGEST_MISMATCH, INVALID_UPLOAD_ID or INVALID_OFFSET.
            StoreUnavailable: BLOB_STORE_FULL or UPLOAD_TAKEN. Nothing stays of what filled the disk: the log may be on
                the same; nor of a mismatch.
        """
        await asyncio.to_thread(self.prepare)
        if upload is None:
            async with self._new_file() as (path, fd):
                size = await _fill(fd, digest, chunks)
                await publish(Received(path, fd, size))
                return size
        check_upload_id(upload.upload_id)
        path = self._folder / upload.upload_id
        async with self._taken(upload.upload_id) as call, _locked_file(path, call) as fd:
            there = await stored()  # by one that was ahead
            if there is None:
                there = await _received(fd, path, digest, chunks, upload, call)
                await publish(Received(path, fd, there))
            _remove(fd, path)
            return there

    @asynccontextmanager
    async def _new_file(self) -> AsyncGenerator[tuple[Path, int]]:
        with budget():
            fd, name = tempfile.mkstemp(dir=self._folder)  # at once: a thread's would be lost with a cancelled call
        try:
            yield Path(name), fd
        finally:
            os.close(fd)
            # Of a call that is cancelled again meanwhile, a thread that has not begun would never begin.
            await to_its_end(partial(Path(name).unlink, missing_ok=True))

    @asynccontextmanager
    async def _taken(self, upload_id: str) -> AsyncGenerator[Receiving]:
        """Make this call the one that receives an upload, once earlier calls have ended."""
        mine = Receiving()
        while before := self._receiving.get(upload_id):
            await before.outlast()
        self._receiving[upload_id] = mine
        try:
            yield mine
        finally:
            del self._receiving[upload_id]
            mine.over.set()


@asynccontextmanager
async def _locked_file(path: Path, call: Receiving) -> AsyncGenerator[int]:
    """Open the file of an upload, locked, once no other process receives it.

    Raises `StoreUnavailable` UPLOAD_TAKEN when nothing more arrives there.
    """
    stall = Stall()
    while True:
        with budget():
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            if try_lock(fd) and _is_at(fd, path):
                yield fd
                return
            # Another process has it; or it was completed between the two, is a blob now, and not to be written.
            call.steps += 1
            if stall.left(os.fstat(fd).st_size) <= 0:
                raise taken_over()
        finally:
            os.close(fd)
        await asyncio.sleep(POLL_SECONDS)


async def _received(
    fd: int, path: Path, digest: str, chunks: AsyncIterator[bytes], upload: Upload, call: Receiving
) -> int:
    try:
        async with call.wanted():
            return await _go_on(fd, digest, chunks, upload, call)
    except (Rejected, StoreUnavailable) as error:
        if error.reason in {"DIGEST_MISMATCH", "BLOB_STORE_FULL"} or not os.fstat(fd).st_size:
            _remove(fd, path)
        raise


async def _go_on(fd: int, digest: str, chunks: AsyncIterator[bytes], upload: Upload, call: Receiving) -> int:
    received = os.fstat(fd).st_size
    if upload.offset == 0:
        os.ftruncate(fd, 0)
    elif upload.offset != received:
        message = f"wrong offset {upload.offset}: expected {received}, the number of bytes received"
        raise Rejected(Kind.INVALID, "INVALID_OFFSET", message, size_bytes=str(received))
    check_room(fd, upload.size - upload.offset)
    return await _fill(fd, digest, chunks, upload.size, call)


async def _fill(
    fd: int, digest: str, chunks: AsyncIterator[bytes], wanted: int = 0, call: Receiving | None = None
) -> int:
    """Append the chunks to a file, and return how many bytes it has.

    Raises `Rejected` DIGEST_MISMATCH, `StoreUnavailable` UPLOAD_INCOMPLETE when there are fewer than `wanted`: a client
    that died may look like one that has said all.
    """
    sha256 = hashlib.sha256()
    call = call or Receiving()

    def reread() -> None:
        while chunk := os.read(fd, CHUNK):
            sha256.update(chunk)
            call.steps += 1

    def absorb(chunk: bytes) -> None:
        sha256.update(chunk)
        call.steps += 1
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]

    with budget():
        await to_its_end(reread)
        async for chunk in chunks:
            await to_its_end(partial(absorb, chunk))
            if 0 < wanted < os.fstat(fd).st_size:
                break  # it is another blob already, and would only fill the disk
    size = os.fstat(fd).st_size
    if size < wanted:
        raise StoreUnavailable(f"incomplete upload: received {size} of {wanted} bytes", "UPLOAD_INCOMPLETE")
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


def _remove_unless_locked(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if try_lock(fd):
            _remove(fd, path)
    finally:
        os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
