"""The interface of a store of blobs: each is kept under the sha256 of its bytes.

A key is `sha256/<first two hex digits>/<hex>` below the store's root or prefix. A blob is stored whole or not at all.
What garbage collection has set aside is kept below `trash/` by the same keys, and is read from there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from services.artifacts.uploads import Upload


class Entry(NamedTuple):
    """A blob that is kept: its size in bytes, and since when it is where it is, in seconds by the store's clock."""

    digest: str
    size: int
    since: float


class Turn(Protocol):
    """The turn of the one collection that may change a store.

    Attributes:
        began: When, in seconds by the store's clock.
        resolution: How exactly the store tells times, in seconds.
    """

    @property
    def began(self) -> float:
        """When it began."""

    @property
    def resolution(self) -> float:
        """The resolution of the times."""

    def lasts(self) -> bool:
        """Return whether no other collection can have begun."""


class BlobStore(Protocol):
    """Blobs by digest.

    Every method raises `Rejected` INVALID_DIGEST, and `StoreUnavailable` if the store is out of reach.
    """

    async def sizes(self, digests: Collection[str]) -> dict[str, int]:
        """Return the size in bytes of each of these blobs that is stored, set aside or not."""

    async def keep(self, digests: Collection[str]) -> dict[str, int]:
        """Put back blobs that were set aside, and return sizes as `sizes` does; all stay for a while."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes], upload: Upload | None = None) -> int:
        """Store a blob durably and return its size in bytes; storing it again changes nothing.

        Raises `Rejected` DIGEST_MISMATCH, `StoreUnavailable` BLOB_STORE_FULL, and then nothing is stored; with an
        upload to continue, also as `Spool.receive`.
        """

    async def received(self, upload_id: str) -> int:
        """Return how many bytes of an upload were received. Raises `Rejected` INVALID_UPLOAD_ID."""

    def open(self, digest: str, offset: int = 0, length: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield a blob's bytes from `offset`, at most `CHUNK` at once, `length` in all or to the end.

        Raises `Rejected` BLOB_NOT_FOUND, or INVALID_OFFSET if the blob ends before `offset`.
        """

    def within(self, name: str) -> BlobStore:
        """Return the store of other blobs, kept under `name` in this store's place."""

    async def sign_uploads(self, upload_ids: Sequence[str]) -> list[str]:
        """Return a URL for each upload that goes straight to the store; none when the store takes no direct uploads."""

    async def commit(self, digest: str, upload_id: str) -> int:
        """Verify and store a direct upload, and return its size in bytes.

        Raises `Rejected` INVALID_UPLOAD_ID, UPLOAD_NOT_FOUND, or DIGEST_MISMATCH, and then nothing is stored.
        """

    async def sign_downloads(self, digests: Sequence[str]) -> list[str]:
        """Return a URL for each blob that comes straight from the store; none without direct downloads.

        Raises `Rejected` BLOB_NOT_FOUND.
        """

    def collecting(self) -> AbstractAsyncContextManager[Turn]:
        """Hold the lease of a collection. Raises `Rejected` COLLECTION_RUNNING when another collection holds it."""

    def entries(self, *, aside: bool) -> AsyncGenerator[list[Entry], None]:
        """Yield all blobs that are kept, or all that were set aside, in batches."""

    async def set_aside(self, digest: str, still: Callable[[], bool]) -> bool:
        """Set a blob aside if `still` allows it at the last moment; return whether it was set aside."""

    async def remove(self, digest: str) -> None:
        """Remove a blob from those that were set aside, for good."""

    async def discard_abandoned(self) -> None:
        """Remove uploads that were abandoned for a day."""
