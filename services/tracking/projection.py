"""The rows of tracking: experiments, runs, parameters, tags, artifacts, and metrics in packed chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

import numpy as np
import sqlalchemy as sa

from eventstore.event import RecordedEvent
from rollforward import v1
from services.series import Points, is_later, unpack
from services.times import nanoseconds
from services.tracking.decider import RunEvent

tables = sa.MetaData()

experiments = sa.Table(
    "experiments",
    tables,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
)

runs = sa.Table(
    "runs",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False, unique=True),
    sa.Column("experiment_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("start_time", sa.BigInteger, nullable=False),
    sa.Column("end_time", sa.BigInteger),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Index("runs_by_experiment", "experiment_id", "position"),
)


def _pairs(name: str) -> sa.Table:
    return sa.Table(
        name,
        tables,
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


params = _pairs("params")
tags = _pairs("tags")

artifacts = sa.Table(
    "artifacts",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("file_count", sa.Integer, nullable=False),
)

# NULL is NaN, which SQLite cannot hold.
metrics = sa.Table(
    "metrics",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("least", sa.Double),
    sa.Column("greatest", sa.Double),
    sa.Column("points", sa.BigInteger, nullable=False),
)

chunks = sa.Table(
    "metric_chunks",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("steps", sa.LargeBinary, nullable=False),
    sa.Column("timestamps", sa.LargeBinary, nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False),
)


class TrackingProjection:
    """Computes the rows of tracking."""

    name = "tracking"
    version = 1
    tables = tables

    def apply(self, rows: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Writes what events mean."""
        for event in events:
            self._write(rows, event)

    def _write(self, rows: sa.Connection, event: RecordedEvent) -> None:
        fact: RunEvent | v1.ExperimentCreated = event.data  # type: ignore[assignment]
        match fact:
            case v1.ExperimentCreated():
                _create_experiment(rows, event, fact)
            case v1.RunStarted():
                _start(rows, event, fact)
            case v1.RunLogged():
                _put(rows, params, fact.run_id, dict(fact.params))
                _put(rows, tags, fact.run_id, dict(fact.tags))
            case v1.MetricsLogged():
                _log_metrics(rows, event, fact)
            case v1.ArtifactLogged():
                _log_artifact(rows, fact)
            case v1.RunFinished():
                end_time = nanoseconds(fact.end_time) if fact.HasField("end_time") else event.time
                end = {"status": fact.status, "end_time": end_time}
                rows.execute(sa.update(runs).where(runs.c.run_id == fact.run_id).values(end))
            case _:
                assert_never(fact)


def _create_experiment(rows: sa.Connection, event: RecordedEvent, fact: v1.ExperimentCreated) -> None:
    row = {
        "number": int(fact.experiment_id),
        "name": fact.name,
        "tags": dict(sorted(fact.tags.items())),
        "created_at": event.time,
        "actor": event.metadata.actor,
    }
    rows.execute(sa.insert(experiments), row)


def _start(rows: sa.Connection, event: RecordedEvent, fact: v1.RunStarted) -> None:
    row = {
        "run_id": fact.run_id,
        "position": event.position,
        "experiment_id": fact.experiment_id,
        "name": fact.name,
        "status": v1.RUN_STATUS_RUNNING,
        "start_time": nanoseconds(fact.start_time) if fact.HasField("start_time") else event.time,
        "actor": event.metadata.actor,
    }
    rows.execute(sa.insert(runs), row)
    _put(rows, tags, fact.run_id, dict(fact.tags))


def _put(rows: sa.Connection, table: sa.Table, run_id: str, pairs: dict[str, str]) -> None:
    if pairs:
        rows.execute(sa.delete(table).where(table.c.run_id == run_id, table.c.key.in_(pairs)))
        rows.execute(sa.insert(table), [{"run_id": run_id, "key": key, "value": pairs[key]} for key in sorted(pairs)])


def _log_artifact(rows: sa.Connection, fact: v1.ArtifactLogged) -> None:
    row = {
        "run_id": fact.run_id,
        "path": fact.path,
        "digest": fact.digest,
        "size_bytes": fact.size_bytes,
        "file_count": fact.file_count,
    }
    rows.execute(sa.delete(artifacts).where(artifacts.c.run_id == fact.run_id, artifacts.c.path == fact.path))
    rows.execute(sa.insert(artifacts), row)


def _log_metrics(rows: sa.Connection, event: RecordedEvent, fact: v1.MetricsLogged) -> None:
    held = {row.key: row for row in rows.execute(sa.select(metrics).where(metrics.c.run_id == fact.run_id))}
    for number, series in enumerate(fact.series):
        chunk = {
            "run_id": fact.run_id,
            "key": series.key,
            "position": event.position,
            "number": number,
            "steps": series.steps,
            "timestamps": series.timestamps,
            "values": series.values,
        }
        rows.execute(sa.insert(chunks), chunk)
        summary = _summary(held.get(series.key), unpack(series))
        same = sa.and_(metrics.c.run_id == fact.run_id, metrics.c.key == series.key)
        rows.execute(sa.delete(metrics).where(same))
        rows.execute(sa.insert(metrics), {"run_id": fact.run_id, "key": series.key} | summary)
        held[series.key] = rows.execute(sa.select(metrics).where(same)).one()


def _summary(held: sa.Row[tuple[object, ...]] | None, points: Points) -> dict[str, float | int | None]:
    step, timestamp, value = points.latest()
    if held and not is_later((step, timestamp, value), (held.step, held.timestamp, number(held.value))):
        step, timestamp, value = held.step, held.timestamp, number(held.value)
    numbers = points.values[~np.isnan(points.values)]
    known = [held.least, held.greatest] if held and held.least is not None else []
    both = [*known, float(numbers.min()), float(numbers.max())] if numbers.size else known
    return {
        "step": step,
        "timestamp": timestamp,
        "value": None if math.isnan(value) else value,
        "least": min(both) if both else None,
        "greatest": max(both) if both else None,
        "points": (held.points if held else 0) + len(points.values),
    }


def number(value: float | None) -> float:
    """A value as its row holds it: NULL is NaN."""
    return float("nan") if value is None else value
