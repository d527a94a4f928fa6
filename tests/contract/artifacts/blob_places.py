"""The stores of blobs under test, and what their tests say in a word."""

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
    """A store under test; `listed` lists all that is kept there, unfinished uploads too."""

    url: str
    spool: Path
    store: BlobStore
    listed: Callable[[], list[str]]

    def opened_again(self) -> BlobStore:
        """The store as another process, or a later one, opens it."""
        return open_blob_store(self.url, self.spool)


def local_place(root: Path) -> Place:
    """A directory."""
    return Place(str(root), root / "tmp", open_blob_store(str(root), root / "tmp"), lambda: _files_below(root))


def s3_place(url: str, spool: Path) -> Place:
    """A prefix of a bucket whose server and credentials the environment names."""
    listed = S3Store.from_url(url, client_options={"allow_http": True})

    def keys() -> list[str]:
        return sorted([meta["path"] for meta in obstore.list(listed).collect()] + _files_below(spool))

    return Place(url, spool, open_blob_store(url, spool), keys)


def digest_of(data: bytes) -> str:
    """The digest that names these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces(data: bytes, size: int = CHUNK) -> AsyncIterator[bytes]:
    """These bytes as they come from a client."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(store: BlobStore, digest: str, offset: int = 0, length: int = 0) -> bytes:
    """A blob's bytes, in chunks that are not too large."""
    chunks = [chunk async for chunk in store.open(digest, offset, length)]
    assert all(0 < len(chunk) <= CHUNK for chunk in chunks)
    return b"".join(chunks)


def _files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
