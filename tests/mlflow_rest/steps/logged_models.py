"""Requests about logged models."""

from __future__ import annotations

from collections.abc import Iterator

from tests.mlflow_rest.steps.step import LOGGED, NO_MODEL, RUNS, START, Step, get, pairs, patch, post


def logged_models() -> Iterator[Step]:
    yield post(
        LOGGED,
        {"m0": "model.info.model_id"},
        experiment_id="$e0",
        name="model",
        model_type="tree",
        source_run_id="$r1",
        params=pairs(depth="7"),
        tags=pairs(team="a"),
    )
    yield post(LOGGED, {"m1": "model.info.model_id"}, experiment_id="$e0", name="other")
    yield post(LOGGED, experiment_id="99999", name="model")
    yield post(LOGGED, name="model")
    yield post(LOGGED, experiment_id="$e0", name="bad/name")
    yield get(f"{LOGGED}/$m0")
    yield get(f"{LOGGED}/{NO_MODEL}")
    yield post(f"{RUNS}/outputs", run_id="$r1", models=[{"model_id": "$m0", "step": 3}])
    yield get(f"{RUNS}/get", run_id="$r1")
    yield post(
        f"{RUNS}/log-metric",
        run_id="$r1",
        key="score",
        value=0.75,
        timestamp=START + 50,
        step=1,
        model_id="$m0",
        dataset_name="d",
        dataset_digest="abc",
    )
    yield get(f"{LOGGED}/$m0")
    yield patch(f"{LOGGED}/$m0/tags", tags=pairs(team="b", more="c"))
    yield Step("DELETE", f"{LOGGED}/$m0/tags/more")
    yield Step("DELETE", f"{LOGGED}/$m0/tags/more")
    yield post(f"{LOGGED}/$m0/params", model_id="$m0", params=pairs(leaf="3"))
    yield patch(f"{LOGGED}/$m0", model_id="$m0", status="LOGGED_MODEL_READY")
    yield patch(f"{LOGGED}/{NO_MODEL}", model_id=NO_MODEL, status="LOGGED_MODEL_READY")
    yield patch(f"{LOGGED}/$m1", model_id="$m1", status="LOGGED_MODEL_UPLOAD_FAILED")
    yield get(f"{LOGGED}/$m0")
    yield get(f"{LOGGED}/$m1")
    for wanted in (
        "",
        "name = 'model'",
        "params.depth = '7'",
        "tags.team = 'b'",
        "metrics.score > 0.5",
        "metrics.score > 0.9",
        "source_run_id = '$r1'",
        "status = 'READY'",
    ):
        yield post(f"{LOGGED}/search", experiment_ids=["$e0"], filter=wanted)
    for bad in ("name > 'x'", "nothing = 'x'", "metrics.score > 'x'"):
        yield post(f"{LOGGED}/search", experiment_ids=["$e0"], filter=bad)
    yield post(
        f"{LOGGED}/search", experiment_ids=["$e0"], order_by=[{"field_name": "creation_timestamp", "ascending": True}]
    )
    yield post(f"{LOGGED}/search", experiment_ids=["$e0"], order_by=[{"field_name": "name", "ascending": False}])
    yield Step("DELETE", f"{LOGGED}/$m1")
    yield get(f"{LOGGED}/$m1")
    yield Step("DELETE", f"{LOGGED}/{NO_MODEL}")
