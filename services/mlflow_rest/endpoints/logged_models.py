"""MLflow's requests about logged models."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from typing import Any, Final

from rollforward import v1
from services.mlflow_rest.endpoints.experiments import check_id, experiment, location_of
from services.mlflow_rest.errors import invalid, not_found
from services.mlflow_rest.labels import milliseconds, only_set, pairs, tags_shown
from services.mlflow_rest.paging import collected, page_limit
from services.mlflow_rest.parameters import Parameters
from services.mlflow_rest.request import Request
from services.mlflow_rest.run_views import number

MAX_RESULTS = 1_000
DEFAULT_RESULTS = 50

_STATUSES: Final = {
    v1.LOGGED_MODEL_STATUS_PENDING: "LOGGED_MODEL_PENDING",
    v1.LOGGED_MODEL_STATUS_READY: "LOGGED_MODEL_READY",
    v1.LOGGED_MODEL_STATUS_FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}
_ENDINGS: Final = {
    "LOGGED_MODEL_READY": v1.LOGGED_MODEL_STATUS_READY,
    "LOGGED_MODEL_UPLOAD_FAILED": v1.LOGGED_MODEL_STATUS_FAILED,
    "2": v1.LOGGED_MODEL_STATUS_READY,
    "3": v1.LOGGED_MODEL_STATUS_FAILED,
}


async def create(request: Request) -> dict[str, Any]:
    """Create a logged model; without a name it gets one."""
    parameters = request.parameters
    created = v1.CreateLoggedModelRequest(
        model_id=f"m-{uuid.uuid4().hex}",
        experiment_id=check_id(parameters.text("experiment_id", empty=False)),
        name=parameters.text("name", "") or f"model-{secrets.token_hex(4)}",
        model_type=parameters.text("model_type", ""),
        source_run_id=parameters.text("source_run_id", ""),
        params=parameters.pairs("params"),
        tags=parameters.pairs("tags"),
    )
    await request.send(created)
    return await _answer(request, created.model_id)


async def get(request: Request) -> dict[str, Any]:
    """Return a logged model."""
    return await _answer(request, request.path["model_id"])


async def finalize(request: Request) -> dict[str, Any]:
    """Set a logged model to ready or failed."""
    model_id, status = request.path["model_id"], request.parameters.text("status", empty=False)
    if status not in _ENDINGS:
        raise invalid(f"invalid status {status[:100]!r}: expected LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED")
    await request.send(v1.FinalizeLoggedModelRequest(model_id=model_id, status=_ENDINGS[status]))
    return await _answer(request, model_id)


async def delete(request: Request) -> dict[str, Any]:
    """Delete a logged model."""
    model_id = request.path["model_id"]
    await model_of(request, model_id)
    await request.send(v1.DeleteLoggedModelRequest(model_id=model_id))
    return {}


async def set_tags(request: Request) -> dict[str, Any]:
    """Set tags of a logged model."""
    model_id = request.path["model_id"]
    await request.send(v1.LogLoggedModelRequest(model_id=model_id, set_tags=request.parameters.pairs("tags")))
    return {}


async def delete_tag(request: Request) -> dict[str, Any]:
    """Remove a tag, which the model must have."""
    model_id, key = request.path["model_id"], request.path["key"]
    if key not in (await model_of(request, model_id)).tags:
        raise not_found(f"logged model {model_id!r} has no tag {key!r}")
    await request.send(v1.LogLoggedModelRequest(model_id=model_id, removed_tags=[key]))
    return {}


async def log_params(request: Request) -> dict[str, Any]:
    """Log parameters of a logged model."""
    model_id = request.path["model_id"]
    await request.send(v1.LogLoggedModelRequest(model_id=model_id, params=request.parameters.pairs("params")))
    return {}


async def search(request: Request) -> dict[str, Any]:
    """Return a page of the logged models of some experiments."""
    parameters = request.parameters
    wanted = v1.ListLoggedModelsRequest(
        experiment_ids=[check_id(experiment_id) for experiment_id in parameters.texts("experiment_ids")],
        filter=parameters.text("filter", ""),
        order_by=_order(parameters.objects("order_by")),
        datasets=[
            v1.Dataset(name=entry.text("dataset_name", empty=False), digest=entry.text("dataset_digest", ""))
            for entry in parameters.objects("datasets")
        ],
    )
    limit = page_limit(parameters.integer("max_results", DEFAULT_RESULTS), MAX_RESULTS)

    async def page(size: int, token: str) -> tuple[Sequence[v1.LoggedModel], str]:
        wanted.page_size, wanted.page_token = size, token
        response = await request.send(wanted)
        return response.models, response.next_page_token

    models, token = await collected(page, limit, parameters.text("page_token", ""))
    locations = {model.experiment_id: "" for model in models}
    for experiment_id in locations:
        locations[experiment_id] = location_of(await experiment(request, experiment_id))
    shown = [model_shown(model, locations[model.experiment_id]) for model in models]
    return only_set(models=shown, next_page_token=token)


async def model_of(request: Request, model_id: str) -> v1.LoggedModel:
    """Return a logged model with all its metrics. Raises `MlflowError` when it is deleted or does not exist."""
    model: v1.LoggedModel = (await request.send(v1.GetLoggedModelRequest(model_id=model_id))).model
    if model.deleted:
        raise not_found(f"logged model {model_id!r} is deleted")
    token = model.next_metrics_token
    while token:
        more = await request.send(v1.ListLoggedModelMetricsRequest(model_id=model_id, page_token=token))
        model.metrics.extend(more.metrics)
        token = more.next_page_token
    return model


async def artifact_uri(request: Request, model: v1.LoggedModel) -> str:
    """Return the URI of a logged model's files."""
    return _artifact_uri(model, location_of(await experiment(request, model.experiment_id)))


def _artifact_uri(model: v1.LoggedModel, location: str) -> str:
    return f"{location}/models/{model.model_id}/artifacts"


def model_shown(model: v1.LoggedModel, location: str) -> dict[str, Any]:
    """Return a logged model in MLflow's form; `location` is where its experiment's artifacts are."""
    metrics = [
        {
            "key": metric.key,
            "value": number(metric.value),
            "timestamp": metric.timestamp,
            "step": metric.step,
            "model_id": model.model_id,
            **only_set(run_id=metric.run_id, dataset_name=metric.dataset_name, dataset_digest=metric.dataset_digest),
        }
        for metric in model.metrics
    ]
    return {
        "info": {
            "model_id": model.model_id,
            "experiment_id": model.experiment_id,
            "name": model.name,
            "creation_timestamp_ms": milliseconds(model.created_at),
            "last_updated_timestamp_ms": milliseconds(model.updated_at),
            "artifact_uri": _artifact_uri(model, location),
            "status": _STATUSES[model.status],
            "model_type": model.model_type,
            "source_run_id": model.source_run_id,
            **only_set(tags=tags_shown(model.tags)),
        },
        "data": only_set(params=pairs(model.params), metrics=metrics),
    }


async def _answer(request: Request, model_id: str) -> dict[str, Any]:
    model = await model_of(request, model_id)
    return {"model": model_shown(model, location_of(await experiment(request, model.experiment_id)))}


def _order(clauses: Sequence[Parameters]) -> str:
    return ", ".join(clause.text("field_name", empty=False) + _direction(clause) for clause in clauses)


def _direction(clause: Parameters) -> str:
    return " DESC" if clause.has("ascending") and not clause.boolean("ascending") else ""
