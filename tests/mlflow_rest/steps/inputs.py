"""Datasets of runs."""

from __future__ import annotations

from collections.abc import Iterator

from tests.mlflow_rest.steps.step import NO_RUN, RUNS, Step, get, post


def inputs() -> Iterator[Step]:
    dataset = {
        "name": "d",
        "digest": "abc",
        "source_type": "local",
        "source": "{}",
        "schema": '{"a": 1}',
        "profile": "{}",
    }
    yield post(
        f"{RUNS}/log-inputs",
        run_id="$r1",
        datasets=[{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "training"}]}],
    )
    yield post(f"{RUNS}/log-inputs", run_id="$r1", datasets=[{"dataset": {**dataset, "name": "bare"}}])
    yield get(f"{RUNS}/get", run_id="$r1")
    yield post(f"{RUNS}/log-inputs", run_id="$r1", datasets=[])
    yield post(f"{RUNS}/log-inputs", run_id="$r1", datasets="d")
    yield post(f"{RUNS}/log-inputs", run_id=NO_RUN, datasets=[{"dataset": dataset}])
    yield post(f"{RUNS}/search", experiment_ids=["$e0"], filter="datasets.name = 'd'")
    yield post(
        f"{RUNS}/search", experiment_ids=["$e0"], filter="datasets.digest LIKE 'a%' AND dataset.context = 'training'"
    )
