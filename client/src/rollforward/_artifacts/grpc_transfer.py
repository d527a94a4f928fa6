"""Transfer of blobs to and from the artifact service, in calls that resume where the last one failed."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import Message

from rollforward import v1
from rollforward._artifacts.manifests import CHUNK_BYTES
from rollforward._artifacts.transfer import RESUMABLE_BYTES, Transfer
from rollforward._transport.backoff import Backoff
from rollforward.errors import RollforwardError, from_rpc_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class BlobUpload:
    """The upload of one blob, which survives lost connections and a restart of this process.

    The upload id is derived from the digest and the actor, so that the next process that uploads the same blob resumes
    it. Of several such uploads at once, the service accepts one; the others wait until the blob is stored, or one of
    them takes over when the first ends. An upload that cannot be resumed restarts under a random id.
    """

    def __init__(self, transfer: Transfer, digest: str, source: Path, size: int) -> None:
        self._transfer = transfer
        self._connection = transfer.connection
        self._digest = digest
        self._source = source
        self._size = size
        self._sent = 0
        self._arrived = 0
        self._attempts = 0
        self._upload_id = hashlib.sha256(f"{digest}\0{self._connection.actor}".encode()).hexdigest()[:32]

    def run(self) -> None:
        """Send the blob.

        Raises:
            InvalidRequest: DIGEST_MISMATCH if the file changed meanwhile.
            OSError: See the message.
            Unavailable: No result within the timeout.
        """
        self._transfer.retry(self._attempt, self._size, lambda: self._arrived)

    def _attempt(self, seconds: float | None) -> None:
        self._attempts += 1
        if self._size < RESUMABLE_BYTES:
            return self._send(None, seconds)
        if self._attempts > 1 and self._is_stored():
            return self._count(self._size)
        return self._continue(self._received(), seconds)

    def _continue(self, offset: int, seconds: float | None) -> None:
        try:
            self._send(offset, seconds)
        except grpc.RpcError as error:
            refusal = from_rpc_error(error)
            following = self._offset_after(refusal, offset)
            if following is None:
                raise
            self._continue(following, seconds)

    def _offset_after(self, error: RollforwardError, offset: int) -> int | None:
        """Return the offset to continue at, at once, after a rejection; None to leave it to the next attempt.

        Raises:
            RollforwardError: BLOB_STORE_FULL.
        """
        if error.reason == "BLOB_STORE_FULL":
            raise error
        if error.reason == "DIGEST_MISMATCH" and offset:
            return 0  # the received bytes differ from the sent ones: a machine lost power
        received = self._received() if error.reason in {"INVALID_OFFSET", "UPLOAD_TAKEN"} else offset
        if error.reason == "INVALID_OFFSET" and received != offset:
            return received  # more had arrived, from another process or from a failed call
        if error.reason == "UPLOAD_TAKEN" and received <= offset:
            self._upload_id = uuid.uuid4().hex
        return None

    def _send(self, offset: int | None, seconds: float | None) -> None:
        self._count(offset or 0)
        self._arrived = max(self._arrived, self._sent)
        first = v1.UploadBlobRequest(digest=self._digest)
        if offset is not None:
            named = v1.BlobUpload(digest=self._digest, upload_id=self._upload_id)
            named.offset, named.size_bytes = offset, self._size
            first = v1.UploadBlobRequest(upload=named)
        failures: list[Exception] = []
        with self._source.open("rb") as file:
            file.seek(offset or 0)
            parts = self._parts(first, file, failures)
            try:
                self._connection.artifacts.UploadBlob(parts, timeout=seconds, metadata=self._connection.metadata())
            except grpc.RpcError:
                if not failures:
                    raise
        if failures:
            raise failures[0]
        self._count(self._size)  # the service may have received the blob from another process

    def _parts(
        self, first: v1.UploadBlobRequest, file: BinaryIO, failures: list[Exception]
    ) -> Iterator[v1.UploadBlobRequest]:
        """Yield the messages to send, and collect exceptions: gRPC would hide their cause."""
        yield first
        # Only the next attempt learns how many of the sent bytes arrived.
        arrived = self._sent + 1
        try:
            while chunk := file.read(CHUNK_BYTES):
                yield v1.UploadBlobRequest(chunk=chunk)
                self._arrived = max(self._arrived, arrived)
                self._count(self._sent + len(chunk))
        except Exception as error:  # noqa: BLE001 - the caller raises it
            failures.append(error)

    def _count(self, sent: int) -> None:
        self._transfer.add(sent - self._sent)
        self._sent = sent

    def _received(self) -> int:
        request = v1.GetUploadRequest(upload_id=self._upload_id)
        received = self._call_once(self._connection.artifacts.GetUpload, request).received_bytes
        return received if received <= self._size else 0

    def _is_stored(self) -> bool:
        return not self._call_once(
            self._connection.artifacts.FindMissingBlobs, v1.FindMissingBlobsRequest(digests=[self._digest])
        ).missing

    def _call_once(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
        """Call a method without retries: the whole attempt is retried instead."""
        return method(
            request, timeout=Backoff(self._connection.timeout).remaining(), metadata=self._connection.metadata()
        )


def download(transfer: Transfer, digest: str, offset: int, seconds: float | None) -> Iterator[bytes]:
    """Yield a blob's bytes from an offset on.

    Raises:
        grpc.RpcError: The call failed.
    """
    connection = transfer.connection
    request = v1.DownloadBlobRequest(digest=digest, offset=offset)
    call = connection.artifacts.DownloadBlob(request, timeout=seconds, metadata=connection.metadata())
    try:
        for response in call:
            yield response.chunk
    finally:
        call.cancel()
