"""Helpers that make models whose versions come from runs with known metrics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rollforward import v1
from services.series.columns import Points, pack
from tests.integration.up import ACTOR, SECONDS, Up, new_id

BETTER = "champion.version == 0 || candidate.metrics.f1 >= champion.metrics.f1 + 0.01"
"""A gate of moves: better than the champion, if there is one."""


def headers_at_head(system: Up) -> tuple[tuple[str, str], ...]:
    """Return the headers of a read that waits for the head of every log."""
    return (*ACTOR, ("rollforward-min-position", ",".join(f"{log}={head}" for log, head in system.heads().items())))


def log_metrics(system: Up, run_id: str, metrics: Mapping[str, float]) -> None:
    """Log metrics of a run, after those that it has."""
    at = np.array([system.heads()["tracking"]])
    series = [pack(key, Points(at, at, np.array([value]))) for key, value in metrics.items()]
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, series=series), timeout=SECONDS)


def new_run(system: Up, **metrics: float) -> str:
    """Start a run with these metrics and an artifact; return its id."""
    run_id = system.new_run()
    log_metrics(system, run_id, metrics)
    artifact = v1.LogArtifactRequest(run_id=run_id, path="model", digest=system.upload())
    system.tracking.LogArtifact(artifact, timeout=SECONDS)
    return run_id


def register_request(model: str, run_id: str, **values: str) -> v1.RegisterVersionRequest:
    """Return a request that registers a run's artifact."""
    return v1.RegisterVersionRequest(model=model, run_id=run_id, artifact_path="model", **values)  # type: ignore[arg-type]


def new_scored_model(system: Up, *scores: float) -> tuple[str, list[str]]:
    """Create a model with a version for each f1 score; return its name and the runs."""
    model, runs = f"model-{new_id()}", [new_run(system, f1=score) for score in scores]
    for run_id in runs:
        system.registry.RegisterVersion(
            register_request(model, run_id), metadata=headers_at_head(system), timeout=SECONDS
        )
    return model, runs


def move_request(model: str, version: int, alias: str = "champion", **values: str) -> v1.MoveAliasRequest:
    """Return a request that moves an alias."""
    return v1.MoveAliasRequest(model=model, alias=alias, version=version, **values)  # type: ignore[arg-type]
