"""The contract of every blob store, over a directory and over a real S3 server."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import random
import socket
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from eventstore.errors import Kind, Rejected, StoreUnavailable
from services.artifacts.digests import CHUNK
from services.artifacts.open_store import open_blob_store
from tests.contract.artifacts.blob_places import MIB, Place, digest_of, pieces, read
from tests.servers.seaweedfs import SeaweedFS

EMPTY = hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 8 * MIB, 8 * MIB + 1, 21 * MIB])
async def test_blob_is_read_as_it_was_put(place: Place, size: int) -> None:
    data = random.Random(size).randbytes(size)
    digest = digest_of(data)
    assert await place.store.put(digest, pieces(data)) == size
    assert await read(place.store, digest) == data
    assert await place.store.sizes([digest]) == {digest: size}
    assert place.listed() == [f"sha256/{digest[7:9]}/{digest[7:]}"]


async def test_blob_is_read_by_store_opened_later(place: Place) -> None:
    await place.store.put(digest_of(b"kept"), pieces(b"kept"))
    assert await read(open_blob_store(place.url, place.spool), digest_of(b"kept")) == b"kept"


@pytest.mark.parametrize("offset", [1, CHUNK, 8 * MIB - 1, 8 * MIB, 9 * MIB + 5, 10 * MIB - 1, 10 * MIB])
async def test_blob_is_read_from_offset(place: Place, offset: int) -> None:
    data = random.Random(7).randbytes(10 * MIB)
    await place.store.put(digest_of(data), pieces(data))
    assert await read(place.store, digest_of(data), offset) == data[offset:]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (5, CHUNK), (8 * MIB - 3, 6), (9 * MIB, 3 * MIB), (10 * MIB, 1)]
)
async def test_range_of_blob_is_read(place: Place, offset: int, length: int) -> None:
    data = random.Random(8).randbytes(10 * MIB)
    await place.store.put(digest_of(data), pieces(data))
    assert await read(place.store, digest_of(data), offset, length) == data[offset : offset + length]


@pytest.mark.parametrize("offset", [5, -1])
async def test_offset_outside_blob_is_rejected(place: Place, offset: int) -> None:
    await place.store.put(digest_of(b"four"), pieces(b"four"))
    with pytest.raises(Rejected) as refused:
        await read(place.store, digest_of(b"four"), offset)
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_OFFSET")


async def test_unknown_blob_is_not_found(place: Place) -> None:
    assert await place.store.sizes([digest_of(b"nowhere")]) == {}
    with pytest.raises(Rejected) as refused:
        await read(place.store, digest_of(b"nowhere"))
    assert (refused.value.kind, refused.value.reason) == (Kind.NOT_FOUND, "BLOB_NOT_FOUND")


async def test_sizes_list_only_stored_blobs(place: Place) -> None:
    blobs = [str(number).encode() for number in range(70)]
    for blob in blobs[::2]:
        await place.store.put(digest_of(blob), pieces(blob))
    expected = {digest_of(blob): len(blob) for blob in blobs[::2]}
    assert await place.store.sizes([digest_of(blob) for blob in blobs]) == expected


@pytest.mark.parametrize("size", [10, 9 * MIB])
async def test_bytes_with_wrong_digest_leave_nothing(place: Place, size: int) -> None:
    digest = digest_of(b"promised")
    with pytest.raises(Rejected) as refused:
        await place.store.put(digest, pieces(bytes(size)))
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "DIGEST_MISMATCH")
    assert place.listed() == []
    assert await place.store.sizes([digest]) == {}


async def test_mismatch_leaves_stored_blob_unchanged(place: Place) -> None:
    await place.store.put(digest_of(b"good"), pieces(b"good"))
    with pytest.raises(Rejected):
        await place.store.put(digest_of(b"good"), pieces(b"evil"))
    assert await read(place.store, digest_of(b"good")) == b"good"


@pytest.mark.parametrize(
    "digest",
    [
        "",
        EMPTY,
        f"sha256:{EMPTY.upper()}",
        f"sha256:{EMPTY[1:]}",
        f"sha256:{EMPTY}\n",
        f"md5:{EMPTY}",
        "sha256:../../../../etc/passwd",
    ],
)
async def test_invalid_digest_is_rejected(place: Place, digest: str) -> None:
    for call in (place.store.sizes([digest]), place.store.put(digest, pieces(b"")), read(place.store, digest)):
        with pytest.raises(Rejected) as refused:
            await call
        assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_DIGEST")
    assert place.listed() == []


@pytest.mark.parametrize("size", [1000, 9 * MIB])
async def test_blob_put_concurrently_is_stored_once(place: Place, size: int) -> None:
    data = random.Random(size).randbytes(size)
    digest = digest_of(data)
    sizes = await asyncio.gather(*(place.store.put(digest, pieces(data)) for _ in range(4)))
    assert sizes == [size] * 4
    assert await place.store.put(digest, pieces(data)) == size
    assert await read(place.store, digest) == data
    assert len(place.listed()) == 1


async def test_nested_stores_are_separate(place: Place) -> None:
    digest = digest_of(b"apart")
    await place.store.within("manifests").put(digest, pieces(b"apart"))
    assert await place.store.sizes([digest]) == {}
    assert await read(place.store.within("manifests"), digest) == b"apart"
    assert place.listed() == [f"manifests/sha256/{digest[7:9]}/{digest[7:]}"]


async def test_cancelled_or_failed_upload_leaves_nothing(place: Place) -> None:
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"begun"
        begun.set()
        await asyncio.Event().wait()

    async def broken() -> AsyncIterator[bytes]:
        yield b"begun"
        raise ConnectionResetError

    upload = asyncio.create_task(place.store.put(digest_of(b"begun"), stuck()))
    await begun.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    with pytest.raises(ConnectionResetError):
        await place.store.put(digest_of(b"begun"), broken())
    assert place.listed() == []


async def test_cancelled_reader_closes_its_file(place: Place) -> None:
    digest = digest_of(b"read")
    await place.store.put(digest, pieces(b"read"))
    for yields in [*range(5)] * 4:
        reader = asyncio.create_task(read(place.store, digest))
        for _ in range(yields):
            await asyncio.sleep(0)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    # An unclosed file would raise a ResourceWarning here.
    await asyncio.to_thread(gc.collect)


async def test_memory_is_bounded_for_any_blob(place: Place) -> None:
    block = random.Random(64).randbytes(CHUNK)
    sha256 = hashlib.sha256()
    for _ in range(64):
        sha256.update(block)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(bytearray(block))  # a new block each time, so that retained blocks are counted

    digest = f"sha256:{sha256.hexdigest()}"
    tracemalloc.start()
    try:
        await place.store.put(digest, blocks())
        sizes = [len(chunk) async for chunk in place.store.open(digest)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 64 * MIB
    assert peak < 32 * MIB  # two parts being sent to S3 and one being filled, of 8 MiB each


KILLED = """
import asyncio, sys
from pathlib import Path
from services.artifacts.open_store import open_blob_store

async def stuck():
    yield b"half"
    yield b"of it"
    print("begun", flush=True)
    await asyncio.Event().wait()

asyncio.run(open_blob_store(sys.argv[1], Path(sys.argv[2])).put("sha256:" + "0" * 64, stuck()))
"""


async def test_upload_of_killed_process_is_invisible(place: Place) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        place.url,
        str(place.spool),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"begun\n"
    child.kill()
    await child.wait()
    again = open_blob_store(place.url, place.spool)
    assert await again.sizes([f"sha256:{'0' * 64}"]) == {}
    await again.put(digest_of(b"next"), pieces(b"next"))
    assert await read(again, digest_of(b"next")) == b"next"


async def test_opening_store_removes_only_abandoned_uploads(tmp_path: Path) -> None:
    open_blob_store(str(tmp_path), tmp_path)
    abandoned, fresh = tmp_path / "tmp" / "abandoned", tmp_path / "tmp" / "fresh"
    for path in (abandoned, fresh):
        path.write_bytes(b"part")
    two_days_ago = time.time() - 2 * 24 * 60 * 60
    os.utime(abandoned, (two_days_ago, two_days_ago))
    open_blob_store(tmp_path.as_uri(), tmp_path)
    assert (abandoned.exists(), fresh.exists()) == (False, True)


async def test_unreachable_server_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # bound, but not listening
        closed.bind(("127.0.0.1", 0))
        settings = SeaweedFS(f"http://127.0.0.1:{closed.getsockname()[1]}", "artifacts", 0, "any").environment()
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        store = open_blob_store("s3://artifacts", tmp_path)
        digest = digest_of(b"lost")
        for call in (store.sizes([digest]), store.put(digest, pieces(b"lost")), read(store, digest)):
            with pytest.raises(StoreUnavailable) as refused:
                await call
            assert refused.value.reason == "BLOB_STORE_UNAVAILABLE"


@pytest.mark.parametrize("url", ["gs://bucket/prefix", "http://127.0.0.1/blobs", "file://elsewhere/blobs"])
def test_unsupported_url_is_rejected(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        open_blob_store(url, tmp_path)
