"""MLflow's requests about runs."""

from __future__ import annotations

import asyncio
import re
import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from services.mlflow_rest.endpoints.experiments import check_id, experiment, location_of
from services.mlflow_rest.errors import MlflowError, invalid, not_found
from services.mlflow_rest.labels import (
    NOTE,
    PARENT_RUN,
    RUN_NAME,
    shortened_tags,
    timestamp,
)
from services.mlflow_rest.paging import collected, lifecycle_of, order_of, page_limit
from services.mlflow_rest.parameters import Parameters
from services.mlflow_rest.request import Request
from services.mlflow_rest.run_views import run_info, run_shown

MAX_RESULTS = 50_000
DEFAULT_RESULTS = 1_000

_RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
_ENDINGS: Final = {
    "FINISHED": v1.RUN_STATUS_FINISHED,
    "FAILED": v1.RUN_STATUS_FAILED,
    "KILLED": v1.RUN_STATUS_KILLED,
}
_STATUSES: Final = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
_FIRST: Final = (
    "agile",
    "brave",
    "calm",
    "clever",
    "daring",
    "eager",
    "fair",
    "gentle",
    "keen",
    "lively",
    "merry",
    "noble",
)
_SECOND: Final = ("ash", "beech", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")


async def create(request: Request) -> dict[str, Any]:
    """Start a run; without a name it gets one."""
    parameters = request.parameters
    experiment_id = parameters.text("experiment_id", "0") or "0"
    tags = shortened_tags(parameters.pairs("tags"))
    name = parameters.text("run_name", "")
    if name and tags.get(RUN_NAME, name) != name:
        raise invalid(
            f"run_name is {name[:100]!r}, but the tag {RUN_NAME!r} is {tags[RUN_NAME][:100]!r}: give one of them"
        )
    name = name or tags.get(RUN_NAME, "") or _new_name()
    request.actor = request.actor or parameters.text("user_id", "")
    parent = tags.get(PARENT_RUN, "")
    started = v1.StartRunRequest(
        run_id=uuid.uuid4().hex,
        experiment_id=check_id(experiment_id),
        name=name,
        tags={**tags, RUN_NAME: name},
        description=tags.get(NOTE, ""),
        parent_run_id=parent if _RUN_ID.fullmatch(parent) else "",
        start_time=timestamp(parameters.integer("start_time")) if parameters.has("start_time") else _now(),
    )
    await request.send(started)
    shown = await _shown(request, started.run_id)
    del shown["outputs"]
    return {"run": shown}


async def get(request: Request) -> dict[str, Any]:
    """Return a run."""
    return {"run": await _shown(request, run_id_of(request.parameters))}


async def update(request: Request) -> dict[str, Any]:
    """Change the status or the name of a run."""
    parameters, run_id = request.parameters, run_id_of(request.parameters)
    await check_active(request, run_id)
    if parameters.has("status"):
        await _set_status(request, run_id)
    if name := parameters.text("run_name", ""):
        await request.send(v1.RenameRunRequest(run_id=run_id, new_name=name))
        await request.send(v1.LogBatchRequest(run_id=run_id, tags={RUN_NAME: name}))
    run = await run_of(request, run_id, without_metrics=True)
    return {"run_info": run_info(run, location_of(await experiment(request, run.experiment_id)))}


async def delete(request: Request) -> dict[str, Any]:
    """Delete a run."""
    run_id = run_id_of(request.parameters)
    await request.send(v1.DeleteRunRequest(run_id=run_id))
    return {}


async def restore(request: Request) -> dict[str, Any]:
    """Restore a deleted run."""
    run_id = run_id_of(request.parameters)
    if not (await run_of(request, run_id, without_metrics=True)).deleted:
        raise invalid(f"run {run_id!r} is not deleted")
    await request.send(v1.RestoreRunRequest(run_id=run_id))
    return {}


async def search(request: Request) -> dict[str, Any]:
    """Return a page of the runs of some experiments."""
    parameters = request.parameters
    experiment_ids = [check_id(experiment_id) for experiment_id in parameters.texts("experiment_ids")]
    limit = page_limit(parameters.integer("max_results", DEFAULT_RESULTS), MAX_RESULTS)
    wanted = v1.ListRunsRequest(
        experiment_ids=experiment_ids,
        filter=parameters.text("filter", ""),
        order_by=_order(parameters.texts("order_by")),
        lifecycle=lifecycle_of(parameters.text("run_view_type", "ACTIVE_ONLY")),
    )
    if not experiment_ids:
        return {}

    async def page(size: int, token: str) -> tuple[Sequence[v1.Run], str]:
        wanted.page_size, wanted.page_token = size, token
        response = await request.send(wanted)
        return response.runs, response.next_page_token

    runs, token = await collected(page, limit, parameters.text("page_token", ""))
    await asyncio.gather(*(_add_metrics(request, run) for run in runs if run.next_metrics_token))
    locations = await _locations(request, {run.experiment_id for run in runs})
    shown = [run_shown(run, locations[run.experiment_id]) for run in runs]
    return ({"runs": shown} if shown else {}) | ({"next_page_token": token} if token else {})


async def run_of(request: Request, run_id: str, *, without_metrics: bool = False) -> v1.Run:
    """Return a run, with all metrics unless without. Raises `CallFailed` RUN_NOT_FOUND."""
    response = await request.send(v1.GetRunRequest(run_id=run_id, without_metrics=without_metrics))
    run: v1.Run = response.run
    if not without_metrics:
        await _add_metrics(request, run)
    return run


async def check_active(request: Request, run_id: str) -> v1.Run:
    """Return a run without its metrics. Raises `MlflowError` when it is deleted."""
    run = await run_of(request, run_id, without_metrics=True)
    if run.deleted:
        raise invalid(f"run {run_id!r} is deleted: restore it first")
    return run


def run_id_of(parameters: Parameters) -> str:
    """Return the id of the run that a request is about; MLflow's oldest clients call it run_uuid."""
    run_id = parameters.text("run_id", "") or parameters.text("run_uuid", "")
    if not run_id:
        raise invalid("missing value for required parameter 'run_id'")
    if not _RUN_ID.fullmatch(run_id):
        raise not_found(f"no run {run_id[:100]!r}")
    return run_id


async def _shown(request: Request, run_id: str) -> dict[str, Any]:
    run = await run_of(request, run_id)
    return run_shown(run, location_of(await experiment(request, run.experiment_id)))


async def _add_metrics(request: Request, run: v1.Run) -> None:
    token = run.next_metrics_token
    while token:
        more = await request.send(v1.ListRunMetricsRequest(run_id=run.run_id, page_token=token))
        for key, summary in more.metrics.items():
            run.metrics[key].CopyFrom(summary)
        token = more.next_page_token


async def _locations(request: Request, experiment_ids: set[str]) -> Mapping[str, str]:
    ids = sorted(experiment_ids)
    experiments = await asyncio.gather(*(experiment(request, experiment_id) for experiment_id in ids))
    return {one.experiment_id: location_of(one) for one in experiments}


async def _set_status(request: Request, run_id: str) -> None:
    status = request.parameters.text("status")
    status = _STATUSES.get(status, status)
    if status == "RUNNING":
        await request.send(v1.ResumeRunRequest(run_id=run_id))
    elif status in _ENDINGS:
        end = request.parameters.integer("end_time") if request.parameters.has("end_time") else None
        finish = v1.FinishRunRequest(run_id=run_id, status=_ENDINGS[status])
        finish.end_time.CopyFrom(_now() if end is None else timestamp(end))
        await request.send(finish)
    elif status == "SCHEDULED":
        raise MlflowError("BAD_REQUEST", "a run that was started cannot become SCHEDULED again")
    else:
        raise invalid(f"invalid status {status[:100]!r}: expected RUNNING, {', '.join(_ENDINGS)}")


def _order(clauses: Sequence[str]) -> str:
    """Return an order in which runs that are equal are listed like MLflow does, the latest first."""
    named = any(re.search(r"\b(?:start_time|created|Created)\b", clause) for clause in clauses)
    return order_of(clauses if named or not clauses else [*clauses, "start_time DESC"])


def _new_name() -> str:
    return f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}-{secrets.randbelow(1000)}"


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
