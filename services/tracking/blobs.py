"""Where blobs are kept, each under the sha256 of its bytes: a directory or an S3 bucket.

A key is `sha256/<first two hex digits>/<hex>` below the store's root or prefix. A blob is there whole or not at all:
what a crash leaves behind is a file in ROOT/tmp, which no reader looks at and a later start removes, or parts of a
multipart upload, which a bucket's lifecycle rule should remove.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import re
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Protocol, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError
from obstore.store import S3Store

from eventstore.errors import Kind, Rejected, StoreUnavailable

CHUNK = 1024 * 1024
"""Bytes a store hands out at once, at most."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_ABANDONED = 24 * 60 * 60  # seconds since anything was written to an upload's file
_PART = 8 * CHUNK  # an object up to this size goes up in one request
_PARTS = 10_000  # S3 takes no more in one upload
_REQUESTS = 64  # requests of one call that are under way at a time


class BlobStore(Protocol):
    """Blobs by digest.

    Every method raises `Rejected` INVALID_DIGEST, and `StoreUnavailable` if the store is out of reach.
    """

    async def sizes(self, digests: Collection[str]) -> dict[str, int]:
        """The size in bytes of each of these blobs that is stored."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a blob durably and return its size in bytes; storing it again changes nothing.

        Raises `Rejected` DIGEST_MISMATCH, and then nothing is stored.
        """

    def open(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """The blob's bytes from `offset` on, at most `CHUNK` at once.

        Raises `Rejected` BLOB_NOT_FOUND, or INVALID_OFFSET if the blob ends before `offset`.
        """

    def within(self, name: str) -> BlobStore:
        """The store of other blobs, kept under `name` in this store's place."""


class LocalBlobs:
    """Blobs as files of the directory `root`, which one machine's processes may share.

    `put` returns when the file and the entries that lead to it are on disk.
    """

    def __init__(self, root: Path, folder: str = "") -> None:
        self._root = root
        self._folder = folder

    async def sizes(self, digests: Collection[str]) -> dict[str, int]:
        return await asyncio.to_thread(_file_sizes, {digest: self._path(digest) for digest in digests})

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        path = self._path(digest)
        file = await asyncio.to_thread(self._upload_file)
        try:
            size = await _spool(file, digest, chunks)
            await asyncio.to_thread(self._publish, file, path)
        finally:
            await asyncio.to_thread(_discard, file)
        return size

    async def open(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        path = self._path(digest)
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError:
            raise _not_found(digest) from None
        with file:
            _check_offset(digest, offset, os.fstat(file.fileno()).st_size)
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk

    def within(self, name: str) -> LocalBlobs:
        return LocalBlobs(self._root, f"{self._folder}{name}/")

    def _path(self, digest: str) -> Path:
        return self._root / f"{self._folder}{_key(digest)}"

    def _upload_file(self) -> IO[bytes]:
        return cast("IO[bytes]", tempfile.NamedTemporaryFile(dir=self._root / "tmp", delete=False))

    def _publish(self, file: IO[bytes], path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        # Also over a blob that is there: its writer may not have come to the syncs below yet.
        Path(file.name).replace(path)
        for folder in path.relative_to(self._root).parents:
            _sync_directory(self._root / folder)


class S3Blobs:
    """Blobs as objects of a bucket; `folder` is "" or ends in "/"."""

    def __init__(self, store: S3Store, folder: str = "") -> None:
        self._store = store
        self._folder = folder

    async def sizes(self, digests: Collection[str]) -> dict[str, int]:
        keys = {digest: self._key(digest) for digest in digests}
        wanted = list(keys.values())
        sizes: list[int | None] = []
        for start in range(0, len(wanted), _REQUESTS):
            sizes += await asyncio.gather(*map(self._size, wanted[start : start + _REQUESTS]))
        return {digest: size for digest, size in zip(keys, sizes, strict=True) if size is not None}

    async def put(self, digest: str, chunks: AsyncIterator[bytes]) -> int:
        key = self._key(digest)
        # The file has no name, so that not even a crash leaves it behind.
        file = await asyncio.to_thread(tempfile.TemporaryFile)
        try:
            size = await _spool(file, digest, chunks)
            await asyncio.to_thread(file.seek, 0)
            with _in_reach():
                await self._upload(key, file, size)
        finally:
            await asyncio.to_thread(file.close)
        return size

    async def open(self, digest: str, offset: int = 0) -> AsyncGenerator[bytes, None]:
        key = self._key(digest)
        size = await self._size(key)
        if size is None:
            raise _not_found(digest)
        _check_offset(digest, offset, size)
        # A request per part, not one for all: a slow reader would run into the request's timeout.
        for start in range(offset, size, _PART):
            with _in_reach():
                part = await obstore.get_range_async(self._store, key, start=start, end=min(start + _PART, size))
            view = memoryview(part)
            for at in range(0, len(view), CHUNK):
                yield bytes(view[at : at + CHUNK])

    def within(self, name: str) -> S3Blobs:
        return S3Blobs(self._store, f"{self._folder}{name}/")

    def _key(self, digest: str) -> str:
        return f"{self._folder}{_key(digest)}"

    async def _size(self, key: str) -> int | None:
        with _in_reach():
            try:
                return (await obstore.head_async(self._store, key))["size"]
            except FileNotFoundError:
                return None

    async def _upload(self, key: str, file: IO[bytes], size: int) -> None:
        if size <= _PART:
            with suppress(AlreadyExistsError):  # then it has these very bytes: it was created as this one would be
                await obstore.put_async(self._store, key, await asyncio.to_thread(file.read), mode="create")
        # To create it conditionally, obstore would hold all of it in memory. Two that find it missing write the same.
        elif await self._size(key) != size:
            part = max(_PART, -(-size // _PARTS))
            await obstore.put_async(self._store, key, file, use_multipart=True, chunk_size=part, max_concurrency=4)


def open_blob_store(url: str) -> BlobStore:
    """The store at a directory's path or `file:` URL (made if missing) or at `s3://BUCKET/PREFIX`.

    S3 reads its endpoint and credentials from the usual AWS_* variables; plain HTTP is for an AWS_ENDPOINT_URL of this
    machine, or if AWS_ALLOW_HTTP says so. Raises `ValueError` for another scheme, `OSError` for an unusable directory.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3":
        return S3Blobs(_bucket(url))
    if "://" in url and (parts.scheme != "file" or parts.netloc not in {"", "localhost"}):
        raise ValueError(f"{parts.scheme}://{parts.netloc} is no place for blobs: use a path or s3://BUCKET/PREFIX")
    root = Path(unquote(parts.path) if parts.scheme == "file" else url).absolute()
    _prepare(root / "tmp")
    return LocalBlobs(root)


def _bucket(url: str) -> S3Store:
    return S3Store.from_url(
        url,
        client_options={"allow_http": True} if _endpoint_is_here() else {},  # {} leaves it to AWS_ALLOW_HTTP
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
    )


def hex_of(digest: str) -> str:
    """The hex digits of a digest. Raises `Rejected` INVALID_DIGEST."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise Rejected(
            Kind.INVALID, "INVALID_DIGEST", "a digest is sha256: and 64 lower-case hex digits", digest=digest[:80]
        )
    return match[1]


def _key(digest: str) -> str:
    name = hex_of(digest)
    return f"sha256/{name[:2]}/{name}"


async def _spool(file: IO[bytes], digest: str, chunks: AsyncIterator[bytes]) -> int:
    """Write the chunks to `file` and return how many bytes they had. Raises `Rejected` DIGEST_MISMATCH."""
    sha256 = hashlib.sha256()

    def absorb(chunk: bytes) -> None:
        sha256.update(chunk)
        file.write(chunk)

    size = 0
    async for chunk in chunks:
        await asyncio.to_thread(absorb, chunk)
        size += len(chunk)
    actual = f"sha256:{sha256.hexdigest()}"
    if actual != digest:
        raise Rejected(
            Kind.INVALID, "DIGEST_MISMATCH", f"these {size} bytes are another blob", digest=digest, actual=actual
        )
    return size


def _discard(file: IO[bytes]) -> None:
    file.close()
    Path(file.name).unlink(missing_ok=True)


def _not_found(digest: str) -> Rejected:
    return Rejected(Kind.NOT_FOUND, "BLOB_NOT_FOUND", f"there is no blob {digest}", digest=digest)


def _check_offset(digest: str, offset: int, size: int) -> None:
    if not 0 <= offset <= size:
        message = f"offset {offset} is outside the blob's {size} bytes"
        raise Rejected(Kind.INVALID, "INVALID_OFFSET", message, digest=digest, size_bytes=str(size))


def _file_sizes(paths: dict[str, Path]) -> dict[str, int]:
    return {digest: size for digest, path in paths.items() if (size := _file_size(path)) is not None}


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(uploads: Path) -> None:
    """Make the directory of unfinished uploads, and rid it of those that were abandoned."""
    uploads.mkdir(parents=True, exist_ok=True)
    for path in uploads.iterdir():
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


@contextmanager
def _in_reach() -> Iterator[None]:
    try:
        yield
    except GenericError as error:
        raise StoreUnavailable("the blob store cannot be reached", "BLOB_STORE_UNAVAILABLE") from error


def _endpoint_is_here() -> bool:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    host = urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
