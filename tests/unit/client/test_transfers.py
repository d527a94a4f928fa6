"""Transfers of blobs when things go wrong: files that change, several that upload at once, what others left."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rollforward import v1
from rollforward.artifacts import upload
from rollforward.connection import Connection
from rollforward.downloads import download
from rollforward.errors import InvalidRequest, Unavailable
from rollforward.transfers import RESUMED
from services.tracking.local_blobs import LocalBlobs
from tests.unit.client.conftest import Serve, Service

LARGE = RESUMED * 2 + 3


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(hashlib.sha256(b"").digest() * (LARGE // 32 + 1))
    return path


def upload_id_of(link: Connection, path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(f"sha256:{digest}\0{link.actor}".encode()).hexdigest()[:32]


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_file_that_changes_while_it_is_uploaded_is_refused(artifacts: Connection, tmp_path: Path, size: int) -> None:
    source = tmp_path / "changing"
    source.write_bytes(bytes(size))

    def change(_done: int, _total: int) -> None:
        source.write_bytes(b"!" + bytes(size - 1))

    with pytest.raises(InvalidRequest) as refused:
        upload(source, connection=artifacts, progress=change)
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("held", [1, RESUMED, LARGE])
def test_an_upload_goes_on_with_what_an_earlier_program_sent(
    artifacts: Connection, source: Path, tmp_path: Path, held: int
) -> None:
    left = tmp_path / "blobs" / "tmp" / upload_id_of(artifacts, source)
    left.write_bytes(source.read_bytes()[:held])
    seen: list[int] = []
    upload(source, connection=artifacts, progress=lambda done, _: seen.append(done))
    assert held in seen
    assert not [done for done in seen if 0 < done < held]
    assert not left.exists()


@pytest.mark.parametrize("held", [b"not what was sent", bytes(LARGE * 2)])
def test_an_upload_begins_anew_when_what_is_left_is_wrong(
    artifacts: Connection, source: Path, tmp_path: Path, held: bytes
) -> None:
    (tmp_path / "blobs" / "tmp" / upload_id_of(artifacts, source)).write_bytes(held)
    digest, _ = upload(source, connection=artifacts)
    assert (download(digest, tmp_path / "back", connection=artifacts) / "weights").read_bytes() == source.read_bytes()


def test_many_upload_the_same_at_once(artifacts: Connection, blobs: LocalBlobs, source: Path, tmp_path: Path) -> None:
    ready = threading.Barrier(6)

    def work(_number: int) -> str:
        ready.wait()
        return upload(source, connection=artifacts)[0]

    with ThreadPoolExecutor(6) as pool:
        digests = set(pool.map(work, range(6)))
    assert len(digests) == 1
    target = download(digests.pop(), tmp_path / "back", connection=artifacts)
    assert (target / "weights").read_bytes() == source.read_bytes()
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


def test_a_full_store_is_said_at_once(serve: Serve, source: Path) -> None:
    calls: list[str] = []

    class Full(Service):
        """Has no blob, and room for none."""

        def FindMissingBlobs(  # noqa: N802
            self, request: v1.FindMissingBlobsRequest, _context: grpc.ServicerContext
        ) -> v1.FindMissingBlobsResponse:
            return v1.FindMissingBlobsResponse(missing=request.digests)

        def PresignUploads(self, _request: object, _context: grpc.ServicerContext) -> v1.PresignUploadsResponse:  # noqa: N802
            return v1.PresignUploadsResponse()

        def GetUpload(self, _request: object, _context: grpc.ServicerContext) -> v1.GetUploadResponse:  # noqa: N802
            return v1.GetUploadResponse()

        def UploadBlob(self, _parts: object, context: grpc.ServicerContext) -> v1.UploadBlobResponse:  # noqa: N802
            calls.append("upload")
            status = Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
            status.details.add().Pack(ErrorInfo(reason="BLOB_STORE_FULL", domain="rollforward"))
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "full")
            raise AssertionError

    link = serve(Full(), v1.add_ArtifactServiceServicer_to_server)
    with pytest.raises(Unavailable) as refused:
        upload(source, connection=link)
    assert refused.value.reason == "BLOB_STORE_FULL"
    assert calls == ["upload"]
