"""Where our answers differ from those that MLflow's server gave, and why."""

from __future__ import annotations

import json
from typing import Any

from tests.mlflow_rest.steps.step import NO_RUN, Step

_LARGEST = 1.7976931348623157e308

_MALFORMED = (
    "MLflow reads a body that is no JSON object as an empty one, or answers 500; ours says what is wrong with it"
)
_IGNORED = "MLflow ignores what it does not understand; ours says so, because results would be others than asked for"
_SERVER_ERROR = "MLflow answers 500 for a fault of the caller"
_NOTHING = "MLflow finds nothing in what does not exist; ours says that it does not"
_NUMBER = "MLflow compares the status with a number, which no client knows"
_NO_JSON = "MLflow answers with a page; ours in the form of its errors"

EXPLAINED = {
    'POST experiments/update {"experiment_id": "$e0", "new_name": "second"}': "MLflow shows its database's error",
    'POST experiments/update {"experiment_id": "$e1", "new_name": "third"}': _SERVER_ERROR,
    'POST experiments/search {"max_results": 100, "filter": "AND"}': _IGNORED,
    'POST runs/update {"run_id": "$r2", "status": "EXPLODED"}': _IGNORED,
    'POST runs/search {"experiment_ids": ["$e2"], "filter": "metrics.acc = 0.5 AND"}': _IGNORED,
    """POST runs/search {"experiment_ids": ["$e2"], "filter": "params.model = 'tree' params.depth = '1'"}""": _IGNORED,
    'POST runs/search {"experiment_ids": ["$e2"], "run_view_type": "SOME"}': _IGNORED,
    'POST runs/search {"experiment_ids": ["99999"]}': _NOTHING,
    f'GET metrics/get-history {{"run_id": "{NO_RUN}", "metric_key": "loss"}}': _NOTHING,
    """POST logged-models/search {"experiment_ids": ["$e0"], "filter": "status = 'READY'"}""": _NUMBER,
    """POST logged-models/search {"experiment_ids": ["$e0"], "filter": "metrics.score > 'x'"}""": _SERVER_ERROR,
    'GET registered-models/search {"max_results": 0}': _IGNORED,
    'GET registered-models/search {"max_results": -1}': _IGNORED,
    'POST experiments/create "{"': _MALFORMED,
    'POST experiments/create "[]"': _MALFORMED,
    'POST experiments/create "7"': _MALFORMED,
    'POST experiments/create "\\"text\\""': _MALFORMED,
    'POST experiments/create "null"': _MALFORMED,
    'POST runs/search ""': "MLflow asks for a content type",
    'POST runs/search "{"': _MALFORMED,
    'POST runs/search "[]"': _MALFORMED,
    'POST runs/search "7"': _MALFORMED,
    'POST runs/search "\\"text\\""': _MALFORMED,
    'POST runs/search "null"': _MALFORMED,
    'POST registered-models/create "{"': _MALFORMED,
    'POST registered-models/create "[]"': _MALFORMED,
    'POST registered-models/create "7"': _MALFORMED,
    'POST registered-models/create "\\"text\\""': _MALFORMED,
    'POST registered-models/create "null"': _MALFORMED,
    "GET runs/nothing {}": _NO_JSON,
    "POST nothing/at-all {}": _NO_JSON,
    "GET experiments/create {}": _NO_JSON,
}
"""By request, why the answers differ; each of them still does."""


def named(step: Step) -> str:
    """Return a request as `EXPLAINED` names it."""
    return f"{step.method} {step.path} {json.dumps(step.fields, ensure_ascii=False)}"


def alike(status: int, body: Any) -> tuple[int, Any]:
    """Return an answer without what differs everywhere.

    The texts of errors are our own. MLflow keeps infinities as the largest number, and leaves aliases out where it
    lists several versions.
    """
    if status >= 400 and isinstance(body, dict):
        return status, body.get("error_code")
    return status, _alike(body, "")


def _alike(value: Any, key: str) -> Any:
    match value:
        case dict():
            return {name: _alike(inner, name) for name, inner in value.items() if not _is_listed_alias(key, name)}
        case list():
            return [_alike(inner, key) for inner in value]
        case "Infinity":
            return _LARGEST
        case _:
            return value


def _is_listed_alias(key: str, name: str) -> bool:
    return name == "aliases" and key in {"model_versions", "latest_versions"}
