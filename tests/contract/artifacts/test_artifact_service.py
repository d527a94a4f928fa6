"""ArtifactService over a real gRPC connection."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from rollforward import v1
from services.artifacts.digests import CHUNK
from services.artifacts.garbage_collection import Collector
from services.artifacts.open_store import open_directory
from services.artifacts.servicer import MAX_DIGESTS, MAX_URLS, ArtifactServicer
from services.rpc.interceptor import Interceptor
from tests.servers.artifacts import nothing
from tests.servers.nats import until

MIB = 1024 * 1024
HELLO = b"hello"


@pytest.fixture
async def artifacts(tmp_path: Path) -> AsyncIterator[v1.ArtifactServiceAsyncStub]:
    server = aio.server(interceptors=[Interceptor()])
    blobs = open_directory(tmp_path)
    v1.add_ArtifactServiceServicer_to_server(ArtifactServicer(blobs, Collector(blobs, nothing)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield v1.ArtifactServiceStub(channel)
    finally:
        await server.stop(None)


@contextmanager
def refused(reason: str, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> Iterator[None]:
    with pytest.raises(aio.AioRpcError) as error:
        yield
    details = dict(error.value.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    info = ErrorInfo()
    assert Status.FromString(details).details[0].Unpack(info)
    assert (error.value.code(), info.reason) == (code, reason)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def messages(*parts: str | bytes) -> AsyncIterator[v1.UploadBlobRequest]:
    for part in parts:
        yield v1.UploadBlobRequest(digest=part) if isinstance(part, str) else v1.UploadBlobRequest(chunk=part)


async def upload(artifacts: v1.ArtifactServiceAsyncStub, data: bytes) -> str:
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    response = await artifacts.UploadBlob(messages(digest_of(data), *chunks))
    assert response.size_bytes == len(data)
    return digest_of(data)


async def download(artifacts: v1.ArtifactServiceAsyncStub, digest: str, offset: int = 0) -> bytes:
    call = artifacts.DownloadBlob(v1.DownloadBlobRequest(digest=digest, offset=offset))
    return b"".join([response.chunk async for response in call])


async def create(artifacts: v1.ArtifactServiceAsyncStub, *files: v1.ManifestFile) -> str:
    request = v1.CreateManifestRequest(manifest=v1.Manifest(files=files))
    return (await artifacts.CreateManifest(request)).digest


async def missing(artifacts: v1.ArtifactServiceAsyncStub, *digests: str) -> list[str]:
    return list((await artifacts.FindMissingBlobs(v1.FindMissingBlobsRequest(digests=digests))).missing)


@pytest.mark.parametrize("size", [0, 5, 3 * MIB + 1])
async def test_blob_is_uploaded_and_downloaded(artifacts: v1.ArtifactServiceAsyncStub, size: int) -> None:
    data = random.Random(size).randbytes(size)
    digest = await upload(artifacts, data)
    assert await download(artifacts, digest) == data
    assert await download(artifacts, digest, size // 2) == data[size // 2 :]


async def test_missing_blobs_are_listed_in_order_of_request(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    stored = await upload(artifacts, HELLO)
    absent = [digest_of(str(number).encode()) for number in range(5)]
    assert await missing(artifacts, absent[3], stored, *absent[:3], absent[3]) == [absent[3], *absent[:3]]


async def test_manifest_is_read_by_its_digest(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    blob = await upload(artifacts, HELLO)
    files = [v1.ManifestFile(path=path, size_bytes=len(HELLO), digest=blob) for path in ("b", "a/c")]
    digest = await create(artifacts, *files)
    assert digest_of(await download(artifacts, digest)) == digest
    response = await artifacts.GetManifest(v1.GetManifestRequest(digest=digest))
    assert list(response.manifest.files) == files[::-1]


async def test_blob_is_not_a_manifest(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    blob = await upload(artifacts, HELLO)
    with refused("ARTIFACT_NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await artifacts.GetManifest(v1.GetManifestRequest(digest=blob))


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((), "INVALID_DIGEST"),
        ((HELLO,), "INVALID_DIGEST"),
        (("sha256:short", HELLO), "INVALID_DIGEST"),
        ((digest_of(HELLO), HELLO, digest_of(HELLO)), "INVALID_DIGEST"),
        ((digest_of(HELLO),), "DIGEST_MISMATCH"),
        ((digest_of(HELLO), HELLO, HELLO), "DIGEST_MISMATCH"),
        ((digest_of(bytes(CHUNK + 1)), bytes(CHUNK + 1)), "CHUNK_TOO_LARGE"),
    ],
)
async def test_invalid_upload_is_rejected_and_stores_nothing(
    artifacts: v1.ArtifactServiceAsyncStub, tmp_path: Path, parts: tuple[str | bytes, ...], reason: str
) -> None:
    with refused(reason):
        await artifacts.UploadBlob(messages(*parts))
    assert files_below(tmp_path) == []


async def test_cancelled_upload_stores_nothing(artifacts: v1.ArtifactServiceAsyncStub, tmp_path: Path) -> None:
    whole = digest_of(HELLO + HELLO)

    async def stuck() -> AsyncIterator[v1.UploadBlobRequest]:
        async for message in messages(whole, HELLO):
            yield message
        await asyncio.Event().wait()

    call = artifacts.UploadBlob(stuck())
    await until(lambda: bool(files_below(tmp_path)))
    call.cancel()
    await until(lambda: not files_below(tmp_path))
    assert await missing(artifacts, whole) == [whole]


@pytest.mark.parametrize(
    ("digest", "offset", "reason"),
    [
        ("hello", 0, "INVALID_DIGEST"),
        (digest_of(b"there"), 6, "INVALID_OFFSET"),
        (digest_of(b"there"), 2**64 - 1, "INVALID_OFFSET"),
    ],
)
async def test_invalid_download_is_rejected(
    artifacts: v1.ArtifactServiceAsyncStub, digest: str, offset: int, reason: str
) -> None:
    await upload(artifacts, b"there")
    with refused(reason):
        await download(artifacts, digest, offset)
    with refused("BLOB_NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await download(artifacts, digest_of(HELLO))


async def test_too_many_or_invalid_digests_are_rejected(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    assert await missing(artifacts, *[digest_of(HELLO)] * MAX_DIGESTS) == [digest_of(HELLO)]
    with refused("TOO_MANY_DIGESTS"):
        await missing(artifacts, *[digest_of(HELLO)] * (MAX_DIGESTS + 1))
    for digest in ("sha256:", "é" * 600_000):
        with refused("INVALID_DIGEST"):
            await missing(artifacts, digest)


async def test_invalid_manifest_is_rejected_with_reason(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    blob = await upload(artifacts, HELLO)
    with refused("MANIFEST_EMPTY"):
        await create(artifacts)
    for path in ("../a", "é" * 600_000):
        with refused("INVALID_PATH"):
            await create(artifacts, v1.ManifestFile(path=path, size_bytes=5, digest=blob))
    with refused("SIZE_MISMATCH"):
        await create(artifacts, v1.ManifestFile(path="a", size_bytes=6, digest=blob))
    with refused("BLOB_MISSING", grpc.StatusCode.FAILED_PRECONDITION):
        await create(artifacts, v1.ManifestFile(path="a", size_bytes=5, digest=digest_of(b"absent")))


ID = "0123456789abcdef" * 2


async def upload_part(
    artifacts: v1.ArtifactServiceAsyncStub, data: bytes, offset: int, end: int, digest: str = ""
) -> v1.UploadBlobResponse:
    """Upload the bytes of a blob between two offsets, in an upload that can be resumed."""
    named = v1.BlobUpload(digest=digest or digest_of(data), upload_id=ID, offset=offset, size_bytes=len(data))

    async def parts() -> AsyncIterator[v1.UploadBlobRequest]:
        yield v1.UploadBlobRequest(upload=named)
        for start in range(offset, end, CHUNK):
            yield v1.UploadBlobRequest(chunk=data[start : min(start + CHUNK, end)])

    response: v1.UploadBlobResponse = await artifacts.UploadBlob(parts())
    return response


async def received(artifacts: v1.ArtifactServiceAsyncStub, upload_id: str = ID) -> int:
    return (await artifacts.GetUpload(v1.GetUploadRequest(upload_id=upload_id))).received_bytes


async def test_upload_is_resumed(artifacts: v1.ArtifactServiceAsyncStub, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(3 * MIB + 1)
    assert await received(artifacts) == 0
    with refused("UPLOAD_INCOMPLETE", grpc.StatusCode.UNAVAILABLE):
        await upload_part(artifacts, data, 0, 2 * MIB)
    assert await received(artifacts) == 2 * MIB
    with refused("INVALID_OFFSET"):
        await upload_part(artifacts, data, MIB, len(data))
    assert (await upload_part(artifacts, data, 2 * MIB, len(data))).size_bytes == len(data)
    assert await received(artifacts) == 0
    assert await download(artifacts, digest_of(data)) == data
    assert len(files_below(tmp_path)) == 1


async def test_upload_of_other_bytes_is_rejected_and_leaves_nothing(
    artifacts: v1.ArtifactServiceAsyncStub, tmp_path: Path
) -> None:
    with refused("DIGEST_MISMATCH"):
        await upload_part(artifacts, HELLO, 0, 5, digest_of(b"other"))
    for wrong in ("", "a", ID.upper(), "../../../../../../../etc/passwd_"):
        with refused("INVALID_UPLOAD_ID"):
            await received(artifacts, wrong)
    assert files_below(tmp_path) == []


@pytest.mark.parametrize(("offset", "length", "expected"), [(0, 2, b"he"), (1, 3, b"ell"), (4, 9, b"o"), (5, 1, b"")])
async def test_range_is_downloaded(
    artifacts: v1.ArtifactServiceAsyncStub, offset: int, length: int, expected: bytes
) -> None:
    digest = await upload(artifacts, HELLO)
    call = artifacts.DownloadBlob(v1.DownloadBlobRequest(digest=digest, offset=offset, length=length))
    assert b"".join([response.chunk async for response in call]) == expected


async def test_directory_store_has_no_urls(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    digest = await upload(artifacts, HELLO)
    assert not (await artifacts.PresignUploads(v1.PresignUploadsRequest(digests=[digest]))).uploads
    assert not (await artifacts.PresignDownloads(v1.PresignDownloadsRequest(digests=[digest]))).downloads
    with refused("BLOB_NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await artifacts.PresignDownloads(v1.PresignDownloadsRequest(digests=[digest_of(b"absent")]))
    with refused("UPLOAD_NOT_FOUND", grpc.StatusCode.NOT_FOUND):
        await artifacts.CommitUpload(v1.CommitUploadRequest(digest=digest_of(b"absent"), upload_id=ID))
    with refused("INVALID_UPLOAD_ID"):
        await artifacts.CommitUpload(v1.CommitUploadRequest(digest=digest, upload_id="x"))


async def test_too_many_or_invalid_digests_get_no_urls(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    for digests, reason in (([digest_of(HELLO)] * (MAX_URLS + 1), "TOO_MANY_DIGESTS"), (["sha256:"], "INVALID_DIGEST")):
        with refused(reason):
            await artifacts.PresignUploads(v1.PresignUploadsRequest(digests=digests))
        with refused(reason):
            await artifacts.PresignDownloads(v1.PresignDownloadsRequest(digests=digests))


async def test_garbage_collection_reports_progress(artifacts: v1.ArtifactServiceAsyncStub) -> None:
    await upload(artifacts, HELLO)
    steps = [step async for step in artifacts.CollectGarbage(v1.CollectGarbageRequest())]
    assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
    assert (steps[-1].seen, steps[-1].kept) == (1, 1)
    with refused("INVALID_AGE"):
        await anext(aiter(artifacts.CollectGarbage(v1.CollectGarbageRequest(min_age_seconds=2**63))))
