"""A request of MLflow's REST API, and what requests are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

EXPERIMENTS, RUNS, METRICS, LOGGED, ARTIFACTS, MODELS, VERSIONS = (
    "experiments",
    "runs",
    "metrics",
    "logged-models",
    "artifacts",
    "registered-models",
    "model-versions",
)
NO_RUN, NO_MODEL = "0" * 32, f"m-{'0' * 32}"
START = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """A request.

    Attributes:
        method: GET, POST, PATCH, DELETE or PUT.
        path: Below ``/api/2.0/mlflow/``, or from the root when it begins with a slash. ``$name`` stands for what an
            earlier response held, as in the values of `fields`.
        fields: The query of a GET, else the JSON body; a text is sent as it is.
        keep: What the response's values are called from then on, by the path to each of them.
        loose: Dotted paths in the response that need not agree, such as generated names.
    """

    method: str
    path: str
    fields: Mapping[str, Any] | str = field(default_factory=dict)
    keep: Mapping[str, str] = field(default_factory=dict)
    loose: Sequence[str] = ()


def get(path: str, /, keep: Mapping[str, str] | None = None, loose: Sequence[str] = (), **fields: Any) -> Step:
    return Step("GET", path, fields, keep or {}, loose)


def post(path: str, /, keep: Mapping[str, str] | None = None, loose: Sequence[str] = (), **fields: Any) -> Step:
    return Step("POST", path, fields, keep or {}, loose)


def patch(path: str, /, **fields: Any) -> Step:
    return Step("PATCH", path, fields)


def delete(path: str, /, **fields: Any) -> Step:
    return Step("DELETE", path, fields)


def pairs(**values: str) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]
