"""Blobs straight to and from an object store, by HTTP and the URLs that the service has signed."""

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

# Larger ones go through the service: there an upload that broke off goes on, here it would begin anew.
_LARGEST_PUT: Final = 1024**3
_STALL_SECONDS: Final = 30.0
# What says that the store was not reached, or did not answer as one does.
_FAILURES: Final = (OSError, http.client.HTTPException, ValueError)


def upload(transfer: Transfer, digest: str, source: Path, size: int) -> bool:
    """Put a blob past the service and have it committed; False when that cannot be done, and no byte counts as done.

    Raises:
        InvalidRequest: DIGEST_MISMATCH when the file changed meanwhile.
        OSError: See the message.
        Unavailable: No result within the timeout.
    """
    if not transfer.direct or size > _LARGEST_PUT:
        return False
    link = transfer.link
    signed = link.call(link.artifacts.PresignUploads, v1.PresignUploadsRequest(digests=[digest])).uploads
    if not signed or not _put(transfer, signed[0].url, source, size):
        transfer.direct = False
        return False
    request = v1.CommitUploadRequest(digest=digest, upload_id=signed[0].upload_id)
    try:
        link.call(link.artifacts.CommitUpload, request, timeout=transfer.allowance(size))
    except NotFound:
        transfer.add(-size)
        return False
    return True


def download(transfer: Transfer, digest: str, offset: int) -> Iterator[bytes]:
    """Yield a blob's bytes from an offset on straight from the store, as far as that is possible."""
    link = transfer.link
    signed = link.call(link.artifacts.PresignDownloads, v1.PresignDownloadsRequest(digests=[digest])).downloads
    if not signed:
        transfer.direct = False
        return
    try:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with _opener(signed[0].url).open(_request(signed[0].url, headers=headers), timeout=_STALL_SECONDS) as answer:
            if answer.status != (206 if offset else 200):
                return
            while chunk := answer.read(CHUNK_BYTES):
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
    except _FAILURES:  # also when the file cannot be read: then the other way fails too, and says so
        transfer.add(-sent)
    return False


def _request(url: str, **how: object) -> Request:
    if urlsplit(url).scheme not in {"http", "https"}:
        raise ValueError(f"not a URL of HTTP: {url[:20]!r}")
    return Request(url, **how)  # type: ignore[arg-type]  # noqa: S310 - its scheme was looked at


def _opener(url: str) -> OpenerDirector:
    # A proxy for the outside world must not catch requests to this machine.
    here = is_loopback(urlsplit(url).netloc)
    return build_opener(ProxyHandler({})) if here else build_opener()
