"""Files of runs and logged models: stored by their digests, listed and read by their paths."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import PurePosixPath
from typing import IO, assert_never

from rollforward import v1
from services.mlflow_rest.endpoints.logged_models import model_of
from services.mlflow_rest.endpoints.runs import check_active, run_of
from services.mlflow_rest.errors import MlflowError, invalid, not_found
from services.mlflow_rest.places import OfDigest, OfModel, OfRun, Place
from services.mlflow_rest.request import Request
from services.rpc.local import CallFailed

CHUNK = 1024 * 1024
IN_MEMORY = 4 * CHUNK
ATTEMPTS = 16

Files = dict[str, v1.ManifestFile]
"""Files by their paths."""


async def files_at(request: Request, place: Place) -> Files:
    """Return the files at a place and below it, by their paths from there; a file itself by the empty path.

    Raises:
        MlflowError: RESOURCE_DOES_NOT_EXIST when the run or model does not exist.
    """
    match place:
        case OfRun():
            files = await _files_of_run(request, place.run_id)
        case OfModel():
            model = await model_of(request, place.model_id)
            files = await _files_of(request, model.digest) if model.digest else {}
        case OfDigest():
            files = await _files_of(request, place.digest)
        case _:
            assert_never(place)
    if not place.path:
        return files
    if file := files.get(place.path):
        return {"": file}
    below = f"{place.path}/"
    return {path.removeprefix(below): file for path, file in files.items() if path.startswith(below)}


async def _files_of_run(request: Request, run_id: str) -> Files:
    run = await run_of(request, run_id, without_metrics=True)
    files: Files = {}
    for artifact in sorted(run.artifacts, key=lambda artifact: artifact.path):
        contents = await _files_of(request, artifact.digest)
        if list(contents) == [PurePosixPath(artifact.path).name]:
            files[artifact.path] = contents[PurePosixPath(artifact.path).name]  # a file that was logged by itself
        else:
            files |= {str(PurePosixPath(artifact.path) / path): file for path, file in contents.items()}
    return files


async def _files_of(request: Request, digest: str) -> Files:
    manifest = (await request.send(v1.GetManifestRequest(digest=digest))).manifest
    return {file.path: file for file in manifest.files}


async def read(request: Request, place: Place) -> tuple[v1.ManifestFile, AsyncGenerator[bytes]]:
    """Return a file and its bytes. Raises `MlflowError` when there is no file at the place."""
    if (file := (await files_at(request, place)).get("")) is None:
        raise not_found(f"no file at {place.path[:200]!r}")
    return file, _bytes_of(request, file.digest)


async def _bytes_of(request: Request, digest: str) -> AsyncGenerator[bytes]:
    async with aclosing(request.stream(v1.DownloadBlobRequest(digest=digest))) as parts:
        async for part in parts:
            yield part.chunk


async def write(request: Request, place: Place, chunks: AsyncIterator[bytes]) -> None:
    """Store a file at a place of a run or a logged model, in place of one that is there.

    Raises:
        MlflowError: The run or model does not exist or is deleted, or the place is of a digest.
    """
    match place:
        case OfRun():
            await check_active(request, place.run_id)
            _check_named(place)
            file = await _received(request, chunks)
            name = PurePosixPath(place.path).name
            digest = await _manifest(request, {name: file})
            await request.send(v1.LogArtifactRequest(run_id=place.run_id, path=place.path, digest=digest))
        case OfModel():
            await model_of(request, place.model_id)
            _check_named(place)
            await _add_to_model(request, place, {place.path: await _received(request, chunks)})
        case OfDigest():
            raise invalid("the files of a digest cannot be changed")
        case _:
            assert_never(place)


def _check_named(place: OfRun | OfModel) -> None:
    if not place.path:
        raise invalid("a file needs a path below 'artifacts/'")


async def _add_to_model(request: Request, place: OfModel, added: Files) -> None:
    async with request.front.turn(place.model_id):  # clients send many files at once
        await _add_in_turn(request, place, added)


async def _add_in_turn(request: Request, place: OfModel, added: Files) -> None:
    """Add files to those of a model; other processes may add some, too."""
    for _ in range(ATTEMPTS):
        model = await model_of(request, place.model_id)
        files = await _files_of(request, model.digest) if model.digest else {}
        changed = v1.LogLoggedModelArtifactRequest(
            model_id=place.model_id,
            digest=await _manifest(request, {**files, **added}),
            expected_digest=model.digest,
        )
        try:
            await request.send(changed)
        except CallFailed as failed:
            if failed.reason != "ARTIFACT_CHANGED":
                raise
        else:
            return
    raise MlflowError("RESOURCE_CONFLICT", f"other writers changed logged model {place.model_id!r} {ATTEMPTS} times")


async def link(request: Request, place: Place, digest: str) -> None:
    """Add the files of an artifact that is stored at and below a place, in place of those that are there.

    Raises:
        MlflowError: As `write`.
    """
    added = await _files_of(request, digest)
    match place:
        case OfRun():
            await _link_to_run(request, place, digest, added)
        case OfModel():
            inside = PurePosixPath(place.path)
            await _add_to_model(request, place, {str(inside / path): file for path, file in added.items()})
        case OfDigest():
            raise invalid("the files of a digest cannot be changed")
        case _:
            assert_never(place)


async def _link_to_run(request: Request, place: OfRun, digest: str, added: Files) -> None:
    run = await check_active(request, place.run_id)
    if place.path and not any(_overlap(artifact.path, place.path) for artifact in run.artifacts):
        await request.send(v1.LogArtifactRequest(run_id=place.run_id, path=place.path, digest=digest))
        return
    for path, file in sorted(added.items()):  # beside files that are there
        whole = str(PurePosixPath(place.path) / path)
        name = await _manifest(request, {PurePosixPath(path).name: file})
        await request.send(v1.LogArtifactRequest(run_id=place.run_id, path=whole, digest=name))


def _overlap(path: str, other: str) -> bool:
    """Return whether two artifacts would share a place."""
    inside = f"{path}/", f"{other}/"
    return not path or inside[0].startswith(inside[1]) or inside[1].startswith(inside[0])


async def store_bytes(request: Request, name: str, data: bytes) -> str:
    """Store a file of its own, and return the digest of the artifact that it is."""

    async def once() -> AsyncGenerator[bytes]:
        yield data

    return await _manifest(request, {name: await _received(request, once())})


async def _manifest(request: Request, files: Mapping[str, v1.ManifestFile]) -> str:
    manifest = v1.Manifest()
    for path, file in sorted(files.items()):
        manifest.files.add(path=path, size_bytes=file.size_bytes, digest=file.digest)
    digest: str = (await request.send(v1.CreateManifestRequest(manifest=manifest))).digest
    return digest


async def _received(request: Request, chunks: AsyncIterator[bytes]) -> v1.ManifestFile:
    """Store a file under the digest of its bytes, which is known once they have come: until then they are spooled."""
    digest, size = hashlib.sha256(), 0
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as spool:
        async for chunk in chunks:
            size += len(chunk)
            digest.update(chunk)
            await asyncio.to_thread(spool.write, chunk) if size > IN_MEMORY else spool.write(chunk)
        spool.seek(0)
        name = f"sha256:{digest.hexdigest()}"
        await request.upload(_upload(name, spool))
    return v1.ManifestFile(size_bytes=size, digest=name)


async def _upload(digest: str, spool: IO[bytes]) -> AsyncGenerator[v1.UploadBlobRequest]:
    yield v1.UploadBlobRequest(digest=digest)
    while chunk := await asyncio.to_thread(spool.read, CHUNK):
        yield v1.UploadBlobRequest(chunk=chunk)
