"""MLflow's requests about model versions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from rollforward import v1
from services.mlflow_rest.errors import MlflowError, invalid, not_found
from services.mlflow_rest.labels import MODEL_ID, RUN_ID, RUN_LINK, SOURCE, milliseconds, only_set, tags_shown
from services.mlflow_rest.paging import collected, order_of, page_limit
from services.mlflow_rest.places import uri_of_digest
from services.mlflow_rest.request import Request
from services.mlflow_rest.sources import EXTERNAL_TAG, Origin, origin_of

MAX_RESULTS = 200_000
DEFAULT_RESULTS = 10_000

_STATUSES: Final = {
    v1.VERSION_STATUS_UNSPECIFIED: "READY",
    v1.VERSION_STATUS_READY: "READY",
    v1.VERSION_STATUS_PENDING: "PENDING_REGISTRATION",
    v1.VERSION_STATUS_FAILED: "FAILED_REGISTRATION",
}
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_QUOTED: Final = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)""")


async def create(request: Request) -> dict[str, Any]:
    """Register a version of a registered model that exists."""
    parameters = request.parameters
    name, source = parameters.text("name", empty=False), parameters.text("source", empty=False)
    run_id, model_id = parameters.text("run_id", ""), parameters.text("model_id", "")
    model: v1.Model = (await request.send(v1.GetModelRequest(name=name))).model
    if model.HasField("deleted_at"):
        raise not_found(f"registered model {name!r} is deleted")
    origin = await origin_of(request, source, run_id, model_id)
    hidden = {
        SOURCE: source,
        RUN_ID: run_id or origin.run_id,
        MODEL_ID: model_id or origin.model_id,
        RUN_LINK: parameters.text("run_link", ""),
        EXTERNAL_TAG: "true" if origin.external else "",
    }
    registered = _registration(name, origin)
    registered.description = parameters.text("description", "")
    for key, value in {**parameters.pairs("tags"), **{key: value for key, value in hidden.items() if value}}.items():
        registered.tags[key] = value
    response = await request.send(registered)
    return {"model_version": version_shown(response.version)}


def _registration(name: str, origin: Origin) -> v1.RegisterVersionRequest:
    if origin.run_path is not None:
        return v1.RegisterVersionRequest(model=name, run_id=origin.run_id, artifact_path=origin.run_path)
    return v1.RegisterVersionRequest(model=name, digest=origin.digest)


async def get(request: Request) -> dict[str, Any]:
    """Return a version."""
    return {"model_version": version_shown(await _asked(request))}


async def update(request: Request) -> dict[str, Any]:
    """Change the description of a version."""
    version = await _asked(request)
    if request.parameters.has("description"):
        description = request.parameters.text("description")
        await request.send(
            v1.SetDescriptionRequest(model=version.model, version=version.version, description=description)
        )
    return await get(request)


async def delete(request: Request) -> dict[str, Any]:
    """Delete a version; aliases that name it are removed first, as MLflow does."""
    version = await _asked(request)
    for alias in version.aliases:
        await request.send(v1.RemoveAliasRequest(model=version.model, alias=alias))
    await request.send(v1.DeleteVersionRequest(model=version.model, version=version.version))
    return {}


async def search(request: Request) -> dict[str, Any]:
    """Return a page of versions."""
    parameters = request.parameters
    wanted = v1.ListVersionsRequest(
        filter=_filter(parameters.text("filter", "")),
        order_by=order_of(parameters.texts("order_by")) or "updated DESC, name, version DESC",
    )
    limit = page_limit(parameters.integer("max_results", DEFAULT_RESULTS), MAX_RESULTS)

    async def page(size: int, token: str) -> tuple[Sequence[v1.Version], str]:
        wanted.page_size, wanted.page_token = size, token
        response = await request.send(wanted)
        return response.versions, response.next_page_token

    versions, token = await collected(page, limit, parameters.text("page_token", ""))
    return only_set(model_versions=[version_shown(version) for version in versions], next_page_token=token)


async def set_tag(request: Request) -> dict[str, Any]:
    """Set a tag of a version."""
    version = await _asked(request)
    key, value = request.parameters.text("key", empty=False), request.parameters.text("value", "")
    await request.send(v1.ChangeTagsRequest(model=version.model, version=version.version, set={key: value}))
    return {}


async def delete_tag(request: Request) -> dict[str, Any]:
    """Remove a tag of a version, whether it has it or not."""
    version, key = await _asked(request), request.parameters.text("key", empty=False)
    await request.send(v1.ChangeTagsRequest(model=version.model, version=version.version, remove=[key]))
    return {}


async def download_uri(request: Request) -> dict[str, Any]:
    """Return where a version's files are: those that were registered, whatever became of where they came from."""
    version = await _asked(request)
    external = version.tags.get(EXTERNAL_TAG)
    return {"artifact_uri": version.tags[SOURCE] if external else uri_of_digest(version.digest)}


async def transition_stage(request: Request) -> dict[str, Any]:
    """Refuse stages other than None: aliases took their place."""
    version, stage = await _asked(request), request.parameters.text("stage", empty=False)
    if stage.lower() != "none":
        message = f"stage {stage[:100]!r} cannot be set: stages are not supported, set an alias instead"
        raise MlflowError("NOT_IMPLEMENTED", message)
    return {"model_version": version_shown(version)}


async def version_of(request: Request, name: str, number: int) -> v1.Version:
    """Return a version. Raises `MlflowError` when it is deleted or does not exist."""
    version: v1.Version = (await request.send(v1.GetVersionRequest(model=name, version=number))).version
    if version.HasField("deleted_at"):
        raise not_found(f"version {number} of {name!r} is deleted")
    return version


def version_number(text: str) -> int:
    """Return the number of a version. Raises `MlflowError` when no version can have it."""
    if not _NUMBER.fullmatch(text):
        raise invalid(f"invalid version {text[:100]!r}: expected a number")
    if not 0 < int(text) < 2**31:
        raise not_found(f"no version {text[:100]}")
    return int(text)


def version_shown(version: v1.Version) -> dict[str, Any]:
    """Return a version in MLflow's form."""
    tags = version.tags
    source = tags.get(SOURCE, f"runs:/{version.run_id}/{version.artifact_path}" if version.run_id else "")
    return {
        "name": version.model,
        "version": str(version.version),
        "creation_timestamp": milliseconds(version.created_at),
        "last_updated_timestamp": milliseconds(version.updated_at),
        "current_stage": "None",
        "description": version.description,
        "source": source or uri_of_digest(version.digest),
        "run_id": tags.get(RUN_ID, version.run_id),
        "status": _STATUSES[version.status],
        "run_link": tags.get(RUN_LINK, ""),
        **only_set(tags=tags_shown(tags), aliases=list(version.aliases)),
    }


async def _asked(request: Request) -> v1.Version:
    name, number = request.parameters.text("name", empty=False), request.parameters.text("version", empty=False)
    return await version_of(request, name, version_number(number))


def _filter(text: str) -> str:
    """Return a filter by our fields: a version's source is kept in a tag."""
    parts = _QUOTED.split(text)
    return "".join(
        part if number % 2 else re.sub(r"\bsource_path\b", f"tags.`{SOURCE}`", part)
        for number, part in enumerate(parts)
    )
