"""Resumable uploads: after lost connections, restarts and crashes, and with concurrent calls."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator

import pytest

from eventstore.errors import Kind, Rejected, StoreUnavailable
from services.artifacts import receiving
from services.artifacts.digests import CHUNK
from services.artifacts.store import BlobStore
from services.artifacts.uploads import Upload
from tests.contract.artifacts.blob_places import MIB, Place, digest_of, pieces, read
from tests.servers.nats import until

DATA = random.Random(0).randbytes(10 * MIB + 5)
DIGEST = digest_of(DATA)


@pytest.fixture
def upload_id() -> str:
    return uuid.uuid4().hex


async def broken(data: bytes) -> AsyncIterator[bytes]:
    """Yield these bytes, then lose the connection."""
    async for chunk in pieces(data):
        yield chunk
    raise ConnectionResetError


async def stuck(data: bytes, begun: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield these bytes, then nothing, like a client that silently disappeared."""
    async for chunk in pieces(data):
        yield chunk
    begun.set()
    await asyncio.Event().wait()


async def interrupt(store: BlobStore, upload_id: str, size: int, digest: str = DIGEST) -> None:
    with pytest.raises(ConnectionResetError):
        await store.put(digest, broken(DATA[:size]), Upload(upload_id, 0))


async def resume(store: BlobStore, upload_id: str) -> int:
    offset = await store.received(upload_id)
    return await store.put(DIGEST, pieces(DATA[offset:]), Upload(upload_id, offset))


@pytest.mark.parametrize("size", [0, 1, 3 * MIB, len(DATA)])
async def test_interrupted_upload_is_resumed(place: Place, upload_id: str, size: int) -> None:
    await interrupt(place.store, upload_id, size)
    assert await place.store.sizes([DIGEST]) == {}
    again = place.opened_again()
    assert await again.received(upload_id) == size
    assert await resume(again, upload_id) == len(DATA)
    assert await read(place.store, DIGEST) == DATA
    assert await again.received(upload_id) == 0
    assert place.listed() == [f"sha256/{DIGEST[7:9]}/{DIGEST[7:]}"]


async def test_upload_resumes_at_received_offset_or_restarts(place: Place, upload_id: str) -> None:
    await interrupt(place.store, upload_id, 3 * MIB)
    for offset in (1, 3 * MIB - 1, 3 * MIB + 1, -1):
        with pytest.raises(Rejected) as refused:
            await place.store.put(DIGEST, pieces(DATA[offset:]), Upload(upload_id, offset))
        assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_OFFSET")
        assert await place.store.received(upload_id) == 3 * MIB
    assert await place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0)) == len(DATA)


async def test_upload_whose_chunks_end_early_is_resumed(place: Place, upload_id: str) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await place.store.put(DIGEST, pieces(DATA[: 3 * MIB]), Upload(upload_id, 0, len(DATA)))
    assert refused.value.reason == "UPLOAD_INCOMPLETE"
    assert await place.store.received(upload_id) == 3 * MIB
    assert await place.store.put(DIGEST, pieces(DATA[3 * MIB :]), Upload(upload_id, 3 * MIB, len(DATA))) == len(DATA)


async def test_resumed_upload_of_other_blob_is_rejected(place: Place, upload_id: str) -> None:
    await interrupt(place.store, upload_id, 3 * MIB, digest_of(b"another"))
    with pytest.raises(Rejected) as refused:
        await place.store.put(DIGEST, pieces(DATA[: -3 * MIB]), Upload(upload_id, 3 * MIB))
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert place.listed() == []


@pytest.mark.parametrize("upload_id", ["", "a" * 31, "A" * 32, "../" + "a" * 29, f"{'a' * 32}\n"])
async def test_invalid_upload_id_is_rejected(place: Place, upload_id: str) -> None:
    for call in (
        place.store.received(upload_id),
        place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0)),
        place.store.commit(DIGEST, upload_id),
    ):
        with pytest.raises(Rejected) as refused:
            await call
        assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_UPLOAD_ID")
    assert place.listed() == []


async def test_later_call_takes_over_stalled_upload(
    place: Place, upload_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 0.1)
    begun = asyncio.Event()
    first = asyncio.create_task(place.store.put(DIGEST, stuck(DATA[: 3 * MIB], begun), Upload(upload_id, 0)))
    await begun.wait()
    assert await resume(place.store, upload_id) == len(DATA)
    with pytest.raises(StoreUnavailable) as refused:
        await first
    assert refused.value.reason == "UPLOAD_TAKEN"


@pytest.mark.busy
async def test_concurrent_calls_for_one_upload_all_succeed(
    place: Place, upload_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 120.0)
    received: list[bytes] = []

    async def recorded(data: bytes) -> AsyncIterator[bytes]:
        async for chunk in pieces(data):
            received.append(chunk)
            yield chunk

    async def attempt() -> int:
        offset = await place.store.received(upload_id)
        return await place.store.put(DIGEST, recorded(DATA[offset:]), Upload(upload_id, offset))

    assert await asyncio.gather(*(attempt() for _ in range(12))) == [len(DATA)] * 12
    assert await read(place.store, DIGEST) == DATA
    assert b"".join(received) == DATA
    assert not (place.spool / upload_id).exists()


class FirstCall:
    """A call that has sent the first bytes of an upload, and continues or fails when the test decides."""

    def __init__(self, store: BlobStore, upload_id: str, size: int = 3 * MIB) -> None:
        self.begun, self.proceed, self.broken = asyncio.Event(), asyncio.Event(), False
        self._size = size
        self.call = asyncio.create_task(store.put(DIGEST, self._chunks(), Upload(upload_id, 0)))

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for chunk in pieces(DATA[: self._size]):
            yield chunk
        self.begun.set()
        await self.proceed.wait()
        if self.broken:
            raise ConnectionResetError
        async for chunk in pieces(DATA[self._size :]):
            yield chunk


@pytest.fixture
async def first_call(place: Place, upload_id: str, monkeypatch: pytest.MonkeyPatch) -> FirstCall:
    """Start a call for the upload, with a timeout so long that it never counts as stalled."""
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 120.0)
    first_call = FirstCall(place.store, upload_id)
    await first_call.begun.wait()
    await until(lambda: place.spool.joinpath(upload_id).stat().st_size == 3 * MIB)
    return first_call


@pytest.mark.busy
async def test_waiting_calls_succeed_once_blob_is_stored(place: Place, upload_id: str, first_call: FirstCall) -> None:
    waiting = [asyncio.create_task(resume(place.store, upload_id)) for _ in range(3)]
    await asyncio.sleep(0)
    first_call.proceed.set()
    assert await asyncio.gather(first_call.call, *waiting) == [len(DATA)] * 4
    assert await read(place.store, DIGEST) == DATA
    assert not (place.spool / upload_id).exists()


@pytest.mark.busy
async def test_waiting_call_takes_over_when_first_fails(place: Place, upload_id: str, first_call: FirstCall) -> None:
    waiting = [asyncio.create_task(resume(place.store, upload_id)) for _ in range(3)]
    await asyncio.sleep(0)
    first_call.broken = True
    first_call.proceed.set()
    with pytest.raises(ConnectionResetError):
        await first_call.call
    assert await asyncio.gather(*waiting) == [len(DATA)] * 3
    assert await read(place.store, DIGEST) == DATA


async def test_upload_of_stored_blob_succeeds_and_leaves_nothing(place: Place, upload_id: str) -> None:
    await place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0))
    assert await place.store.put(DIGEST, pieces(DATA[3 * MIB :]), Upload(upload_id, 3 * MIB)) == len(DATA)
    assert place.listed() == [f"sha256/{DIGEST[7:9]}/{DIGEST[7:]}"]


async def test_call_that_cannot_resume_leaves_nothing(place: Place, upload_id: str) -> None:
    with pytest.raises(Rejected) as refused:
        await place.store.put(DIGEST, pieces(DATA[3 * MIB :]), Upload(upload_id, 3 * MIB))
    assert refused.value.reason == "INVALID_OFFSET"
    assert place.listed() == []


HOLDING = """
import asyncio, sys
from pathlib import Path
from services.artifacts.open_store import open_blob_store
from services.artifacts.uploads import Upload

async def stuck():
    yield bytes(1024)
    print("begun", flush=True)
    await asyncio.Event().wait()

upload = Upload(sys.argv[3], 0)
asyncio.run(open_blob_store(sys.argv[1], Path(sys.argv[2])).put("sha256:" + "0" * 64, stuck(), upload))
"""


@pytest.mark.busy
async def test_upload_received_by_other_process_is_locked(
    place: Place, upload_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 0.1)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLDING, place.url, str(place.spool), upload_id),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"begun\n"
    with pytest.raises(StoreUnavailable) as refused:
        await place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0))
    assert refused.value.reason == "UPLOAD_TAKEN"
    assert await place.store.received(upload_id) == 1024
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 120.0)
    waiting = asyncio.create_task(place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0)))
    await asyncio.sleep(0)
    child.kill()
    await child.wait()
    assert await waiting == len(DATA)


async def test_upload_cancelled_at_any_moment_is_resumed(place: Place, upload_id: str) -> None:
    numbers = random.Random(2)
    for _ in range(12):
        call = asyncio.create_task(resume(place.store, upload_id))
        await asyncio.sleep(numbers.random() / 50)
        call.cancel()
        await asyncio.wait([call])
    if DIGEST not in await place.store.sizes([DIGEST]):
        await resume(place.store, upload_id)
    assert await read(place.store, DIGEST) == DATA


async def test_only_abandoned_uploads_are_removed(place: Place, upload_id: str) -> None:
    await interrupt(place.store, upload_id, 3 * MIB)
    other, begun = uuid.uuid4().hex, asyncio.Event()
    call = asyncio.create_task(place.store.put(DIGEST, stuck(DATA[:MIB], begun), Upload(other, 0)))
    await begun.wait()
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    for name in (upload_id, other):
        os.utime(place.spool / name, (two_days_ago, two_days_ago))
    await place.store.discard_abandoned()
    assert [await place.store.received(name) for name in (upload_id, other)] == [0, MIB]
    call.cancel()
    await asyncio.wait([call])


FULL = """
import asyncio, resource, sys
from pathlib import Path
from eventstore.errors import StoreUnavailable
from services.artifacts.open_store import open_blob_store
from services.artifacts.uploads import Upload

async def chunks():
    for _ in range(3):
        yield bytes(1024 * 1024)

# Act as a file system without room for files of over 2 MiB.
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 1024 * 1024, resource.RLIM_INFINITY))
store = open_blob_store(sys.argv[1], Path(sys.argv[2]))
for upload in (None, Upload(sys.argv[3], 0)):
    try:
        asyncio.run(store.put(sys.argv[4], chunks(), upload))
    except StoreUnavailable as error:
        print(error.reason, flush=True)
"""


async def test_full_disk_leaves_nothing(place: Place, upload_id: str) -> None:
    digest = f"sha256:{hashlib.sha256(bytes(3 * CHUNK)).hexdigest()}"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FULL, place.url, str(place.spool), upload_id, digest), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert output.split() == [b"BLOB_STORE_FULL"] * 2
    assert place.listed() == []
    assert await place.store.put(digest, pieces(bytes(3 * CHUNK))) == 3 * CHUNK


async def test_too_large_upload_is_rejected_before_it_begins(place: Place, upload_id: str) -> None:
    begun = asyncio.Event()
    with pytest.raises(StoreUnavailable) as refused:
        await place.store.put(DIGEST, stuck(DATA, begun), Upload(upload_id, 0, 2**62))
    assert refused.value.reason == "BLOB_STORE_FULL"
    assert not begun.is_set()
    assert place.listed() == []


async def test_upload_longer_than_announced_is_rejected_early(place: Place, upload_id: str) -> None:
    begun = asyncio.Event()
    with pytest.raises(Rejected) as refused:
        await place.store.put(DIGEST, stuck(DATA, begun), Upload(upload_id, 0, 2 * MIB))
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert not begun.is_set()
    assert place.listed() == []


async def test_commit_of_unknown_upload_is_rejected(place: Place, upload_id: str) -> None:
    with pytest.raises(Rejected) as refused:
        await place.store.commit(DIGEST, upload_id)
    assert (refused.value.kind, refused.value.reason) == (Kind.NOT_FOUND, "UPLOAD_NOT_FOUND")


async def test_cancelled_upload_is_unlocked(place: Place, upload_id: str) -> None:
    call = asyncio.create_task(place.store.put(DIGEST, stuck(DATA[:MIB], asyncio.Event()), Upload(upload_id, 0)))
    path = place.spool / upload_id
    await until(lambda: path.exists() and path.stat().st_size == MIB)
    call.cancel()
    await asyncio.wait([call])
    assert await resume(place.opened_again(), upload_id) == len(DATA)
