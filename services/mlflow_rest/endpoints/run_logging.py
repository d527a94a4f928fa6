"""MLflow's requests that log to a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollforward import v1
from services.mlflow_rest.endpoints.runs import check_active, run_id_of, run_of
from services.mlflow_rest.errors import invalid, not_found
from services.mlflow_rest.labels import (
    NOTE,
    RUN_NAME,
    dataset_tags,
    shortened_params,
    shortened_tags,
)
from services.mlflow_rest.metric_points import points_of, series_of
from services.mlflow_rest.parameters import Parameters
from services.mlflow_rest.request import Request

MAX_BATCH_METRICS = 1_000

MAX_BATCH_LABELS = 100

MAX_BATCH_ENTITIES = 1_000


async def log_metric(request: Request) -> dict[str, Any]:
    """Log one point of a metric."""
    run_id = run_id_of(request.parameters)
    await request.send(v1.LogBatchRequest(run_id=run_id, series=series_of(points_of([request.parameters]))))
    return {}


async def log_parameter(request: Request) -> dict[str, Any]:
    """Log one parameter."""
    key, value = request.parameters.text("key", empty=False), request.parameters.text("value", "")
    params = shortened_params({key: value})
    await request.send(v1.LogBatchRequest(run_id=run_id_of(request.parameters), params=params))
    return {}


async def log_batch(request: Request) -> dict[str, Any]:
    """Log metrics, parameters and tags, all or none."""
    parameters, run_id = request.parameters, run_id_of(request.parameters)
    metrics, params, tags = (parameters.objects(name) for name in ("metrics", "params", "tags"))
    _check_batch(len(metrics), len(params), len(tags))
    labels = shortened_tags(parameters.pairs("tags"))
    batch = v1.LogBatchRequest(
        run_id=run_id, series=series_of(points_of(metrics)), params=_distinct(parameters), tags=labels
    )
    if metrics or params or tags:
        await request.send(batch)
        await _set_fields(request, run_id, labels)
    else:
        await run_of(request, run_id, without_metrics=True)
    return {}


async def set_tag(request: Request) -> dict[str, Any]:
    """Set a tag."""
    run_id = run_id_of(request.parameters)
    tags = shortened_tags({request.parameters.text("key", empty=False): request.parameters.text("value", "")})
    await request.send(v1.LogBatchRequest(run_id=run_id, tags=tags))
    await _set_fields(request, run_id, tags)
    return {}


async def delete_tag(request: Request) -> dict[str, Any]:
    """Remove a tag, which the run must have."""
    run_id, key = run_id_of(request.parameters), request.parameters.text("key", empty=False)
    if key not in (await check_active(request, run_id)).tags:
        raise not_found(f"run {run_id!r} has no tag {key!r}")
    await request.send(v1.LogBatchRequest(run_id=run_id, removed_tags=[key]))
    await _set_fields(request, run_id, {key: ""})
    return {}


async def log_inputs(request: Request) -> dict[str, Any]:
    """Log the datasets that a run used."""
    run_id = run_id_of(request.parameters)
    inputs = [_input(entry) for entry in request.parameters.objects("datasets")]
    if inputs:
        await request.send(v1.LogLineageRequest(run_id=run_id, inputs=inputs))
    else:
        await run_of(request, run_id, without_metrics=True)
    return {}


async def log_outputs(request: Request) -> dict[str, Any]:
    """Log the models that a run made."""
    run_id = run_id_of(request.parameters)
    outputs = [
        v1.ModelOutput(model_id=entry.text("model_id", empty=False), step=entry.integer("step", 0))
        for entry in request.parameters.objects("models")
    ]
    if outputs:
        await request.send(v1.LogLineageRequest(run_id=run_id, outputs=outputs))
    return {}


async def _set_fields(request: Request, run_id: str, tags: Mapping[str, str]) -> None:
    """Set the fields that some tags stand for."""
    if RUN_NAME in tags:
        await request.send(v1.RenameRunRequest(run_id=run_id, new_name=tags[RUN_NAME]))
    if NOTE in tags:
        await request.send(v1.DescribeRunRequest(run_id=run_id, description=tags[NOTE]))


def _distinct(parameters: Parameters) -> dict[str, str]:
    params: dict[str, str] = {}
    for entry in parameters.objects("params"):
        key, value = entry.text("key", empty=False), entry.text("value", "")
        if params.setdefault(key, value) != value:
            raise invalid(f"the parameter {key[:100]!r} has several values in this request")
    return shortened_params(params)


def _check_batch(metrics: int, params: int, tags: int) -> None:
    for kind, number, limit in (
        ("metrics", metrics, MAX_BATCH_METRICS),
        ("params", params, MAX_BATCH_LABELS),
        ("tags", tags, MAX_BATCH_LABELS),
        ("metrics, params and tags", metrics + params + tags, MAX_BATCH_ENTITIES),
    ):
        if number > limit:
            raise invalid(f"a batch has at most {limit} {kind}, got {number}")


def _input(entry: Parameters) -> v1.DatasetInput:
    dataset = entry.object("dataset")
    return v1.DatasetInput(
        tags=dataset_tags(entry.pairs("tags")),
        dataset=v1.Dataset(
            name=dataset.text("name", empty=False),
            digest=dataset.text("digest", empty=False),
            source_type=dataset.text("source_type", empty=False),
            source=dataset.text("source", empty=False),
            schema=dataset.text("schema", ""),
            profile=dataset.text("profile", ""),
        ),
    )
