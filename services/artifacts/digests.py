"""Digests: which text is one, where its blob is kept, and what a store refuses in the same words wherever it is."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from eventstore import Kind, Rejected, StoreUnavailable

CHUNK = 1024 * 1024
"""Bytes a store hands out at once, at most."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def hex_of(digest: str) -> str:
    """Return the hex digits of a digest. Raises `Rejected` INVALID_DIGEST."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise Rejected(
            Kind.INVALID,
            "INVALID_DIGEST",
            "invalid digest: expected sha256: and 64 lower-case hex digits",
            digest=digest[:80],
        )
    return match[1]


def key_of(digest: str) -> str:
    """Return where a blob is kept below its store's root. Raises `Rejected` INVALID_DIGEST."""
    name = hex_of(digest)
    return f"sha256/{name[:2]}/{name}"


def digest_at(key: str) -> str | None:
    """Return the digest of the blob that is kept at a key; None when no blob is kept there."""
    digest = f"sha256:{key.rpartition('/')[2]}"
    return digest if _DIGEST.fullmatch(digest) and key == key_of(digest) else None


def check_upload_id(upload_id: str) -> None:
    """Raise `Rejected` INVALID_UPLOAD_ID."""
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise Rejected(Kind.INVALID, "INVALID_UPLOAD_ID", "invalid upload id: expected 32 lower-case hex digits")


def check_digest_is(digest: str, actual: str, size: int) -> None:
    """Raise `Rejected` DIGEST_MISMATCH."""
    if actual != digest:
        raise Rejected(
            Kind.INVALID,
            "DIGEST_MISMATCH",
            f"digest mismatch: the {size} bytes received are another blob",
            digest=digest,
            actual=actual,
        )


def end_of(digest: str, offset: int, length: int, size: int) -> int:
    """Return where a range of a blob ends; a length of 0 is all. Raises `Rejected` INVALID_OFFSET."""
    if not 0 <= offset <= size:
        message = f"invalid offset {offset}: expected at most the blob's {size} bytes"
        raise Rejected(Kind.INVALID, "INVALID_OFFSET", message, digest=digest, size_bytes=str(size))
    return min(offset + length, size) if length else size


def not_found(digest: str) -> Rejected:
    """Return the error for a blob that is not stored."""
    return Rejected(Kind.NOT_FOUND, "BLOB_NOT_FOUND", f"no blob has the digest {digest}", digest=digest)


def upload_not_found(upload_id: str) -> Rejected:
    """Return the error for the commit of an upload that was never put."""
    return Rejected(
        Kind.NOT_FOUND,
        "UPLOAD_NOT_FOUND",
        "no object was uploaded to the upload's URL. Upload it first",
        upload_id=upload_id,
    )


def collection_running() -> Rejected:
    """Return the error for a second collection of garbage."""
    return Rejected(
        Kind.PRECONDITION, "COLLECTION_RUNNING", "a garbage collection is already running. Wait for its end"
    )


@contextmanager
def budget() -> Iterator[None]:
    """Turn the error of a full disk, or of a file system's limit, into `StoreUnavailable` BLOB_STORE_FULL."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _full() from error


def check_room(fd: int, size: int) -> None:
    """Raise `StoreUnavailable` BLOB_STORE_FULL when a file's disk has less free space than this.

    Who tried all the same would leave the log, which may be on that disk, without room too.
    """
    disk = os.fstatvfs(fd)
    if size > disk.f_bavail * disk.f_frsize:
        raise _full()


def _full() -> StoreUnavailable:
    return StoreUnavailable("no space left for the blob", "BLOB_STORE_FULL")
