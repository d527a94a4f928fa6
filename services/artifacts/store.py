"""What a store of blobs can do, whatever it keeps them in: each under the sha256 of its bytes.

A key is `sha256/<first two hex digits>/<hex>` below the store's root or prefix. A blob is there whole or not at all.
What a collection of garbage has set aside is kept below `trash/` by the same keys, and is read from there.
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
    def began(self) -> float: ...
    @property
    def resolution(self) -> float: ...

    def lasts(self) -> bool:
        """Whether no other collection can have begun."""


class BlobStore(Protocol):
    """Blobs by digest.

    Every method raises `Rejected` INVALID_DIGEST, and `StoreUnavailable` if the store is out of reach.
    """

    async def sizes(self, digests: Collection[str]) -> dict[str, int]:
        """The size in bytes of each of these blobs that is stored, set aside or not."""

    async def keep(self, digests: Collection[str]) -> dict[str, int]:
        """As `sizes`, after what was set aside was put back: what is answered stays for a while, named or not."""

    async def put(self, digest: str, chunks: AsyncIterator[bytes], upload: Upload | None = None) -> int:
        """Store a blob durably and return its size in bytes; storing it again changes nothing.

        Raises `Rejected` DIGEST_MISMATCH, `StoreUnavailable` BLOB_STORE_FULL, and then nothing is stored; with an
        upload to go on with, also as `Spool.receive`.
        """

    async def received(self, upload_id: str) -> int:
        """How many bytes of an upload were received. Raises `Rejected` INVALID_UPLOAD_ID."""

    def open(self, digest: str, offset: int = 0, length: int = 0) -> AsyncGenerator[bytes, None]:
        """The blob's bytes from `offset` on, at most `CHUNK` at once, `length` in all or to the end.

        Raises `Rejected` BLOB_NOT_FOUND, or INVALID_OFFSET if the blob ends before `offset`.
        """

    def within(self, name: str) -> BlobStore:
        """The store of other blobs, kept under `name` in this store's place."""

    async def sign_uploads(self, upload_ids: Sequence[str]) -> list[str]:
        """A URL for each upload, to put its bytes past the service; none when the store takes none."""

    async def commit(self, digest: str, upload_id: str) -> int:
        """Verify and store what was put past the service, and return its size in bytes.

        Raises `Rejected` INVALID_UPLOAD_ID, UPLOAD_NOT_FOUND, or DIGEST_MISMATCH, and then nothing is stored.
        """

    async def sign_downloads(self, digests: Sequence[str]) -> list[str]:
        """A URL for each blob, to get it past the service; none when the store gives none.

        Raises `Rejected` BLOB_NOT_FOUND.
        """

    def collecting(self) -> AbstractAsyncContextManager[Turn]:
        """The turn of a collection. Raises `Rejected` COLLECTION_RUNNING when another one has it."""

    def entries(self, *, aside: bool) -> AsyncGenerator[list[Entry], None]:
        """All blobs that are kept, or all that were set aside, many at a time."""

    async def set_aside(self, digest: str, still: Callable[[], bool]) -> bool:
        """Set a blob aside, if `still` it may be once all is ready: whether it was."""

    async def remove(self, digest: str) -> None:
        """Remove a blob from those that were set aside, for good."""

    async def discard_abandoned(self) -> None:
        """Remove what is left of uploads that nobody went on with for a day."""
