"""MLflow's requests about experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from rollforward import v1
from services.mlflow_rest.errors import invalid, not_found
from services.mlflow_rest.labels import ARTIFACT_LOCATION, milliseconds, only_set, tags_shown
from services.mlflow_rest.paging import collected, lifecycle_of, order_of, page_limit
from services.mlflow_rest.request import Request
from services.rpc.local import CallFailed

DEFAULT_ID: Final = "0"
DEFAULT_NAME: Final = "Default"
MAX_RESULTS = 50_000


async def create(request: Request) -> dict[str, Any]:
    """Create an experiment; its artifact location is kept as given."""
    name = request.parameters.text("name", empty=False)
    tags = request.parameters.pairs("tags")
    if location := request.parameters.text("artifact_location", ""):
        tags[ARTIFACT_LOCATION] = location.rstrip("/")
    response = await request.send(v1.CreateExperimentRequest(name=name, tags=tags))
    return {"experiment_id": response.experiment_id}


async def get(request: Request) -> dict[str, Any]:
    """Return an experiment by its id."""
    experiment_id = request.parameters.text("experiment_id", empty=False)
    return {"experiment": shown(await experiment(request, experiment_id))}


async def get_by_name(request: Request) -> dict[str, Any]:
    """Return an experiment by its name, deleted ones included."""
    name = request.parameters.text("experiment_name", empty=False)
    response = await request.send(v1.GetExperimentRequest(name=name))
    return {"experiment": shown(response.experiment)}


async def search(request: Request) -> dict[str, Any]:
    """Return a page of experiments."""
    parameters = request.parameters
    wanted = v1.ListExperimentsRequest(
        filter=parameters.text("filter", ""),
        order_by=order_of(parameters.texts("order_by")),
        lifecycle=lifecycle_of(parameters.text("view_type", "ACTIVE_ONLY")),
        page_token=parameters.text("page_token", ""),
    )
    limit = page_limit(parameters.integer("max_results"), MAX_RESULTS)

    async def page(size: int, token: str) -> tuple[Sequence[v1.Experiment], str]:
        wanted.page_size, wanted.page_token = size, token
        response = await request.send(wanted)
        return response.experiments, response.next_page_token

    experiments, token = await collected(page, limit, wanted.page_token)
    return only_set(experiments=[shown(experiment) for experiment in experiments], next_page_token=token)


async def update(request: Request) -> dict[str, Any]:
    """Rename an experiment."""
    experiment_id = request.parameters.text("experiment_id", empty=False)
    if request.parameters.has("new_name"):
        new_name = request.parameters.text("new_name")
        await request.send(v1.RenameExperimentRequest(experiment_id=experiment_id, new_name=new_name))
    return {}


async def delete(request: Request) -> dict[str, Any]:
    """Delete an experiment that is active."""
    experiment_id = request.parameters.text("experiment_id", empty=False)
    if (await experiment(request, experiment_id)).deleted:
        raise not_found(f"no active experiment {experiment_id!r}")
    await request.send(v1.DeleteExperimentRequest(experiment_id=experiment_id))
    return {}


async def restore(request: Request) -> dict[str, Any]:
    """Restore a deleted experiment."""
    experiment_id = request.parameters.text("experiment_id", empty=False)
    if not (await experiment(request, experiment_id)).deleted:
        raise not_found(f"no deleted experiment {experiment_id!r}")
    await request.send(v1.RestoreExperimentRequest(experiment_id=experiment_id))
    return {}


async def set_tag(request: Request) -> dict[str, Any]:
    """Set a tag of an experiment."""
    experiment_id = request.parameters.text("experiment_id", empty=False)
    tags = {request.parameters.text("key", empty=False): request.parameters.text("value")}
    await request.send(v1.ChangeExperimentTagsRequest(experiment_id=experiment_id, set=tags))
    return {}


async def delete_tag(request: Request) -> dict[str, Any]:
    """Remove a tag of an experiment, which must have it."""
    experiment_id = request.parameters.text("experiment_id", empty=False)
    key = request.parameters.text("key", empty=False)
    if key not in (await experiment(request, experiment_id)).tags:
        raise not_found(f"experiment {experiment_id!r} has no tag {key!r}")
    await request.send(v1.ChangeExperimentTagsRequest(experiment_id=experiment_id, remove=[key]))
    return {}


async def experiment(request: Request, experiment_id: str) -> v1.Experiment:
    """Return an experiment, deleted or not. Raises `CallFailed` EXPERIMENT_NOT_FOUND."""
    response = await request.send(v1.GetExperimentRequest(experiment_id=experiment_id))
    found: v1.Experiment = response.experiment
    return found


async def ensure_default(request: Request) -> None:
    """Create the experiment that runs belong to whose client names none, unless it exists."""
    try:
        await experiment(request, DEFAULT_ID)
    except CallFailed as failed:
        if failed.code is not grpc.StatusCode.NOT_FOUND:
            raise
        try:
            await request.send(v1.CreateExperimentRequest(name=DEFAULT_NAME))
        except CallFailed as raced:
            if raced.code is not grpc.StatusCode.ALREADY_EXISTS:
                raise


def shown(experiment: v1.Experiment) -> dict[str, Any]:
    """Return an experiment in MLflow's form."""
    return {
        "experiment_id": experiment.experiment_id,
        "name": experiment.name,
        "artifact_location": location_of(experiment),
        "lifecycle_stage": "deleted" if experiment.deleted else "active",
        "last_update_time": milliseconds(experiment.updated_at),
        "creation_time": milliseconds(experiment.created_at),
        **only_set(tags=tags_shown(experiment.tags)),
        "workspace": "default",
    }


def location_of(experiment: v1.Experiment) -> str:
    """Return the URI below which the artifacts of an experiment's runs are."""
    return experiment.tags.get(ARTIFACT_LOCATION, f"mlflow-artifacts:/{experiment.experiment_id}")


def check_id(experiment_id: str) -> str:
    """Return an experiment's id. Raises `MlflowError` when it cannot be one."""
    if not experiment_id.isdecimal():
        raise invalid(f"invalid experiment id {experiment_id[:100]!r}: expected a number")
    return experiment_id
