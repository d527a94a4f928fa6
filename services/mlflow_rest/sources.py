"""Sources of model versions: what MLflow names by a URI is found among our artifacts, or kept as a reference."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

import grpc

from rollforward import v1
from services.mlflow_rest.endpoints.logged_models import model_of
from services.mlflow_rest.errors import invalid
from services.mlflow_rest.files import store_bytes
from services.mlflow_rest.labels import HIDDEN
from services.mlflow_rest.places import OfDigest, OfModel, OfRun, Place, place_of_uri
from services.mlflow_rest.request import Request
from services.rpc.local import CallFailed

EXTERNAL_TAG: Final = f"{HIDDEN}external"
"""The tag of versions whose files are not here: their artifact holds the source's URI alone."""

_RUN_URI: Final = re.compile(r"runs:/([0-9a-f]{32})(?:/(.*))?")
_LOGGED_MODEL_URI: Final = re.compile(r"models:/(m-[0-9a-f]{32})")
_VERSION_URI: Final = re.compile(r"models:/([^/@]+)/([0-9]+)")
_LOCAL: Final = re.compile(r"(?:file:|/|[A-Za-z]:\\)")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the files of a version come from.

    Attributes:
        run_path: The path among the artifacts of the run, None when they are found by their digest.
        run_id: The run that made the model; empty when it is not known.
        digest: The digest of the files; empty for a path of a run.
        model_id: The logged model; empty for none.
        external: Whether the files are elsewhere, and `digest` is that of a reference.
    """

    run_path: str | None = None
    run_id: str = ""
    digest: str = ""
    model_id: str = ""
    external: bool = False


async def origin_of(request: Request, source: str, run_id: str, model_id: str) -> Origin:
    """Return the origin of a source.

    Raises:
        MlflowError: INVALID_PARAMETER_VALUE for a path of a local disk, or a source of another model than `model_id`.
    """
    if _LOCAL.match(source) or ".." in source.split("/"):
        raise invalid(f"invalid source {source[:200]!r}: a local path cannot be read by others; log the model first")
    if match := _VERSION_URI.fullmatch(source):
        version = (await request.send(v1.GetVersionRequest(model=match[1], version=int(match[2])))).version
        return Origin(run_id=version.run_id, digest=version.digest)
    place = _place(source) or (OfModel(model_id, "") if model_id else None)
    match place:
        case OfModel():
            return await _of_model(request, source, place, model_id)
        case OfRun():
            if run_id and run_id != place.run_id:
                raise invalid(f"invalid source {source[:200]!r}: it is of another run than {run_id!r}")
            return await _of_run(request, source, place)
        case OfDigest(digest=digest, path=""):
            return Origin(digest=digest)
        case _:
            return await _external(request, source, run_id)


def _place(source: str) -> Place | None:
    if match := _RUN_URI.fullmatch(source):
        return OfRun(match[1], (match[2] or "").strip("/"))
    if match := _LOGGED_MODEL_URI.fullmatch(source):
        return OfModel(match[1], "")
    return place_of_uri(source)


async def _of_model(request: Request, source: str, place: OfModel, model_id: str) -> Origin:
    if model_id and model_id != place.model_id:
        raise invalid(f"invalid source {source[:200]!r}: it is of another model than {model_id!r}")
    model = await model_of(request, place.model_id)
    if not model.digest or place.path:
        return await _external(request, source, model.source_run_id)
    if not model.source_run_id:
        return Origin(digest=model.digest, model_id=model.model_id)
    # The run lists the model's files, so that gates see the run's metrics when they judge the version.
    path = f"logged-models/{model.model_id}"
    await request.send(v1.LogArtifactRequest(run_id=model.source_run_id, path=path, digest=model.digest))
    return Origin(run_path=path, run_id=model.source_run_id, model_id=model.model_id)


async def _of_run(request: Request, source: str, place: OfRun) -> Origin:
    try:
        run = (await request.send(v1.GetRunRequest(run_id=place.run_id, without_metrics=True))).run
    except CallFailed as failed:
        if failed.code is not grpc.StatusCode.NOT_FOUND:
            raise
        return await _external(request, source, "")
    inside = place.path
    if any(not inside or artifact.path == inside or _overlap(artifact.path, inside) for artifact in run.artifacts):
        return Origin(run_path=inside, run_id=place.run_id)
    return await _external(request, source, place.run_id)


def _overlap(path: str, inside: str) -> bool:
    return not path or path.startswith(f"{inside}/") or inside.startswith(f"{path}/")


async def _external(request: Request, source: str, run_id: str) -> Origin:
    """Store a reference to files that are not here; it is an artifact of the run, if there is one."""
    reference = json.dumps({"source": source}).encode()
    digest = await store_bytes(request, "source.json", reference)
    if not run_id:
        return Origin(digest=digest, external=True)
    path = f"sources/{digest.removeprefix('sha256:')[:16]}"
    try:
        await request.send(v1.LogArtifactRequest(run_id=run_id, path=path, digest=digest))
    except CallFailed as failed:
        if failed.code not in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}:
            raise
        return Origin(digest=digest, external=True)  # MLflow takes a version of a run that does not exist
    return Origin(run_path=path, run_id=run_id, external=True)
