"""Runs written straight to the tables of MLflow's database, for its server to search."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import sqlalchemy as sa

from benchmarks.harness.contract import Labels

EXPERIMENT = "0"
_AT_ONCE = 500


def write_runs(database: str, numbers: range, labels: Labels) -> None:
    """Write runs with the labels that `labels` returns for each number, as the server itself would."""
    engine = sa.create_engine(database.replace("postgresql+psycopg2:", "postgresql+psycopg:"))
    found = sa.MetaData()
    found.reflect(engine, only=["runs", "metrics", "latest_metrics", "params", "tags"])
    for start in range(0, len(numbers), _AT_ONCE):
        rows: dict[str, list[dict[str, object]]] = {}
        for number in numbers[start : start + _AT_ONCE]:
            for table, row in _rows(number, labels):
                rows.setdefault(table, []).append(row)
        with engine.begin() as connection:
            for table, some in rows.items():
                connection.execute(sa.insert(found.tables[table]), some)
    engine.dispose()


def _rows(number: int, labels: Labels) -> list[tuple[str, dict[str, object]]]:
    metrics, params, tags = labels(number)
    run_id = uuid.uuid4().hex
    run = {
        "run_uuid": run_id,
        "name": f"run {number}",
        "source_type": "LOCAL",
        "source_name": "",
        "entry_point_name": "",
        "user_id": "bench",
        "status": "FINISHED",
        "start_time": number,
        "end_time": number,
        "lifecycle_stage": "active",
        "experiment_id": int(EXPERIMENT),
        "artifact_uri": f"mlflow-artifacts:/0/{run_id}/artifacts",
    }
    point = {"run_uuid": run_id, "timestamp": 0, "step": 0, "is_nan": False}
    return [
        ("runs", run),
        *(("metrics", {**point, "key": key, "value": value}) for key, value in metrics.items()),
        *(("latest_metrics", {**point, "key": key, "value": value}) for key, value in metrics.items()),
        *(("params", pair) for pair in _pairs(run_id, params)),
        *(("tags", pair) for pair in _pairs(run_id, {**tags, "mlflow.runName": f"run {number}"})),
    ]


def _pairs(run_id: str, labels: Mapping[str, str]) -> list[dict[str, object]]:
    return [{"run_uuid": run_id, "key": key, "value": value} for key, value in labels.items()]
