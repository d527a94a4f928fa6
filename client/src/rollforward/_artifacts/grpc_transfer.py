"""Blobs to and from the artifact service: calls that go on where the one before broke off."""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import Message

from rollforward import v1
from rollforward._artifacts.manifests import CHUNK_BYTES
from rollforward._artifacts.transfer import RESUMED, Transfer
from rollforward._transport.backoff import Backoff
from rollforward.errors import RollforwardError, from_rpc_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


class BlobUpload:
    """The upload of one blob, which goes on after a lost connection, and after an end of this process.

    Its id follows from the digest and the actor, so that whoever begins the same upload again continues it. Of several
    that do so at once, the service receives one; the others wait until the blob is there, and one of them continues
    when that one ends. Only when it cannot be continued does one begin again, under an id of its own.
    """

    def __init__(self, transfer: Transfer, digest: str, source: Path, size: int) -> None:
        self._transfer = transfer
        self._link = transfer.link
        self._digest = digest
        self._source = source
        self._size = size
        self._sent = 0
        self._arrived = 0
        self._attempts = 0
        self._upload_id = hashlib.sha256(f"{digest}\0{self._link.actor}".encode()).hexdigest()[:32]

    def run(self) -> None:
        """Send the blob.

        Raises:
            InvalidRequest: DIGEST_MISMATCH when the file changed meanwhile.
            OSError: See the message.
            Unavailable: No result within the timeout.
        """
        self._transfer.insist(self._attempt, self._size, lambda: self._arrived)

    def _attempt(self, seconds: float | None) -> None:
        self._attempts += 1
        if self._size < RESUMED:
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

    def _offset_after(self, refusal: RollforwardError, offset: int) -> int | None:
        """Where to continue at once after a refusal; None when another attempt has to. Raises BLOB_STORE_FULL."""
        if refusal.reason == "BLOB_STORE_FULL":
            raise refusal
        if refusal.reason == "DIGEST_MISMATCH" and offset:
            return 0  # what was received before is not what was sent, because a machine lost power
        received = self._received() if refusal.reason in {"INVALID_OFFSET", "UPLOAD_TAKEN"} else offset
        if refusal.reason == "INVALID_OFFSET" and received != offset:
            return received  # from others, or from a call that broke off, more had arrived
        if refusal.reason == "UPLOAD_TAKEN" and received <= offset:
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
                self._link.artifacts.UploadBlob(parts, timeout=seconds, metadata=self._link.metadata())
            except grpc.RpcError:
                if not failures:
                    raise
        if failures:
            raise failures[0]
        self._count(self._size)  # what another sent counts too

    def _parts(
        self, first: v1.UploadBlobRequest, file: BinaryIO, failures: list[Exception]
    ) -> Iterator[v1.UploadBlobRequest]:
        """Yield what is sent, until that fails: gRPC would only report that it did."""
        yield first
        # How much of what is sent arrives is not known before the next attempt asks.
        arrived = self._sent + 1
        try:
            while chunk := file.read(CHUNK_BYTES):
                yield v1.UploadBlobRequest(chunk=chunk)
                self._arrived = max(self._arrived, arrived)
                self._count(self._sent + len(chunk))
        except Exception as error:  # noqa: BLE001 - raised by who waits for the answer
            failures.append(error)

    def _count(self, sent: int) -> None:
        self._transfer.add(sent - self._sent)
        self._sent = sent

    def _received(self) -> int:
        request = v1.GetUploadRequest(upload_id=self._upload_id)
        received = self._ask(self._link.artifacts.GetUpload, request).received_bytes
        return received if received <= self._size else 0

    def _is_stored(self) -> bool:
        return not self._ask(
            self._link.artifacts.FindMissingBlobs, v1.FindMissingBlobsRequest(digests=[self._digest])
        ).missing

    def _ask(self, method: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
        """One answer, or none: here it is the whole attempt that is repeated."""
        return method(request, timeout=Backoff(self._link.timeout).remaining(), metadata=self._link.metadata())


def download(transfer: Transfer, digest: str, offset: int, seconds: float | None) -> Iterator[bytes]:
    """Yield a blob's bytes from an offset on. Raises grpc.RpcError."""
    link = transfer.link
    request = v1.DownloadBlobRequest(digest=digest, offset=offset)
    call = link.artifacts.DownloadBlob(request, timeout=seconds, metadata=link.metadata())
    try:
        for response in call:
            yield response.chunk
    finally:
        call.cancel()
