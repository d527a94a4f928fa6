"""Requests that lack parameters, or have others than they may."""

from __future__ import annotations

from collections.abc import Iterator

from tests.mlflow_rest.steps.step import EXPERIMENTS, METRICS, MODELS, RUNS, VERSIONS, Step, get, post

REQUIRED = {
    f"POST {EXPERIMENTS}/create": "name",
    f"GET {EXPERIMENTS}/get": "experiment_id",
    f"GET {EXPERIMENTS}/get-by-name": "experiment_name",
    f"POST {EXPERIMENTS}/update": "experiment_id",
    f"POST {EXPERIMENTS}/delete": "experiment_id",
    f"POST {EXPERIMENTS}/restore": "experiment_id",
    f"POST {EXPERIMENTS}/set-experiment-tag": "experiment_id key",
    f"POST {EXPERIMENTS}/delete-experiment-tag": "experiment_id key",
    f"GET {RUNS}/get": "run_id",
    f"POST {RUNS}/delete": "run_id",
    f"POST {RUNS}/restore": "run_id",
    f"POST {RUNS}/update": "run_id",
    f"POST {RUNS}/log-metric": "run_id key",
    f"POST {RUNS}/log-parameter": "run_id key",
    f"POST {RUNS}/log-batch": "run_id",
    f"POST {RUNS}/set-tag": "run_id key",
    f"POST {RUNS}/delete-tag": "run_id key",
    f"POST {RUNS}/log-inputs": "run_id",
    f"GET {METRICS}/get-history": "run_id metric_key",
    f"GET {MODELS}/get": "name",
    f"POST {MODELS}/create": "name",
    f"POST {MODELS}/rename": "name",
    f"PATCH {MODELS}/update": "name",
    f"DELETE {MODELS}/delete": "name",
    f"POST {MODELS}/set-tag": "name key",
    f"DELETE {MODELS}/delete-tag": "name key",
    f"POST {MODELS}/alias": "name alias version",
    f"GET {MODELS}/alias": "name alias",
    f"DELETE {MODELS}/alias": "name alias",
    f"POST {MODELS}/get-latest-versions": "name",
    f"POST {VERSIONS}/create": "name source",
    f"GET {VERSIONS}/get": "name version",
    f"PATCH {VERSIONS}/update": "name version",
    f"DELETE {VERSIONS}/delete": "name version",
    f"POST {VERSIONS}/set-tag": "name version key",
    f"DELETE {VERSIONS}/delete-tag": "name version key",
    f"GET {VERSIONS}/get-download-uri": "name version",
}
"""The required parameters of requests: each is left out, sent as null, as a number and as a list."""

_RIGHT = {
    "experiment_id": "$e0",
    "run_id": "$r0",
    "name": "plain",
    "version": "2",
    "key": "k",
    "alias": "a",
    "source": "s3://b",
}


def malformed() -> Iterator[Step]:
    for request, names in REQUIRED.items():
        method, path = request.split()
        for name in names.split():
            others = {other: _RIGHT.get(other, "x") for other in names.split() if other != name}
            yield Step(method, path, others)
            if method != "GET":
                yield Step(method, path, {**others, name: None})
                yield Step(method, path, {**others, name: 7.5})
                yield Step(method, path, {**others, name: ["x"]})
                yield Step(method, path, {**others, name: {"x": "y"}})
    for path in (f"{EXPERIMENTS}/create", f"{RUNS}/search", f"{MODELS}/create"):
        for body in ("", "{", "[]", "7", '"text"', "null"):
            yield Step("POST", path, body)
    yield get(f"{RUNS}/nothing")
    yield post("nothing/at-all")
    yield get(f"{EXPERIMENTS}/create")
