"""Runs in MLflow's form."""

from __future__ import annotations

import math
from typing import Any

from rollforward import v1
from services.mlflow_rest.labels import (
    NOTE,
    PARENT_RUN,
    RUN_NAME,
    dataset_tags_shown,
    milliseconds,
    only_set,
    pairs,
    tags_shown,
)

_STATUSES = {
    v1.RUN_STATUS_RUNNING: "RUNNING",
    v1.RUN_STATUS_SCHEDULED: "SCHEDULED",
    v1.RUN_STATUS_FINISHED: "FINISHED",
    v1.RUN_STATUS_FAILED: "FAILED",
    v1.RUN_STATUS_KILLED: "KILLED",
    v1.RUN_STATUS_LOST: "FAILED",
}


def run_shown(run: v1.Run, location: str) -> dict[str, Any]:
    """Return a run; `location` is where its experiment's artifacts are."""
    metrics = [
        {
            "key": key,
            "value": number(summary.last),
            "timestamp": summary.last_timestamp,
            "step": summary.last_step,
        }
        for key, summary in sorted(run.metrics.items())
    ]
    fields = {RUN_NAME: run.name, NOTE: run.description, PARENT_RUN: run.parent_run_id}
    inputs = [
        {
            **only_set(tags=dataset_tags_shown(entry.tags)),
            "dataset": only_set(
                name=entry.dataset.name,
                digest=entry.dataset.digest,
                source_type=entry.dataset.source_type,
                source=entry.dataset.source,
                schema=entry.dataset.schema,
                profile=entry.dataset.profile,
            ),
        }
        for entry in run.inputs
    ]
    outputs = [{"model_id": output.model_id, "step": output.step} for output in run.outputs]
    return {
        "info": run_info(run, location),
        "data": only_set(metrics=metrics, params=pairs(run.params), tags=tags_shown(run.tags, **fields)),
        "inputs": only_set(dataset_inputs=inputs),
        "outputs": only_set(model_outputs=outputs),
    }


def run_info(run: v1.Run, location: str) -> dict[str, Any]:
    """Return what MLflow calls a run's info."""
    ended = {"end_time": milliseconds(run.end_time)} if run.HasField("end_time") else {}
    return {
        "run_uuid": run.run_id,
        "experiment_id": run.experiment_id,
        "run_name": run.name,
        "user_id": run.actor if run.actor != "anonymous" else "",
        "status": _STATUSES[run.status],
        "start_time": milliseconds(run.start_time),
        **ended,
        "artifact_uri": f"{location}/{run.run_id}/artifacts",
        "lifecycle_stage": "deleted" if run.deleted else "active",
        "run_id": run.run_id,
    }


def number(value: float) -> float | str:
    """Return a number as JSON has it: those that JSON lacks by their names."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
