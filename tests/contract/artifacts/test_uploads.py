"""Uploads that go on where they broke off: after lost connections, restarts and crashes, and with others at once."""

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
    """These bytes, and then a lost connection."""
    async for chunk in pieces(data):
        yield chunk
    raise ConnectionResetError


async def stuck(data: bytes, begun: asyncio.Event) -> AsyncIterator[bytes]:
    """These bytes, and then nothing, as when the other side is gone without a word."""
    async for chunk in pieces(data):
        yield chunk
    begun.set()
    await asyncio.Event().wait()


async def break_off(store: BlobStore, upload_id: str, size: int, digest: str = DIGEST) -> None:
    with pytest.raises(ConnectionResetError):
        await store.put(digest, broken(DATA[:size]), Upload(upload_id, 0))


async def go_on(store: BlobStore, upload_id: str) -> int:
    offset = await store.received(upload_id)
    return await store.put(DIGEST, pieces(DATA[offset:]), Upload(upload_id, offset))


@pytest.mark.parametrize("size", [0, 1, 3 * MIB, len(DATA)])
async def test_an_upload_goes_on_where_it_broke_off(place: Place, upload_id: str, size: int) -> None:
    await break_off(place.store, upload_id, size)
    assert await place.store.sizes([DIGEST]) == {}
    again = place.opened_again()
    assert await again.received(upload_id) == size
    assert await go_on(again, upload_id) == len(DATA)
    assert await read(place.store, DIGEST) == DATA
    assert await again.received(upload_id) == 0
    assert place.listed() == [f"sha256/{DIGEST[7:9]}/{DIGEST[7:]}"]


async def test_an_upload_goes_on_from_what_was_received_or_anew(place: Place, upload_id: str) -> None:
    await break_off(place.store, upload_id, 3 * MIB)
    for offset in (1, 3 * MIB - 1, 3 * MIB + 1, -1):
        with pytest.raises(Rejected) as refused:
            await place.store.put(DIGEST, pieces(DATA[offset:]), Upload(upload_id, offset))
        assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_OFFSET")
        assert await place.store.received(upload_id) == 3 * MIB
    assert await place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0)) == len(DATA)


async def test_an_upload_whose_chunks_end_early_goes_on(place: Place, upload_id: str) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await place.store.put(DIGEST, pieces(DATA[: 3 * MIB]), Upload(upload_id, 0, len(DATA)))
    assert refused.value.reason == "UPLOAD_INCOMPLETE"
    assert await place.store.received(upload_id) == 3 * MIB
    assert await place.store.put(DIGEST, pieces(DATA[3 * MIB :]), Upload(upload_id, 3 * MIB, len(DATA))) == len(DATA)


async def test_what_was_received_of_another_blob_is_refused_whole(place: Place, upload_id: str) -> None:
    await break_off(place.store, upload_id, 3 * MIB, digest_of(b"another"))
    with pytest.raises(Rejected) as refused:
        await place.store.put(DIGEST, pieces(DATA[: -3 * MIB]), Upload(upload_id, 3 * MIB))
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert place.listed() == []


@pytest.mark.parametrize("upload_id", ["", "a" * 31, "A" * 32, "../" + "a" * 29, f"{'a' * 32}\n"])
async def test_what_is_no_id_of_an_upload_is_refused(place: Place, upload_id: str) -> None:
    for call in (
        place.store.received(upload_id),
        place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0)),
        place.store.commit(DIGEST, upload_id),
    ):
        with pytest.raises(Rejected) as refused:
            await call
        assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_UPLOAD_ID")
    assert place.listed() == []


async def test_a_later_call_takes_an_upload_over_from_one_that_is_stuck(
    place: Place, upload_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 0.1)
    begun = asyncio.Event()
    first = asyncio.create_task(place.store.put(DIGEST, stuck(DATA[: 3 * MIB], begun), Upload(upload_id, 0)))
    await begun.wait()
    assert await go_on(place.store, upload_id) == len(DATA)
    with pytest.raises(StoreUnavailable) as refused:
        await first
    assert refused.value.reason == "UPLOAD_TAKEN"


@pytest.mark.busy
async def test_many_calls_for_one_upload_all_end_with_the_blob(
    place: Place, upload_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 120.0)
    taken: list[bytes] = []

    async def noted(data: bytes) -> AsyncIterator[bytes]:
        async for chunk in pieces(data):
            taken.append(chunk)
            yield chunk

    async def attempt() -> int:
        offset = await place.store.received(upload_id)
        return await place.store.put(DIGEST, noted(DATA[offset:]), Upload(upload_id, offset))

    assert await asyncio.gather(*(attempt() for _ in range(12))) == [len(DATA)] * 12
    assert await read(place.store, DIGEST) == DATA
    assert b"".join(taken) == DATA
    assert not (place.spool / upload_id).exists()


class Ahead:
    """A call that has sent the first bytes of an upload, and goes on or breaks off when it is told to."""

    def __init__(self, store: BlobStore, upload_id: str, size: int = 3 * MIB) -> None:
        self.begun, self.goes_on, self.broken = asyncio.Event(), asyncio.Event(), False
        self._size = size
        self.call = asyncio.create_task(store.put(DIGEST, self._chunks(), Upload(upload_id, 0)))

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for chunk in pieces(DATA[: self._size]):
            yield chunk
        self.begun.set()
        await self.goes_on.wait()
        if self.broken:
            raise ConnectionResetError
        async for chunk in pieces(DATA[self._size :]):
            yield chunk


@pytest.fixture
async def ahead(place: Place, upload_id: str, monkeypatch: pytest.MonkeyPatch) -> Ahead:
    """Nothing takes so long that it is taken for stuck."""
    monkeypatch.setattr(receiving, "STALLED_SECONDS", 120.0)
    ahead = Ahead(place.store, upload_id)
    await ahead.begun.wait()
    await until(lambda: place.spool.joinpath(upload_id).stat().st_size == 3 * MIB)
    return ahead


@pytest.mark.busy
async def test_who_waits_behind_another_is_answered_when_the_blob_is_there(
    place: Place, upload_id: str, ahead: Ahead
) -> None:
    waiting = [asyncio.create_task(go_on(place.store, upload_id)) for _ in range(3)]
    await asyncio.sleep(0)
    ahead.goes_on.set()
    assert await asyncio.gather(ahead.call, *waiting) == [len(DATA)] * 4
    assert await read(place.store, DIGEST) == DATA
    assert not (place.spool / upload_id).exists()


@pytest.mark.busy
async def test_who_waits_behind_another_takes_over_when_it_breaks_off(
    place: Place, upload_id: str, ahead: Ahead
) -> None:
    waiting = [asyncio.create_task(go_on(place.store, upload_id)) for _ in range(3)]
    await asyncio.sleep(0)
    ahead.broken = True
    ahead.goes_on.set()
    with pytest.raises(ConnectionResetError):
        await ahead.call
    assert await asyncio.gather(*waiting) == [len(DATA)] * 3
    assert await read(place.store, DIGEST) == DATA


async def test_who_comes_after_the_blob_is_there_is_answered_and_leaves_nothing(place: Place, upload_id: str) -> None:
    await place.store.put(DIGEST, pieces(DATA), Upload(upload_id, 0))
    assert await place.store.put(DIGEST, pieces(DATA[3 * MIB :]), Upload(upload_id, 3 * MIB)) == len(DATA)
    assert place.listed() == [f"sha256/{DIGEST[7:9]}/{DIGEST[7:]}"]


async def test_a_call_that_cannot_go_on_leaves_nothing(place: Place, upload_id: str) -> None:
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
async def test_an_upload_that_another_process_receives_is_its_own_until_it_ends(
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


async def test_an_upload_that_is_cancelled_at_any_moment_goes_on(place: Place, upload_id: str) -> None:
    numbers = random.Random(2)
    for _ in range(12):
        call = asyncio.create_task(go_on(place.store, upload_id))
        await asyncio.sleep(numbers.random() / 50)
        call.cancel()
        await asyncio.wait([call])
    if DIGEST not in await place.store.sizes([DIGEST]):
        await go_on(place.store, upload_id)
    assert await read(place.store, DIGEST) == DATA


async def test_an_abandoned_upload_is_removed_and_none_that_is_under_way(place: Place, upload_id: str) -> None:
    await break_off(place.store, upload_id, 3 * MIB)
    other, begun = uuid.uuid4().hex, asyncio.Event()
    call = asyncio.create_task(place.store.put(DIGEST, stuck(DATA[:MIB], begun), Upload(other, 0)))
    await begun.wait()
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    for name in (upload_id, other):
        os.utime(place.spool / name, (two_days_ago, two_days_ago))
    await place.store.discard_abandoned()
    assert [await place.store.received(one) for one in (upload_id, other)] == [0, MIB]
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

# A file system that takes no file of over 2 MiB.
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 1024 * 1024, resource.RLIM_INFINITY))
store = open_blob_store(sys.argv[1], Path(sys.argv[2]))
for upload in (None, Upload(sys.argv[3], 0)):
    try:
        asyncio.run(store.put(sys.argv[4], chunks(), upload))
    except StoreUnavailable as error:
        print(error.reason, flush=True)
"""


async def test_where_there_is_no_room_nothing_is_stored_or_left(place: Place, upload_id: str) -> None:
    digest = f"sha256:{hashlib.sha256(bytes(3 * CHUNK)).hexdigest()}"
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FULL, place.url, str(place.spool), upload_id, digest), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    assert said.split() == [b"BLOB_STORE_FULL"] * 2
    assert place.listed() == []
    assert await place.store.put(digest, pieces(bytes(3 * CHUNK))) == 3 * CHUNK


async def test_an_upload_for_which_there_is_no_room_is_refused_before_it_begins(place: Place, upload_id: str) -> None:
    begun = asyncio.Event()
    with pytest.raises(StoreUnavailable) as refused:
        await place.store.put(DIGEST, stuck(DATA, begun), Upload(upload_id, 0, 2**62))
    assert refused.value.reason == "BLOB_STORE_FULL"
    assert not begun.is_set()
    assert place.listed() == []


async def test_an_upload_that_is_longer_than_it_was_said_to_be_is_not_received_to_its_end(
    place: Place, upload_id: str
) -> None:
    begun = asyncio.Event()
    with pytest.raises(Rejected) as refused:
        await place.store.put(DIGEST, stuck(DATA, begun), Upload(upload_id, 0, 2 * MIB))
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert not begun.is_set()
    assert place.listed() == []


async def test_a_commit_of_what_was_never_put_is_refused(place: Place, upload_id: str) -> None:
    with pytest.raises(Rejected) as refused:
        await place.store.commit(DIGEST, upload_id)
    assert (refused.value.kind, refused.value.reason) == (Kind.NOT_FOUND, "UPLOAD_NOT_FOUND")


async def test_an_upload_outlives_its_call_by_no_lock(place: Place, upload_id: str) -> None:
    call = asyncio.create_task(place.store.put(DIGEST, stuck(DATA[:MIB], asyncio.Event()), Upload(upload_id, 0)))
    path = place.spool / upload_id
    await until(lambda: path.exists() and path.stat().st_size == MIB)
    call.cancel()
    await asyncio.wait([call])
    assert await go_on(place.opened_again(), upload_id) == len(DATA)
