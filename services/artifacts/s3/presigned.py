"""Direct uploads: a client puts an object by a presigned URL, and the service turns it into a blob.

Whoever has the URL can put another object there for an hour, so what is verified is a copy that no URL leads to.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Sequence

from services.artifacts.digests import check_digest_is
from services.artifacts.s3.bucket import Bucket
from services.artifacts.uploads import ABANDONED

_STAGED, _PRIVATE = "staging/", "commit/"


async def sign_uploads(bucket: Bucket, upload_ids: Sequence[str]) -> list[str]:
    """Return a presigned URL for each upload."""
    return await bucket.sign("PUT", [_STAGED + upload_id for upload_id in upload_ids])


async def commit(bucket: Bucket, digest: str, upload_id: str, key: str) -> int | None:
    """Verify an upload, store it under `key`, and return its size; None when nothing was put.

    Raises `Rejected` DIGEST_MISMATCH, and then nothing is kept.
    """
    staged, private = _STAGED + upload_id, _PRIVATE + uuid.uuid4().hex
    if not await bucket.copy(staged, private):
        return None
    try:
        size = await _verify(bucket, digest, private)
        await bucket.copy(private, key)
    finally:
        await bucket.delete(private)
    await bucket.delete(staged)
    return size


async def discard_abandoned(bucket: Bucket) -> None:
    """Remove what was put and never committed, and what a crash left of commits."""
    for prefix in (_STAGED, _PRIVATE):
        async for page in bucket.below(prefix):
            for meta in page:
                if time.time() - meta["last_modified"].timestamp() > ABANDONED:
                    await bucket.delete(meta["path"])


async def _verify(bucket: Bucket, digest: str, key: str) -> int:
    sha256, size = hashlib.sha256(), await bucket.size(key) or 0
    async for chunk in bucket.read(key, 0, size):
        await asyncio.to_thread(sha256.update, chunk)
    check_digest_is(digest, f"sha256:{sha256.hexdigest()}", size)
    return size
