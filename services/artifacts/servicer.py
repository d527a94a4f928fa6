"""The gRPC service of artifacts, over a blob store."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from typing_extensions import override

from eventstore import Kind, Rejected
from rollforward import v1
from services.artifacts import manifests
from services.artifacts.digests import CHUNK, hex_of
from services.artifacts.garbage_collection import A_DAY, Collector
from services.artifacts.store import BlobStore
from services.artifacts.uploads import Upload
from services.rpc.context import Context

MAX_DIGESTS = 10_000
"""Digests that may be asked for at once."""

MAX_URLS = 1_000
"""URLs that may be asked for at once."""


class ArtifactServicer(v1.ArtifactServiceServicer):
    """Blobs and manifests over gRPC; its errors are `Rejected` and `StoreUnavailable`."""

    def __init__(self, blobs: BlobStore, collector: Collector) -> None:
        self._blobs = blobs
        self._collector = collector

    @override
    async def FindMissingBlobs(
        self, request: v1.FindMissingBlobsRequest, context: Context
    ) -> v1.FindMissingBlobsResponse:
        wanted = list(dict.fromkeys(_checked(request.digests, MAX_DIGESTS)))
        stored = await self._blobs.keep(wanted)
        return v1.FindMissingBlobsResponse(missing=[digest for digest in wanted if digest not in stored])

    @override
    async def UploadBlob(
        self, request_iterator: AsyncIterator[v1.UploadBlobRequest], context: Context
    ) -> v1.UploadBlobResponse:
        first = await anext(request_iterator, v1.UploadBlobRequest())
        chunks = _chunks(request_iterator)
        if first.WhichOneof("part") != "upload":
            return v1.UploadBlobResponse(size_bytes=await self._blobs.put(first.digest, chunks))
        upload = Upload(first.upload.upload_id, first.upload.offset, first.upload.size_bytes)
        return v1.UploadBlobResponse(size_bytes=await self._blobs.put(first.upload.digest, chunks, upload))

    @override
    async def GetUpload(self, request: v1.GetUploadRequest, context: Context) -> v1.GetUploadResponse:
        return v1.GetUploadResponse(received_bytes=await self._blobs.received(request.upload_id))

    @override
    async def DownloadBlob(
        self, request: v1.DownloadBlobRequest, context: Context
    ) -> AsyncIterator[v1.DownloadBlobResponse]:
        async with aclosing(self._blobs.open(request.digest, request.offset, request.length)) as chunks:
            async for chunk in chunks:
                yield v1.DownloadBlobResponse(chunk=chunk)

    @override
    async def PresignUploads(self, request: v1.PresignUploadsRequest, context: Context) -> v1.PresignUploadsResponse:
        digests = _checked(request.digests, MAX_URLS)
        ids = [uuid.uuid4().hex for _ in digests]
        urls = await self._blobs.sign_uploads(ids)
        uploads = [
            v1.PresignedUpload(digest=digest, upload_id=upload_id, url=url)
            for digest, upload_id, url in zip(digests, ids, urls, strict=bool(urls))
        ]
        return v1.PresignUploadsResponse(uploads=uploads)

    @override
    async def CommitUpload(self, request: v1.CommitUploadRequest, context: Context) -> v1.CommitUploadResponse:
        return v1.CommitUploadResponse(size_bytes=await self._blobs.commit(request.digest, request.upload_id))

    @override
    async def PresignDownloads(
        self, request: v1.PresignDownloadsRequest, context: Context
    ) -> v1.PresignDownloadsResponse:
        digests = _checked(request.digests, MAX_URLS)
        urls = await self._blobs.sign_downloads(digests)
        pairs = zip(digests, urls, strict=bool(urls))
        return v1.PresignDownloadsResponse(
            downloads=[v1.PresignedDownload(digest=digest, url=url) for digest, url in pairs]
        )

    @override
    async def CollectGarbage(
        self, request: v1.CollectGarbageRequest, context: Context
    ) -> AsyncIterator[v1.CollectGarbageResponse]:
        collection = self._collector.collect(request.min_age_seconds or A_DAY, dry_run=request.dry_run)
        async with aclosing(collection) as steps:
            async for step in steps:
                yield step

    @override
    async def CreateManifest(self, request: v1.CreateManifestRequest, context: Context) -> v1.CreateManifestResponse:
        return v1.CreateManifestResponse(digest=await manifests.save(self._blobs, request.manifest))

    @override
    async def GetManifest(self, request: v1.GetManifestRequest, context: Context) -> v1.GetManifestResponse:
        return v1.GetManifestResponse(manifest=await manifests.load(self._blobs, request.digest))


def _checked(digests: Sequence[str], max_digests: int) -> Sequence[str]:
    if len(digests) > max_digests:
        raise Rejected(Kind.INVALID, "TOO_MANY_DIGESTS", f"too many digests: expected at most {max_digests}")
    for digest in digests:
        hex_of(digest)
    return digests


async def _chunks(parts: AsyncIterator[v1.UploadBlobRequest]) -> AsyncIterator[bytes]:
    async for part in parts:
        if part.WhichOneof("part") != "chunk":
            raise Rejected(
                Kind.INVALID, "INVALID_DIGEST", "unexpected start: only the first message of an upload has its digest"
            )
        if len(part.chunk) > CHUNK:
            raise Rejected(Kind.INVALID, "CHUNK_TOO_LARGE", f"chunk too large: expected at most {CHUNK} bytes")
        yield part.chunk
