"""Direct transfers: signed URLs of a real S3 server, and a client that uses them when possible."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import httpx
import obstore
import pytest
from obstore.store import S3Store

from eventstore.errors import Kind, Rejected
from rollforward import Client
from rollforward.errors import InternalError, InvalidRequest
from services.artifacts.open_store import open_blob_store
from services.artifacts.store import BlobStore
from tests.contract.artifacts.blob_places import MIB, Place, digest_of, pieces, read
from tests.servers.artifacts import serving_artifacts
from tests.timeouts import scaled

DATA = random.Random(0).randbytes(9 * MIB + 7)
DIGEST = digest_of(DATA)


class CallCounter(grpc.aio.ServerInterceptor):
    """An interceptor that counts the calls of each method."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    async def intercept_service(self, continuation, details):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        name = details.method.rpartition("/")[2]
        self.calls[name] = self.calls.get(name, 0) + 1
        return await continuation(details)


@contextmanager
def serving(store: BlobStore) -> Iterator[tuple[Client, dict[str, int]]]:
    """Yield a client of the service over a store, and its number of calls by method."""
    counter = CallCounter()
    with serving_artifacts(store, counter) as address, Client(address, timeout=scaled(20.0)) as client:
        yield client, counter.calls


def put(url: str, data: bytes) -> None:
    httpx.put(url, content=data, trust_env=False).raise_for_status()


def get(url: str, first: int = 0) -> bytes:
    return httpx.get(url, headers={"Range": f"bytes={first}-"}, trust_env=False).raise_for_status().content


async def put_directly(store: BlobStore, data: bytes) -> str:
    upload_id = uuid.uuid4().hex
    (url,) = await store.sign_uploads([upload_id])
    await asyncio.to_thread(put, url, data)
    return upload_id


async def test_direct_upload_is_a_blob_once_committed(bucket: Place) -> None:
    upload_id = await put_directly(bucket.store, DATA)
    assert await bucket.store.sizes([DIGEST]) == {}
    assert await bucket.store.commit(DIGEST, upload_id) == len(DATA)
    assert await read(bucket.store, DIGEST) == DATA
    assert bucket.listed() == [f"sha256/{DIGEST[7:9]}/{DIGEST[7:]}"]
    assert await bucket.store.commit(DIGEST, upload_id) == len(DATA)  # a retry whose first response was lost


async def test_direct_upload_of_other_bytes_is_rejected(bucket: Place) -> None:
    upload_id = await put_directly(bucket.store, b"evil")
    with pytest.raises(Rejected) as refused:
        await bucket.store.commit(DIGEST, upload_id)
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "DIGEST_MISMATCH")
    assert await bucket.store.sizes([DIGEST]) == {}


async def test_upload_changed_during_verification_changes_no_blob(bucket: Place) -> None:
    upload_id = uuid.uuid4().hex
    (url,) = await bucket.store.sign_uploads([upload_id])
    await asyncio.to_thread(put, url, DATA)
    commits = [asyncio.create_task(bucket.store.commit(DIGEST, upload_id))]
    while not all(commit.done() for commit in commits):
        await asyncio.to_thread(put, url, b"evil")
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    stored = await bucket.store.sizes([DIGEST])
    assert stored == ({DIGEST: len(DATA)} if outcomes == [len(DATA)] else {})
    if stored:
        assert await read(bucket.store, DIGEST) == DATA


@pytest.mark.busy
@pytest.mark.parametrize("direct", ["on", "off"])
def test_concurrent_uploads_of_same_file_succeed(
    bucket: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: str
) -> None:
    monkeypatch.setenv("ROLLFORWARD_DIRECT", direct)
    (tmp_path / "weights").write_bytes(DATA)
    ready = threading.Barrier(6)

    with serving(bucket.store) as (client, calls):

        def work(_number: int) -> str:
            ready.wait()
            return client.artifacts.upload(tmp_path / "weights")[0]

        with ThreadPoolExecutor(6) as pool:
            digests = set(pool.map(work, range(6)))
        target = client.artifacts.download(digests.pop(), tmp_path / "back")
    assert not digests
    assert (target / "weights").read_bytes() == DATA
    assert ("CommitUpload" in calls) == (direct == "on")
    assert all(key.removeprefix("manifests/").startswith("sha256/") for key in bucket.listed())


async def test_signed_url_serves_blob_and_ranges(bucket: Place) -> None:
    await bucket.store.put(DIGEST, pieces(DATA))
    (url,) = await bucket.store.sign_downloads([DIGEST])
    assert await asyncio.to_thread(get, url, 5) == DATA[5:]
    with pytest.raises(Rejected) as refused:
        await bucket.store.sign_downloads([DIGEST, digest_of(b"absent")])
    assert refused.value.reason == "BLOB_NOT_FOUND"


async def test_store_without_direct_transfers_has_no_urls(bucket: Place, tmp_path: Path) -> None:
    directory = open_blob_store(str(tmp_path / "blobs"), tmp_path)
    indirect = open_blob_store(bucket.url, bucket.spool, direct=False)
    for store in (directory, indirect):
        await store.put(DIGEST, pieces(DATA))
        assert await store.sign_uploads([uuid.uuid4().hex]) == []
        assert await store.sign_downloads([DIGEST]) == []
        with pytest.raises(Rejected) as refused:
            await store.sign_downloads([digest_of(b"absent")])
        assert refused.value.reason == "BLOB_NOT_FOUND"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "large").write_bytes(DATA)
    (folder / "small").write_bytes(b"small")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_client_transfers_large_files_directly(bucket: Place, source: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with serving(bucket.store) as (client, calls):
        digest, _ = client.artifacts.upload(source, progress=lambda done, total: seen.append((done, total)))
        assert (calls["CommitUpload"], calls["UploadBlob"]) == (1, 1)
        assert seen[-1] == (len(DATA) + 5, len(DATA) + 5)
        assert contents(client.artifacts.download(digest, tmp_path / "back")) == contents(source)
        assert (calls["PresignDownloads"], calls["DownloadBlob"]) == (1, 1)


def test_direct_transfers_can_be_disabled(
    bucket: Place, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLFORWARD_DIRECT", "off")
    with serving(bucket.store) as (client, calls):
        digest, _ = client.artifacts.upload(source)
        assert contents(client.artifacts.download(digest, tmp_path / "back")) == contents(source)
        assert (calls["UploadBlob"], calls["DownloadBlob"]) == (2, 2)
        assert not {"PresignUploads", "PresignDownloads"} & calls.keys()
        monkeypatch.setenv("ROLLFORWARD_DIRECT", "perhaps")
        with pytest.raises(InvalidRequest) as refused:
            client.artifacts.upload(source)
        assert refused.value.reason == "INVALID_SETTING"


@pytest.mark.parametrize("corrupted", [False, True])
def test_direct_download_is_resumed(bucket: Place, source: Path, tmp_path: Path, corrupted: bool) -> None:
    seen: list[int] = []
    with serving(bucket.store) as (client, calls):
        digest, _ = client.artifacts.upload(source)
        partial = tmp_path / f".{digest[7:]}.part" / "tree" / "large"
        partial.parent.mkdir(parents=True)
        partial.write_bytes(bytes(5 * MIB) if corrupted else DATA[: 5 * MIB])
        target = client.artifacts.download(digest, tmp_path / "back", progress=lambda done, _: seen.append(done))
        assert contents(target) == contents(source)
        # A corrupted part is downloaded again from the service.
        assert (calls["PresignDownloads"], calls["DownloadBlob"]) == (1, 2 if corrupted else 1)
    assert {5 * MIB, 5 * MIB + 5} & set(seen)
    assert seen[-1] == len(DATA) + 5


class UnreachableUrls:
    """A store whose signed URLs are unreachable."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def sign_uploads(self, upload_ids: list[str]) -> list[str]:
        return [f"http://127.0.0.1:1/{upload_id}" for upload_id in upload_ids]

    sign_downloads = sign_uploads


def test_client_uses_service_when_store_is_unreachable(bucket: Place, source: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    with serving(UnreachableUrls(bucket.store)) as (client, calls):  # type: ignore[arg-type]
        digest, _ = client.artifacts.upload(source, progress=lambda done, _: seen.append(done))
        assert seen[-1] == len(DATA) + 5
        assert contents(client.artifacts.download(digest, tmp_path / "back")) == contents(source)
        assert (calls["UploadBlob"], calls["DownloadBlob"]) == (2, 2)


def test_client_detects_damage_in_bucket(bucket: Place, source: Path, tmp_path: Path) -> None:
    with serving(bucket.store) as (client, _):
        digest, _ = client.artifacts.upload(source)
        damaged = S3Store.from_url(bucket.url, client_options={"allow_http": True})
        obstore.put(damaged, f"sha256/{DIGEST[7:9]}/{DIGEST[7:]}", DATA[:-1] + b"!")
        with pytest.raises(InternalError) as refused:
            client.artifacts.download(digest, tmp_path / "back")
        assert refused.value.reason == "DIGEST_MISMATCH"
