"""Transfer of blobs directly to and from an object store, over HTTP with URLs signed by the service."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import OpenerDirector, ProxyHandler, Request, build_opener

from rollforward import v1
from rollforward._artifacts.manifests import CHUNK_BYTES
from rollforward._transport.address import is_loopback
from rollforward.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rollforward._artifacts.transfer import Transfer

# Larger blobs go through the service, which can resume a failed upload; here it would restart.
_MAX_PUT_BYTES: Final = 1024**3
_STALL_SECONDS: Final = 30.0
# The errors of a store that is unreachable or misbehaves.
_FAILURES: Final = (OSError, http.client.HTTPException, ValueError)


def upload(transfer: Transfer, digest: str, source: Path, size: int) -> bool:
    """Upload a blob directly to the store and commit it; return False, with no bytes counted, if that is impossible.

    Raises:
        InvalidRequest: DIGEST_MISMATCH if the file changed meanwhile.
        OSError: See the message.
        Unavailable: No result within the timeout.
    """
    if not transfer.direct or size > _MAX_PUT_BYTES:
        return False
    connection = transfer.connection
    signed = connection.call(connection.artifacts.PresignUploads, v1.PresignUploadsRequest(digests=[digest])).uploads
    if not signed or not _put(transfer, signed[0].url, source, size):
        transfer.direct = False
        return False
    request = v1.CommitUploadRequest(digest=digest, upload_id=signed[0].upload_id)
    try:
        connection.call(connection.artifacts.CommitUpload, request, timeout=transfer.allowance(size))
    except NotFound:
        transfer.add(-size)
        return False
    return True


def download(transfer: Transfer, digest: str, offset: int) -> Iterator[bytes]:
    """Yield a blob's bytes from an offset on, directly from the store; stop early if that fails."""
    connection = transfer.connection
    request = v1.PresignDownloadsRequest(digests=[digest])
    signed = connection.call(connection.artifacts.PresignDownloads, request).downloads
    if not signed:
        transfer.direct = False
        return
    try:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with _opener(signed[0].url).open(_request(signed[0].url, headers=headers), timeout=_STALL_SECONDS) as response:
            if response.status != (206 if offset else 200):
                return
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
    except HTTPError as error:
        error.close()
    except _FAILURES:
        transfer.direct = False


def _put(transfer: Transfer, url: str, source: Path, size: int) -> bool:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        with source.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                transfer.add(len(chunk))
                sent += len(chunk)
                yield chunk

    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    try:
        request = _request(url, data=chunks(), method="PUT", headers=headers)
        with _opener(url).open(request, timeout=_STALL_SECONDS):
            return True
    except HTTPError as error:
        error.close()
        transfer.add(-sent)
    except _FAILURES:  # an unreadable file too: the upload through the service then raises the error
        transfer.add(-sent)
    return False


def _request(url: str, **options: object) -> Request:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"unsupported URL {url[:20]!r}: expected http or https")
    return Request(url, **options)  # type: ignore[arg-type]  # noqa: S310 - the scheme is checked above


def _opener(url: str) -> OpenerDirector:
    # A proxy must not see requests to this machine.
    here = is_loopback(urlsplit(url).netloc)
    return build_opener(ProxyHandler({})) if here else build_opener()
