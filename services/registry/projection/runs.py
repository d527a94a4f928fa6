"""What the registry knows of runs, from the tracking log: gates' evidence and versions' artifacts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import Kind, RecordedEvent, Rejected, position_of
from rollforward import v1
from services.series.latest import Latest, number
from services.sql.write_buffer import Pending

_CHUNK = 500

tables = sa.MetaData()

runs = sa.Table("runs", tables, sa.Column("run_id", sa.Text, primary_key=True))

params = sa.Table(
    "run_params",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

metrics = sa.Table(
    "run_metrics",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double),  # NULL is NaN, which SQLite cannot hold
)

artifacts = sa.Table(
    "run_artifacts",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
)


class RunsProjection:
    """Keeps the latest metrics, the parameters and the artifacts of every run."""

    name = "registry-runs"
    version = 2
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Write what events of the tracking log mean to the registry."""
        pending, latest = Pending(), Latest()
        for event in events:
            _add(pending, latest, event.data)
        pending.write(connection)
        latest.write(connection, metrics)


def _add(pending: Pending, latest: Latest, payload: Message) -> None:
    match payload:
        case v1.MetricsLogged():
            for series in payload.series:
                latest.add((payload.run_id, series.key), series)
        case v1.RunStarted():
            pending.put(runs, (payload.run_id,), {})
        case v1.RunLogged():
            for key, text in payload.params.items():
                pending.put(params, (payload.run_id, key), {"value": text})
        case v1.ArtifactLogged():
            pending.put(artifacts, (payload.run_id, payload.path), {"digest": payload.digest})
        case _:
            pass


def evidence(connection: sa.Connection, run_id: str) -> tuple[v1.GateRun, int]:
    """Return a run as a gate sees it, and the tracking position that this holds at. Raises `Rejected` RUN_NOT_FOUND."""
    _check_run(connection, run_id)
    known, position = known_runs(connection, [run_id])
    return known[run_id], position


def known_runs(connection: sa.Connection, run_ids: Sequence[str]) -> tuple[dict[str, v1.GateRun], int]:
    """Return runs as a gate sees them, by id, without unknown ones, and the tracking position of the result."""
    known: dict[str, v1.GateRun] = {}
    for start in range(0, len(run_ids), _CHUNK):
        chunk = run_ids[start : start + _CHUNK]
        known |= {run_id: v1.GateRun(run_id=run_id) for run_id in connection.scalars(_of(runs, chunk))}
        for row in connection.execute(_of(metrics, chunk)):
            known[row.run_id].metrics[row.key] = number(row.value)
        for row in connection.execute(_of(params, chunk)):
            known[row.run_id].params[row.key] = row.value
    return known, position_of(connection)


def _of(table: sa.Table, run_ids: Sequence[str]) -> sa.Select[Any]:
    return sa.select(table).where(table.c.run_id.in_(run_ids))


def artifacts_of(connection: sa.Connection, run_id: str) -> dict[str, str]:
    """Return the digests of a run's artifacts, by path. Raises `Rejected` RUN_NOT_FOUND."""
    _check_run(connection, run_id)
    rows = connection.execute(sa.select(artifacts.c.path, artifacts.c.digest).where(artifacts.c.run_id == run_id))
    return {row.path: row.digest for row in rows}


def no_artifact(run_id: str, path: str, known: Collection[str]) -> Rejected:
    """Return the refusal of a path at which a run has nothing."""
    shown = ", ".join(repr(name) for name in sorted(known)[:20]) or "none"
    message = f"run {run_id} has no artifact at {path!r}. Its artifacts: {shown}"
    return Rejected(Kind.NOT_FOUND, "ARTIFACT_NOT_FOUND", message, run_id=run_id, path=path)


def _check_run(connection: sa.Connection, run_id: str) -> None:
    if connection.scalar(sa.select(runs.c.run_id).where(runs.c.run_id == run_id)) is None:
        raise Rejected(Kind.NOT_FOUND, "RUN_NOT_FOUND", f"no run has the id {run_id!r}", run_id=run_id)
