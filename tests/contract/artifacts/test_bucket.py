"""Buckets: large objects, wrong credentials and slow copies, over a real S3 server."""

from __future__ import annotations

import asyncio
import hashlib
import random
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import obstore
import pytest

from eventstore.errors import StoreUnavailable
from services.artifacts.s3 import bucket as s3_bucket
from services.artifacts.store import BlobStore
from tests.contract.artifacts.blob_places import MIB, Place, digest_of, pieces, read, s3_place
from tests.servers.nats import until
from tests.servers.seaweedfs import SeaweedFS

DATA = random.Random(5).randbytes(21 * MIB + 3)
DIGEST = digest_of(DATA)
KEY = f"sha256/{DIGEST[7:9]}/{DIGEST[7:]}"


@pytest.fixture
def small_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make S3 refuse to copy objects of over 9 MiB in one request."""
    monkeypatch.setattr(s3_bucket, "_COPIED", 9 * MIB)

    async def refuse_large(store: Any, source: str, target: str) -> None:
        assert (await obstore.head_async(store, source))["size"] <= 9 * MIB
        await copy(store, source, target)

    copy = obstore.copy_async
    monkeypatch.setattr(obstore, "copy_async", refuse_large)


@pytest.mark.usefixtures("small_copies")
async def test_object_too_large_for_copy_is_set_aside_and_restored(bucket: Place) -> None:
    await bucket.store.put(DIGEST, pieces(DATA))
    assert await bucket.store.set_aside(DIGEST, lambda: True)
    assert bucket.listed() == [f"trash/{KEY}"]
    assert hashlib.sha256(await read(bucket.store, DIGEST)).hexdigest() == DIGEST[7:]
    assert await bucket.store.keep([DIGEST]) == {DIGEST: len(DATA)}
    assert bucket.listed() == [KEY, f"trash/{KEY}"]
    await bucket.store.remove(DIGEST)
    assert hashlib.sha256(await read(bucket.store, DIGEST)).hexdigest() == DIGEST[7:]


@pytest.mark.usefixtures("small_copies")
async def test_large_object_stays_if_setting_aside_took_too_long(bucket: Place) -> None:
    await bucket.store.put(DIGEST, pieces(DATA))
    assert not await bucket.store.set_aside(DIGEST, lambda: False)
    assert KEY in bucket.listed()
    assert not await bucket.store.set_aside(digest_of(b"absent"), lambda: True)


async def test_blob_is_missing_until_slow_restore_is_complete(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await bucket.store.put(DIGEST, pieces(DATA))
    assert await bucket.store.set_aside(DIGEST, lambda: True)
    monkeypatch.setattr(s3_bucket, "_SOON", 0.0)
    assert await bucket.store.keep([DIGEST]) == {}
    await until(lambda: KEY in bucket.listed())
    assert await bucket.store.keep([DIGEST]) == {DIGEST: len(DATA)}


async def test_few_large_objects_are_in_memory_at_once(bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    in_progress: list[int] = [0]
    put = obstore.put_async

    async def count_in_progress(*arguments: Any, **options: Any) -> Any:
        in_progress.append(in_progress[-1] + 1)
        try:
            return await put(*arguments, **options)
        finally:
            in_progress.append(in_progress[-1] - 1)

    monkeypatch.setattr(obstore, "put_async", count_in_progress)
    blobs = [random.Random(seed).randbytes(9 * MIB) for seed in range(4)]
    await asyncio.gather(*(bucket.store.put(digest_of(blob), pieces(blob)) for blob in blobs))
    assert max(in_progress) == 2
    assert len(bucket.listed()) == 4


async def list_entries(store: BlobStore) -> None:
    async for _ in store.entries(aside=False):
        pass


async def begin_collection(store: BlobStore) -> None:
    async with store.collecting():
        pass


async def test_bucket_with_wrong_credentials_is_unavailable(
    seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of another")
    store = s3_place(f"s3://{seaweedfs.bucket}/{uuid.uuid4().hex}", tmp_path).store
    calls: list[Coroutine[Any, Any, object]] = [
        *(store.sizes([DIGEST]), store.keep([DIGEST]), read(store, DIGEST), store.sign_downloads([DIGEST])),
        *(store.put(digest_of(b"a"), pieces(b"a")), store.put(DIGEST, pieces(DATA)), store.remove(DIGEST)),
        *(
            store.set_aside(DIGEST, lambda: True),
            list_entries(store),
            begin_collection(store),
            store.discard_abandoned(),
        ),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable) as refused:
            await call
        assert refused.value.reason == "BLOB_STORE_UNAVAILABLE"
