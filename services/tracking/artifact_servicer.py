"""Answers the calls of ArtifactService out of a blob store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from typing_extensions import override

from eventstore.errors import Kind, Rejected
from rollforward import v1
from services.rpc import Context
from services.tracking import manifests
from services.tracking.blobs import CHUNK, BlobStore

MAX_DIGESTS = 10_000
"""Digests that may be asked for at once."""


class ArtifactServicer(v1.ArtifactServiceServicer):
    """Blobs and manifests over gRPC; its errors are `Rejected` and `StoreUnavailable`."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    @override
    async def FindMissingBlobs(
        self, request: v1.FindMissingBlobsRequest, context: Context
    ) -> v1.FindMissingBlobsResponse:
        wanted = list(dict.fromkeys(request.digests))
        if len(request.digests) > MAX_DIGESTS:
            raise Rejected(Kind.INVALID, "TOO_MANY_DIGESTS", f"ask for at most {MAX_DIGESTS} digests at once")
        stored = await self._blobs.sizes(wanted)
        return v1.FindMissingBlobsResponse(missing=[digest for digest in wanted if digest not in stored])

    @override
    async def UploadBlob(
        self, request_iterator: AsyncIterator[v1.UploadBlobRequest], context: Context
    ) -> v1.UploadBlobResponse:
        first = await anext(request_iterator, v1.UploadBlobRequest())
        return v1.UploadBlobResponse(size_bytes=await self._blobs.put(first.digest, _chunks(request_iterator)))

    @override
    async def DownloadBlob(
        self, request: v1.DownloadBlobRequest, context: Context
    ) -> AsyncIterator[v1.DownloadBlobResponse]:
        async with aclosing(self._blobs.open(request.digest, request.offset)) as chunks:
            async for chunk in chunks:
                yield v1.DownloadBlobResponse(chunk=chunk)

    @override
    async def CreateManifest(self, request: v1.CreateManifestRequest, context: Context) -> v1.CreateManifestResponse:
        return v1.CreateManifestResponse(digest=await manifests.save(self._blobs, request.manifest))

    @override
    async def GetManifest(self, request: v1.GetManifestRequest, context: Context) -> v1.GetManifestResponse:
        return v1.GetManifestResponse(manifest=await manifests.load(self._blobs, request.digest))


async def _chunks(parts: AsyncIterator[v1.UploadBlobRequest]) -> AsyncIterator[bytes]:
    async for part in parts:
        if part.WhichOneof("part") != "chunk":
            raise Rejected(Kind.INVALID, "INVALID_DIGEST", "only the first message of an upload names its digest")
        if len(part.chunk) > CHUNK:
            raise Rejected(Kind.INVALID, "CHUNK_TOO_LARGE", f"a chunk has at most {CHUNK} bytes")
        yield part.chunk
