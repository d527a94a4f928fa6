"""Manifests: which trees of files may be artifacts, their canonical bytes, and where they are kept.

A manifest is a blob like any other, and kept a second time among the manifests: only what `save` has checked is found
there, so that a blob which merely looks like a manifest is no artifact.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from eventstore import Kind, Rejected
from rollforward import v1
from services.artifacts.digests import hex_of
from services.artifacts.paths import check_paths, shortened
from services.artifacts.store import BlobStore

MAX_BYTES = 4_000_000
"""Bytes of a manifest's canonical form; as a message it is smaller still, and fits gRPC's 4 MiB."""


_SCHEMA_VERSION = 1


async def save(store: BlobStore, manifest: v1.Manifest) -> str:
    """Store a manifest, all of whose blobs are stored, and return its digest; storing it again changes nothing.

    Raises `Rejected`: as `canonical_bytes`, and BLOB_MISSING or SIZE_MISMATCH.
    """
    data = await asyncio.to_thread(canonical_bytes, manifest)
    stored = await store.keep({file.digest for file in manifest.files})
    for file in manifest.files:
        _check_blob(file, stored.get(file.digest))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    await store.put(digest, _once(data))
    # The last step: a manifest is there only while all that it mentions is.
    await within(store).put(digest, _once(data))
    return digest


async def load(store: BlobStore, digest: str) -> v1.Manifest:
    """Return the manifest of this digest. Raises `Rejected` INVALID_DIGEST or ARTIFACT_NOT_FOUND."""
    try:
        async with aclosing(within(store).open(digest)) as chunks:
            data = b"".join([chunk async for chunk in chunks])
    except Rejected as refusal:
        if refusal.kind is Kind.NOT_FOUND:
            raise _not_found(digest) from refusal
        raise
    return await asyncio.to_thread(_parse, data)


async def exists(store: BlobStore, digest: str) -> bool:
    """Return whether there is an artifact of this digest, which stays for whoever names it now.

    Raises `Rejected` INVALID_DIGEST.
    """
    return digest in await within(store).keep([digest])


async def describe(store: BlobStore, digest: str) -> tuple[int, int]:
    """Return the size and the number of an artifact's files; these stay stored for a command that names it now.

    Raises `Rejected` INVALID_DIGEST or ARTIFACT_NOT_FOUND.
    """
    if not await exists(store, digest):
        raise _not_found(digest)
    files = (await load(store, digest)).files
    return sum(file.size_bytes for file in files), len(files)


def within(store: BlobStore) -> BlobStore:
    """Return the store of the manifests that `save` has checked."""
    return store.within("manifests")


def canonical_bytes(manifest: v1.Manifest) -> bytes:
    r"""Return the form that is hashed and stored, as the contract defines it; a `"` in a path is written `\"`.

    Raises `Rejected` MANIFEST_EMPTY, INVALID_PATH, INVALID_DIGEST or MANIFEST_TOO_LARGE.
    """
    if not manifest.files:
        raise Rejected(Kind.INVALID, "MANIFEST_EMPTY", "empty artifact: expected at least one file")
    check_paths(file.path for file in manifest.files)
    for file in manifest.files:
        hex_of(file.digest)
    files = [
        {"path": file.path, "size": file.size_bytes, "digest": file.digest}
        for file in sorted(manifest.files, key=lambda file: file.path.encode())
    ]
    document = {"schemaVersion": _SCHEMA_VERSION, "files": files}
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        message = (
            f"manifest too large: expected at most {MAX_BYTES} bytes, got {len(data)}. Pack small files into archives"
        )
        raise Rejected(
            Kind.INVALID, "MANIFEST_TOO_LARGE", message, size_bytes=str(len(data)), limit_bytes=str(MAX_BYTES)
        )
    return data


def _check_blob(file: v1.ManifestFile, size: int | None) -> None:
    path = shortened(file.path)
    if size is None:
        message = f"the blob of {path!r} is not stored. Upload it first"
        raise Rejected(Kind.PRECONDITION, "BLOB_MISSING", message, path=path, digest=file.digest)
    if size != file.size_bytes:
        message = f"size mismatch: the blob of {path!r} has {size} bytes, got {file.size_bytes}"
        raise Rejected(Kind.INVALID, "SIZE_MISMATCH", message, path=path, digest=file.digest, size_bytes=str(size))


def _not_found(digest: str) -> Rejected:
    return Rejected(Kind.NOT_FOUND, "ARTIFACT_NOT_FOUND", f"no artifact has the digest {digest}", digest=digest)


def _parse(data: bytes) -> v1.Manifest:
    files = json.loads(data)["files"]
    return v1.Manifest(
        files=[v1.ManifestFile(path=file["path"], size_bytes=file["size"], digest=file["digest"]) for file in files]
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
