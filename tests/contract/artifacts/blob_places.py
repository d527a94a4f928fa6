"""The blob stores under test, and helpers that write, read and list them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import S3Store

from services.artifacts.digests import CHUNK
from services.artifacts.open_store import open_blob_store
from services.artifacts.store import BlobStore

MIB = 1024 * 1024


@dataclass(frozen=True)
class Place:
    """A store under test; `listed` returns all its files or keys, unfinished uploads included."""

    url: str
    spool: Path
    store: BlobStore
    listed: Callable[[], list[str]]

    def opened_again(self) -> BlobStore:
        """Return the store as another process opens it."""
        return open_blob_store(self.url, self.spool)


def local_place(root: Path) -> Place:
    """Return a store in a directory."""
    return Place(str(root), root / "tmp", open_blob_store(str(root), root / "tmp"), lambda: _files_below(root))


def s3_place(url: str, spool: Path) -> Place:
    """Return a store under a prefix of a bucket, with the server and credentials of the environment."""
    listed = S3Store.from_url(url, client_options={"allow_http": True})

    def keys() -> list[str]:
        return sorted([meta["path"] for meta in obstore.list(listed).collect()] + _files_below(spool))

    return Place(url, spool, open_blob_store(url, spool), keys)


def digest_of(data: bytes) -> str:
    """Return the digest of these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces(data: bytes, size: int = CHUNK) -> AsyncIterator[bytes]:
    """Yield these bytes in chunks, as a client sends them."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(store: BlobStore, digest: str, offset: int = 0, length: int = 0) -> bytes:
    """Read a blob, and check the size of its chunks."""
    chunks = [chunk async for chunk in store.open(digest, offset, length)]
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    return b"".join(chunks)


def _files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
