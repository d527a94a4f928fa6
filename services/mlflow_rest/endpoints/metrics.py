"""MLflow's requests about the histories of metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rollforward import v1
from services.mlflow_rest.endpoints.runs import run_id_of
from services.mlflow_rest.errors import invalid
from services.mlflow_rest.metric_points import shown
from services.mlflow_rest.paging import collected
from services.mlflow_rest.request import Request
from services.rpc.local import CallFailed

MAX_HISTORY = 25_000
MAX_RUNS = 100
DEFAULT_INTERVAL_POINTS = 320
MAX_INTERVAL_POINTS = 2_500

_NO_METRIC = "METRIC_NOT_FOUND"


async def history(request: Request) -> dict[str, Any]:
    """Return the points of a metric of a run, in pages."""
    parameters = request.parameters
    run_id = run_id_of(parameters)
    key = parameters.text("metric_key", empty=False)
    limit = parameters.integer("max_results", MAX_HISTORY)
    points, token = await _points(request, run_id, key, min(limit, MAX_HISTORY), parameters.text("page_token", ""))
    return ({"metrics": points} if points else {}) | ({"next_page_token": token} if token else {})


async def history_bulk(request: Request) -> dict[str, Any]:
    """Return the points of a metric of several runs."""
    run_ids, key = _runs(request), request.parameters.text("metric_key", empty=False)
    limit = min(request.parameters.integer("max_results", MAX_HISTORY), MAX_HISTORY)
    histories = await asyncio.gather(*(_points(request, run_id, key, limit, "") for run_id in sorted(run_ids)))
    return {
        "metrics": [
            {**point, "run_id": run_id}
            for run_id, (points, _) in zip(sorted(run_ids), histories, strict=True)
            for point in points
        ][:limit]
    }


async def history_bulk_interval(request: Request) -> dict[str, Any]:
    """Return a sample of the points of a metric of several runs, at the same steps, those of extreme steps included."""
    parameters, run_ids = request.parameters, _runs(request)
    key = parameters.text("metric_key", empty=False)
    limit = parameters.integer("max_results", DEFAULT_INTERVAL_POINTS)
    if not 1 <= limit <= MAX_INTERVAL_POINTS:
        raise invalid(f"invalid value {limit} for parameter 'max_results': expected 1 to {MAX_INTERVAL_POINTS}")
    first = parameters.integer("start_step") if parameters.has("start_step") else None
    last = parameters.integer("end_step") if parameters.has("end_step") else None
    if (first is None) != (last is None):
        raise invalid("give both 'start_step' and 'end_step', or neither")
    if first is not None and last is not None and first > last:
        raise invalid(f"'end_step' {last} must not be less than 'start_step' {first}")
    histories = dict(
        zip(
            run_ids,
            await asyncio.gather(*(_steps_between(request, run_id, key, first, last) for run_id in run_ids)),
            strict=True,
        )
    )
    wanted = _sampled({point["step"] for points in histories.values() for point in points}, limit)
    for points in histories.values():
        if points:  # the ends of each run are shown, so that no curve seems to end early
            wanted |= {points[0]["step"], points[-1]["step"]}
    points = [
        {**point, "run_id": run_id}
        for run_id, points in histories.items()
        for point in points
        if point["step"] in wanted
    ]
    return {"metrics": points} if points else {}


def _runs(request: Request) -> list[str]:
    run_ids = request.parameters.texts("run_ids") or request.parameters.texts("run_id")
    if not run_ids:
        raise invalid("missing value for required parameter 'run_ids'")
    if len(run_ids) > MAX_RUNS:
        raise invalid(f"at most {MAX_RUNS} runs can be asked for at once, got {len(run_ids)}")
    return run_ids


async def _points(request: Request, run_id: str, key: str, limit: int, token: str) -> tuple[list[dict[str, Any]], str]:
    wanted = v1.ListMetricPointsRequest(run_id=run_id, key=key)

    async def page(size: int, token: str) -> tuple[Sequence[dict[str, Any]], str]:
        wanted.page_size, wanted.page_token = size, token
        try:
            response = await request.send(wanted)
        except CallFailed as failed:
            if failed.reason != _NO_METRIC:
                raise
            return [], ""
        return shown(response.series, key), response.next_page_token

    if limit < 1:
        raise invalid(f"invalid value {limit} for parameter 'max_results': expected at least 1")
    return await collected(page, limit, token, MAX_HISTORY)


async def _steps_between(
    request: Request, run_id: str, key: str, first: int | None, last: int | None
) -> list[dict[str, Any]]:
    """Return the points of a metric between two steps, by step and time."""
    points: list[dict[str, Any]] = []
    wanted = v1.GetMetricHistoryRequest(run_id=run_id, key=key, from_step=first, to_step=last)
    try:
        async for part in request.stream(wanted):
            points += shown(part.series, key)
    except CallFailed as failed:
        if failed.reason != _NO_METRIC:
            raise
    return sorted(points, key=lambda point: (point["step"], point["timestamp"]))


def _sampled(steps: set[int], limit: int) -> set[int]:
    """Return at most so many steps, evenly spread, the first and the last among them."""
    ordered = sorted(steps)
    if len(ordered) <= limit:
        return set(ordered)
    stride = len(ordered) / limit
    return {ordered[int(number * stride)] for number in range(limit)} | {ordered[-1]}
