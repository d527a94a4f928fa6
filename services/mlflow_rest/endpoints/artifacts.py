"""MLflow's requests about artifacts: lists, and the proxy that files go through."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse

from services.mlflow_rest import files
from services.mlflow_rest.endpoints.experiments import experiment, location_of
from services.mlflow_rest.endpoints.model_versions import version_number, version_of
from services.mlflow_rest.endpoints.runs import run_id_of, run_of
from services.mlflow_rest.errors import MlflowError
from services.mlflow_rest.places import OfDigest, OfModel, OfRun, checked, place_at
from services.mlflow_rest.request import Request

STALLED_SECONDS = 60.0


async def list_of_run(request: Request) -> dict[str, Any]:
    """Return the files and directories of a run at a path, by their paths from the run's root."""
    parameters = request.parameters
    run_id, path = run_id_of(parameters), checked(parameters.text("path", ""))
    run = await run_of(request, run_id, without_metrics=True)
    root = f"{location_of(await experiment(request, run.experiment_id))}/{run_id}/artifacts"
    entries = _entries(await files.files_at(request, OfRun(run_id, path)), f"{path}/" if path else "")
    return {"root_uri": root, **({"files": entries} if entries else {})}


async def list_of_model(request: Request) -> dict[str, Any]:
    """Return the files and directories of a logged model at a path."""
    path = checked(request.parameters.text("artifact_directory_path", ""))
    model_id = request.path["model_id"]
    entries = _entries(await files.files_at(request, OfModel(model_id, path)), f"{path}/" if path else "")
    return {"files": entries} if entries else {}


async def list_at(request: Request) -> dict[str, Any]:
    """Return the files and directories at a path below the proxy, by their names."""
    path = request.parameters.text("path", "")
    entries = _entries(await files.files_at(request, place_at(path)), "") if path.strip("/") else []
    return {"files": entries} if entries else {}


async def link(request: Request) -> dict[str, Any]:
    """Add the files of an artifact that is stored at a path below the proxy; an extension of MLflow's API."""
    parameters = request.parameters
    await files.link(request, place_at(parameters.text("path")), parameters.text("digest", empty=False))
    return {}


async def files_at(request: Request) -> dict[str, Any]:
    """Return all files at and below a path below the proxy, with their digests; an extension of MLflow's API."""
    found = await files.files_at(request, place_at(request.parameters.text("path", empty=False)))
    return {
        "files": [
            {"path": path, "file_size": file.size_bytes, "digest": file.digest} for path, file in sorted(found.items())
        ]
    }


async def download(request: Request, _: HttpRequest) -> Response:
    """Send a file below the proxy."""
    return await _sent(request, request.path["path"])


async def upload(request: Request, http: HttpRequest) -> Response:
    """Store a file below the proxy."""
    await files.write(request, place_at(request.path["path"]), _arriving(http.stream()))
    return Response()


async def _arriving(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Yield the bytes of a file as they come. Raises `MlflowError` when none come for `STALLED_SECONDS`."""
    while True:
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise MlflowError("BAD_REQUEST", f"nothing of the file arrived for {STALLED_SECONDS:g} s") from error
        if chunk is None:
            return
        yield chunk


async def download_of_run(request: Request, _: HttpRequest) -> Response:
    """Send a file of a run."""
    parameters = request.parameters
    return await _file(request, OfRun(run_id_of(parameters), checked(parameters.text("path", empty=False))))


async def download_of_model(request: Request, _: HttpRequest) -> Response:
    """Send a file of a logged model."""
    path = checked(request.parameters.text("artifact_file_path", empty=False))
    return await _file(request, OfModel(request.path["model_id"], path))


async def download_of_version(request: Request, _: HttpRequest) -> Response:
    """Send a file of a version."""
    parameters = request.parameters
    number = version_number(parameters.text("version", empty=False))
    version = await version_of(request, parameters.text("name", empty=False), number)
    return await _file(request, OfDigest(version.digest, checked(parameters.text("path", empty=False))))


async def _sent(request: Request, path: str) -> Response:
    return await _file(request, place_at(path))


async def _file(request: Request, place: OfRun | OfModel | OfDigest) -> Response:
    file, chunks = await files.read(request, place)
    name = PurePosixPath(place.path).name
    headers = {
        "Content-Length": str(file.size_bytes),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "X-Content-Type-Options": "nosniff",
    }
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return StreamingResponse(chunks, headers=headers, media_type=media_type)


def _entries(found: files.Files, parent: str) -> list[dict[str, Any]]:
    """Return files and the directories above them that are at one level, sorted by name."""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in found.items():
        name, _, below = path.partition("/")
        if not name:
            continue  # a file was asked for: it lists nothing
        if below:
            entries[name] = {"path": parent + name, "is_dir": True}
        else:
            entries[name] = {"path": parent + name, "is_dir": False, "file_size": file.size_bytes}
    return [entries[name] for name in sorted(entries)]
