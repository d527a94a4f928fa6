"""MLflow's requests about registered models and their aliases."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from rollforward import v1
from services.mlflow_rest.endpoints.model_versions import version_number, version_of, version_shown
from services.mlflow_rest.errors import invalid, not_found
from services.mlflow_rest.labels import milliseconds, only_set, tags_shown
from services.mlflow_rest.paging import collected, order_of, page_limit
from services.mlflow_rest.request import Request
from services.rpc.local import CallFailed

MAX_RESULTS = 1_000
DEFAULT_RESULTS = 100

_PROMPT_TAG = "mlflow.prompt.is_prompt"
_NO_PROMPT = re.compile(
    r"tags?\.[`\"]?mlflow\.prompt\.is_prompt[`\"]?\s*(?:!=\s*['\"]true['\"]|=\s*['\"]false['\"])", re.IGNORECASE
)


async def create(request: Request) -> dict[str, Any]:
    """Create a registered model."""
    parameters = request.parameters
    created = v1.CreateModelRequest(
        name=parameters.text("name", empty=False),
        tags=parameters.pairs("tags"),
        description=parameters.text("description", ""),
    )
    response = await request.send(created)
    return {"registered_model": await model_shown(request, response.model)}


async def get(request: Request) -> dict[str, Any]:
    """Return a registered model."""
    return await _answer(request, request.parameters.text("name", empty=False))


async def rename(request: Request) -> dict[str, Any]:
    """Rename a registered model."""
    name, new_name = request.parameters.text("name", empty=False), request.parameters.text("new_name", "")
    if not new_name:
        raise invalid("missing value for required parameter 'new_name'")
    await request.send(v1.RenameModelRequest(model=name, new_name=new_name))
    return await _answer(request, new_name)


async def update(request: Request) -> dict[str, Any]:
    """Change the description of a registered model."""
    name = request.parameters.text("name", empty=False)
    if request.parameters.has("description"):
        description = request.parameters.text("description")
        await request.send(v1.SetDescriptionRequest(model=name, description=description))
    return await _answer(request, name)


async def delete(request: Request) -> dict[str, Any]:
    """Delete a registered model with its versions."""
    name = request.parameters.text("name", empty=False)
    await model_of(request, name)
    await request.send(v1.DeleteModelRequest(model=name))
    return {}


async def search(request: Request) -> dict[str, Any]:
    """Return a page of registered models."""
    parameters = request.parameters
    wanted = v1.ListModelsRequest(
        filter=_filter(parameters.text("filter", "")), order_by=order_of(parameters.texts("order_by"))
    )
    limit = page_limit(parameters.integer("max_results", DEFAULT_RESULTS), MAX_RESULTS)

    async def page(size: int, token: str) -> tuple[Sequence[v1.Model], str]:
        wanted.page_size, wanted.page_token = size, token
        response = await request.send(wanted)
        return response.models, response.next_page_token

    models, token = await collected(page, limit, parameters.text("page_token", ""))
    shown = await asyncio.gather(*(model_shown(request, model) for model in models))
    return only_set(registered_models=list(shown), next_page_token=token)


async def set_tag(request: Request) -> dict[str, Any]:
    """Set a tag of a registered model."""
    parameters = request.parameters
    name, key = parameters.text("name", empty=False), parameters.text("key", empty=False)
    await request.send(v1.ChangeTagsRequest(model=name, set={key: parameters.text("value", "")}))
    return {}


async def delete_tag(request: Request) -> dict[str, Any]:
    """Remove a tag of a registered model, whether it has it or not."""
    name, key = request.parameters.text("name", empty=False), request.parameters.text("key", empty=False)
    await model_of(request, name)
    await request.send(v1.ChangeTagsRequest(model=name, remove=[key]))
    return {}


async def latest_versions(request: Request) -> dict[str, Any]:
    """Return the latest version; every version is in the stage None."""
    name, stages = request.parameters.text("name", empty=False), request.parameters.texts("stages")
    for stage in stages:
        check_stage(stage)
    model = await model_of(request, name)
    if stages and not any(stage.lower() == "none" for stage in stages):
        return {}
    return only_set(model_versions=await _latest(request, model))


def check_stage(stage: str) -> None:
    """Raise `MlflowError` unless a stage is one of MLflow's."""
    if stage.lower() not in {"none", "staging", "production", "archived"}:
        raise invalid(f"invalid stage {stage[:100]!r}: expected None, Staging, Production or Archived")


async def set_alias(request: Request) -> dict[str, Any]:
    """Move an alias to a version; the revision of an If-Match header is what it must be at."""
    parameters = request.parameters
    move = v1.MoveAliasRequest(
        model=parameters.text("name", empty=False),
        alias=parameters.text("alias", empty=False),
        version=version_number(parameters.text("version", empty=False)),
    )
    if request.expected_revision is not None:
        move.expected_revision = request.expected_revision
    await request.send(move)
    return {}


async def delete_alias(request: Request) -> dict[str, Any]:
    """Remove an alias, whether it is set or not."""
    name, alias = request.parameters.text("name", empty=False), request.parameters.text("alias", empty=False)
    removal = v1.RemoveAliasRequest(model=name, alias=alias)
    if request.expected_revision is not None:
        removal.expected_revision = request.expected_revision
    try:
        await request.send(removal)
    except CallFailed as failed:
        if failed.reason != "ALIAS_NOT_FOUND":
            raise
    return {}


async def get_by_alias(request: Request) -> dict[str, Any]:
    """Return the version that an alias names."""
    name, alias = request.parameters.text("name", empty=False), request.parameters.text("alias", empty=False)
    resolved = await request.send(v1.ResolveAliasRequest(model=name, alias=alias))
    front, key = request.front, (name, resolved.alias.version)
    position, shown = front.versions.get(key, (-1, {}))
    if position != resolved.position:
        front.advance("registry", resolved.position)
        shown = version_shown(await version_of(request, name, resolved.alias.version))
        front.versions[key] = resolved.position, shown
    return {"model_version": shown}


async def model_of(request: Request, name: str) -> v1.Model:
    """Return a registered model. Raises `MlflowError` when it is deleted or does not exist."""
    model: v1.Model = (await request.send(v1.GetModelRequest(name=name))).model
    if model.HasField("deleted_at"):
        raise not_found(f"registered model {name!r} is deleted")
    return model


async def model_shown(request: Request, model: v1.Model) -> dict[str, Any]:
    """Return a registered model in MLflow's form."""
    aliases = [{"alias": alias.alias, "version": str(alias.version)} for alias in model.aliases]
    return {
        "name": model.name,
        "creation_timestamp": milliseconds(model.created_at),
        "last_updated_timestamp": milliseconds(model.updated_at),
        **only_set(
            description=model.description,
            latest_versions=await _latest(request, model),
            tags=tags_shown(model.tags),
            aliases=aliases,
        ),
    }


def _filter(text: str) -> str:
    """Return a filter by our rules: MLflow finds models without the tag of prompts by "is not true" and "is false"."""
    return _NO_PROMPT.sub(f"tags.`{_PROMPT_TAG}` IS NULL", text)


async def _latest(request: Request, model: v1.Model) -> list[dict[str, Any]]:
    if not model.latest_version:
        return []
    newest = v1.ListVersionsRequest(model=model.name, page_size=1, order_by="version DESC")
    return [version_shown(version) for version in (await request.send(newest)).versions]


async def _answer(request: Request, name: str) -> dict[str, Any]:
    return {"registered_model": await model_shown(request, await model_of(request, name))}
