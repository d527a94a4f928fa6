"""The answers of tracking, each from rows of one moment."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa

from eventstore.errors import Kind, Rejected
from rollforward import v1
from services.pages import cut, key_of, page_size
from services.series import Points, pack
from services.times import timestamp
from services.tracking.projection import artifacts, chunks, experiments, metrics, number, params, runs, tags

_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def experiment(rows: sa.Connection, request: v1.GetExperimentRequest) -> v1.Experiment:
    """One experiment. Raises `Rejected` EXPERIMENT_NOT_FOUND."""
    by_name = request.WhichOneof("by") == "name"
    wanted = request.name if by_name else request.experiment_id
    if by_name:
        row = rows.execute(sa.select(experiments).where(experiments.c.name == wanted)).first()
    else:
        # Written otherwise, as "007", it is another id.
        key = int(wanted) if _NUMBER.fullmatch(wanted) else 0
        row = rows.execute(sa.select(experiments).where(experiments.c.number == key)).first()
    if row is None:
        words = f"no experiment {wanted!r}"
        raise Rejected(Kind.NOT_FOUND, "EXPERIMENT_NOT_FOUND", words, experiment=wanted[:500])
    return _experiment(row)


def list_experiments(rows: sa.Connection, request: v1.ListExperimentsRequest) -> v1.ListExperimentsResponse:
    """A page of experiments, newest first."""
    size = page_size(request.page_size)
    question = sa.select(experiments).order_by(experiments.c.number.desc()).limit(size + 1)
    if key := key_of(request.page_token, int):
        question = question.where(experiments.c.number < key[0])
    found = rows.execute(question).all()
    page, token = cut(found, size, lambda row: [row.number], lambda some: [_experiment(row) for row in some])
    return v1.ListExperimentsResponse(experiments=page, next_page_token=token)


def _experiment(row: sa.Row[tuple[object, ...]]) -> v1.Experiment:
    return v1.Experiment(
        experiment_id=str(row.number),
        name=row.name,
        tags=row.tags,
        created_at=timestamp(row.created_at),
        actor=row.actor,
    )


def run(rows: sa.Connection, run_id: str) -> v1.Run:
    """One run. Raises `Rejected` RUN_NOT_FOUND."""
    row = rows.execute(sa.select(runs).where(runs.c.run_id == run_id)).first()
    if row is None:
        raise Rejected(Kind.NOT_FOUND, "RUN_NOT_FOUND", f"no run {run_id!r}", run_id=run_id)
    return _runs(rows, [row])[0]


def list_runs(rows: sa.Connection, request: v1.ListRunsRequest) -> v1.ListRunsResponse:
    """A page of runs, newest first. Raises `Rejected` EXPERIMENT_NOT_FOUND."""
    size = page_size(request.page_size)
    question = sa.select(runs).order_by(runs.c.position.desc()).limit(size + 1)
    if request.experiment_id:
        experiment(rows, v1.GetExperimentRequest(experiment_id=request.experiment_id))
        question = question.where(runs.c.experiment_id == request.experiment_id)
    if key := key_of(request.page_token, int):
        question = question.where(runs.c.position < key[0])
    found = rows.execute(question).all()
    page, token = cut(found, size, lambda row: [row.position], lambda some: _runs(rows, some))
    return v1.ListRunsResponse(runs=page, next_page_token=token)


def _runs(rows: sa.Connection, page: Sequence[sa.Row[tuple[object, ...]]]) -> list[v1.Run]:
    views = {row.run_id: _run(row) for row in page}
    for table, field in ((params, "params"), (tags, "tags")):
        for pair in rows.execute(sa.select(table).where(table.c.run_id.in_(views))):
            getattr(views[pair.run_id], field)[pair.key] = pair.value
    for row in rows.execute(sa.select(metrics).where(metrics.c.run_id.in_(views))):
        views[row.run_id].metrics[row.key].CopyFrom(_summary(row))
    for run_id, logged in _artifacts(rows, list(views)).items():
        views[run_id].artifacts.extend(logged)
    return list(views.values())


def _run(row: sa.Row[tuple[object, ...]]) -> v1.Run:
    return v1.Run(
        run_id=row.run_id,
        experiment_id=row.experiment_id,
        name=row.name,
        status=row.status,
        start_time=timestamp(row.start_time),
        end_time=None if row.end_time is None else timestamp(row.end_time),
        actor=row.actor,
    )


def _summary(row: sa.Row[tuple[object, ...]]) -> v1.MetricSummary:
    return v1.MetricSummary(
        last=number(row.value),
        last_step=row.step,
        last_timestamp=row.timestamp,
        min=number(row.least),
        max=number(row.greatest),
        count=row.points,
    )


def _artifacts(rows: sa.Connection, run_ids: Sequence[str]) -> dict[str, list[v1.RunArtifact]]:
    found: dict[str, list[v1.RunArtifact]] = defaultdict(list)
    for row in rows.execute(sa.select(artifacts).where(artifacts.c.run_id.in_(run_ids)).order_by(artifacts.c.path)):
        view = v1.RunArtifact(path=row.path, digest=row.digest, size_bytes=row.size_bytes, file_count=row.file_count)
        found[row.run_id].append(view)
    return found


def metric_history(rows: sa.Connection, run_id: str, key: str) -> Points:
    """All points of a metric, by step, time and arrival. Raises `Rejected` RUN_NOT_FOUND or METRIC_NOT_FOUND."""
    question = sa.select(chunks.c.steps, chunks.c.timestamps, chunks.c["values"])
    question = question.where(chunks.c.run_id == run_id, chunks.c.key == key)
    found = rows.execute(question.order_by(chunks.c.position, chunks.c.number)).all()
    if not found:
        run(rows, run_id)
        words = f"run {run_id} has no metric {key!r}"
        raise Rejected(Kind.NOT_FOUND, "METRIC_NOT_FOUND", words, run_id=run_id, key=key)
    steps = np.frombuffer(b"".join(row[0] for row in found), "<i8")
    timestamps = np.frombuffer(b"".join(row[1] for row in found), "<i8")
    values = np.frombuffer(b"".join(row[2] for row in found), "<f8")
    order = np.lexsort((timestamps, steps))
    return Points(steps[order], timestamps[order], values[order])


def history_chunks(key: str, points: Points, size: int) -> list[v1.Series]:
    """Points in chunks of at most `size`."""
    cuts = range(0, len(points.steps), size)
    return [
        pack(
            key, Points(points.steps[at : at + size], points.timestamps[at : at + size], points.values[at : at + size])
        )
        for at in cuts
    ]
