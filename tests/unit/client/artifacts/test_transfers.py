"""Transfers of blobs under faults: files that change, concurrent uploads, and interrupted transfers."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rollforward import Client, v1
from rollforward._artifacts.manifests import CHUNK_BYTES
from rollforward._artifacts.transfer import RESUMABLE_BYTES
from rollforward.errors import InvalidRequest, Unavailable
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve, Service

LARGE = RESUMABLE_BYTES * 2 + 3


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(hashlib.sha256(b"").digest() * (LARGE // 32 + 1))
    return path


def upload_id_of(client: Client, path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(f"sha256:{digest}\0{client.actor}".encode()).hexdigest()[:32]


@pytest.mark.parametrize("size", [1000, LARGE])
def test_file_that_changes_during_upload_is_rejected(artifacts: Client, tmp_path: Path, size: int) -> None:
    source = tmp_path / "changing"
    source.write_bytes(bytes(size))

    def change(_done: int, _total: int) -> None:
        source.write_bytes(b"!" + bytes(size - 1))

    with pytest.raises(InvalidRequest) as refused:
        artifacts.artifacts.upload(source, progress=change)
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("partial", [1, RESUMABLE_BYTES, LARGE])
def test_upload_resumes_after_an_earlier_process(artifacts: Client, source: Path, tmp_path: Path, partial: int) -> None:
    left = tmp_path / "blobs" / "tmp" / upload_id_of(artifacts, source)
    left.write_bytes(source.read_bytes()[:partial])
    seen: list[int] = []
    artifacts.artifacts.upload(source, progress=lambda done, _: seen.append(done))
    assert partial in seen
    assert not [done for done in seen if 0 < done < partial]
    assert not left.exists()


# Explicit ids, because the bytes would become a part of the test's name.
@pytest.mark.parametrize("partial", [b"not what was sent", bytes(LARGE * 2)], ids=["other", "longer"])
def test_upload_restarts_if_the_stored_part_is_wrong(
    artifacts: Client, source: Path, tmp_path: Path, partial: bytes
) -> None:
    (tmp_path / "blobs" / "tmp" / upload_id_of(artifacts, source)).write_bytes(partial)
    digest, _ = artifacts.artifacts.upload(source)
    assert (artifacts.artifacts.download(digest, tmp_path / "back") / "weights").read_bytes() == source.read_bytes()


@pytest.mark.busy
@pytest.mark.parametrize("dying", [0, 3], ids=["all live", "some die"])
def test_many_clients_can_upload_the_same_blob(artifacts: Client, source: Path, tmp_path: Path, dying: int) -> None:
    ready = threading.Barrier(6)

    def work(number: int) -> str:
        def progress(done: int, _total: int) -> None:
            if number < dying and done > LARGE // 4:
                raise LookupError("its job ends")

        ready.wait()
        try:
            return artifacts.artifacts.upload(source, progress=progress)[0]
        except LookupError:
            return ""

    with ThreadPoolExecutor(6) as pool:
        digests = list(pool.map(work, range(6)))
    digest = digests[-1]
    assert digests[dying:] == [digest] * (6 - dying)
    assert set(digests) <= {"", digest}
    target = artifacts.artifacts.download(digest, tmp_path / "back")
    assert (target / "weights").read_bytes() == source.read_bytes()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


def test_bytes_sent_by_another_client_count_as_done(artifacts: Client, source: Path) -> None:
    seen: list[tuple[int, int]] = []
    ready = threading.Barrier(2)

    def work(_number: int) -> None:
        done: list[tuple[int, int]] = []
        ready.wait()
        artifacts.artifacts.upload(source, progress=lambda *progress: done.append(progress))
        seen.append(done[-1])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    size = source.stat().st_size
    assert seen == [(size, size)] * 2


class Empty(Service):
    """An artifact service without any blobs."""

    def FindMissingBlobs(  # noqa: N802
        self, request: v1.FindMissingBlobsRequest, _context: grpc.ServicerContext
    ) -> v1.FindMissingBlobsResponse:
        return v1.FindMissingBlobsResponse(missing=request.digests)

    def PresignUploads(self, _request: object, _context: grpc.ServicerContext) -> v1.PresignUploadsResponse:  # noqa: N802
        return v1.PresignUploadsResponse()

    def GetUpload(self, _request: object, _context: grpc.ServicerContext) -> v1.GetUploadResponse:  # noqa: N802
        return v1.GetUploadResponse()


def test_upload_without_progress_fails(serve: Serve, source: Path) -> None:
    attempts: list[object] = []

    class Dying(Empty):
        """A service that breaks off every upload."""

        def UploadBlob(self, parts: Iterator[object], context: grpc.ServicerContext) -> v1.UploadBlobResponse:  # noqa: N802
            attempts.append(next(parts))
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            raise AssertionError

    client = serve(Dying(), v1.add_ArtifactServiceServicer_to_server, timeout=scaled(0.3))
    with pytest.raises(Unavailable):
        client.artifacts.upload(source)
    assert 1 < len(attempts) < 60  # the timeout of a file of this size is a minute, with an attempt per second


def test_upload_is_retried_while_it_makes_progress(serve: Serve, source: Path) -> None:
    offsets: list[int] = []

    class Shaky(Empty):
        """A service that receives a few bytes per call, each call longer than the timeout for retries."""

        def GetUpload(self, _request: object, _context: grpc.ServicerContext) -> v1.GetUploadResponse:  # noqa: N802
            return v1.GetUploadResponse(received_bytes=offsets[-1] + 4 * CHUNK_BYTES if offsets else 0)

        def UploadBlob(  # noqa: N802
            self, parts: Iterator[v1.UploadBlobRequest], context: grpc.ServicerContext
        ) -> v1.UploadBlobResponse:
            offsets.append(next(parts).upload.offset)
            for _ in range(4):
                if next(parts, None) is None:
                    return v1.UploadBlobResponse(size_bytes=LARGE)
            time.sleep(scaled(0.4))
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
            raise AssertionError

        def CreateManifest(self, _request: object, _context: grpc.ServicerContext) -> v1.CreateManifestResponse:  # noqa: N802
            return v1.CreateManifestResponse(digest="stored")

    client = serve(Shaky(), v1.add_ArtifactServiceServicer_to_server, timeout=scaled(0.3))
    assert client.artifacts.upload(source) == ("stored", "weights")
    assert offsets == [part * 4 * CHUNK_BYTES for part in range(5)]


def test_rejected_blob_stops_the_other_transfers(serve: Serve, source: Path) -> None:
    refused_digest = f"sha256:{hashlib.sha256(b'refused').hexdigest()}"
    (source.parent / "tree").mkdir()
    (source.parent / "tree" / "a").write_bytes(b"tried again and again")
    (source.parent / "tree" / "b").write_bytes(b"refused")

    attempts: list[str] = []

    class Refusing(Empty):
        """A service that rejects one blob, and breaks off every other upload."""

        def UploadBlob(  # noqa: N802
            self, parts: Iterator[v1.UploadBlobRequest], context: grpc.ServicerContext
        ) -> v1.UploadBlobResponse:
            attempts.append(next(parts).digest)
            refused = attempts[-1] == refused_digest
            context.abort(grpc.StatusCode.INVALID_ARGUMENT if refused else grpc.StatusCode.UNAVAILABLE, "no")
            raise AssertionError

    client = serve(Refusing(), v1.add_ArtifactServiceServicer_to_server, timeout=scaled(60.0))
    with pytest.raises(InvalidRequest):
        client.artifacts.upload(source.parent / "tree")
    assert len(attempts) < 60  # the other upload would be retried for a minute, once per second


def test_stopped_transfer_raises_no_error_of_its_own(
    serve: Serve, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun = threading.Event()

    class Refusing(Empty):
        """A service that rejects the small blob after the upload of the large one has started."""

        def UploadBlob(  # noqa: N802
            self, parts: Iterator[v1.UploadBlobRequest], context: grpc.ServicerContext
        ) -> v1.UploadBlobResponse:
            if next(parts).upload.digest:
                begun.set()
                for _ in parts:
                    time.sleep(0.05)
            begun.wait(scaled(20))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
            raise AssertionError

    (tmp_path / "tree").mkdir()
    source.rename(tmp_path / "tree" / "weights")
    (tmp_path / "tree" / "small").write_bytes(b"small")
    with pytest.raises(InvalidRequest):
        serve(Refusing(), v1.add_ArtifactServiceServicer_to_server).artifacts.upload(tmp_path / "tree")
    assert caplog.records == []


def test_manifest_of_many_files_has_a_longer_timeout(serve: Serve, tmp_path: Path) -> None:
    asked: list[int] = []

    class Far(Empty):
        """A service that has every blob, and takes a second to look up many."""

        def FindMissingBlobs(  # noqa: N802
            self, request: v1.FindMissingBlobsRequest, _context: grpc.ServicerContext
        ) -> v1.FindMissingBlobsResponse:
            asked.append(len(request.digests))
            return v1.FindMissingBlobsResponse()

        def CreateManifest(self, _request: object, _context: grpc.ServicerContext) -> v1.CreateManifestResponse:  # noqa: N802
            time.sleep(scaled(1.0))
            return v1.CreateManifestResponse(digest="stored")

    for number in range(2_001):
        (tmp_path / str(number)).write_text(str(number))
    client = serve(Far(), v1.add_ArtifactServiceServicer_to_server, timeout=scaled(0.7))
    assert client.artifacts.upload(tmp_path)[0] == "stored"
    assert asked == [1_000, 1_000, 1]


def test_error_in_the_progress_callback_is_raised_unchanged(artifacts: Client, source: Path) -> None:
    def fail(done: int, _total: int) -> None:
        if done:
            raise LookupError("the bar is gone")

    with pytest.raises(LookupError):
        artifacts.artifacts.upload(source, progress=fail)


def test_full_store_fails_at_once(serve: Serve, source: Path) -> None:
    calls: list[str] = []

    class Full(Empty):
        """A service whose store is full."""

        def UploadBlob(self, _parts: object, context: grpc.ServicerContext) -> v1.UploadBlobResponse:  # noqa: N802
            calls.append("upload")
            status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
            status.details.add().Pack(ErrorInfo(reason="BLOB_STORE_FULL", domain="rollforward"))
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "full")
            raise AssertionError

    client = serve(Full(), v1.add_ArtifactServiceServicer_to_server)
    with pytest.raises(Unavailable) as refused:
        client.artifacts.upload(source)
    assert refused.value.reason == "BLOB_STORE_FULL"
    assert calls == ["upload"]
