"""Play requests against a server, and write its answers in a form that two servers can agree on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from tests.mlflow_rest.steps.step import Step

_API = "/api/2.0/mlflow/"
_TIMES = {"creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp"}
_TIMES |= {"creation_timestamp_ms", "last_updated_timestamp_ms"}
_NAME = re.compile(r"\$(\w+)")


class Answer(NamedTuple):
    """A response: its status, and its body with names for what differs from one server to the next."""

    status: int
    body: Any


def play(url: str, steps: Iterable[Step]) -> list[Answer]:
    """Play requests in their order, and return the answers."""
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=120)
    kept: dict[str, str] = {}
    answers = []
    for step in steps:
        status, body = _send(connection, step, kept)
        for name, path in step.keep.items():
            if value := _at(body, path.split(".")):
                kept[name] = str(value)
        answers.append(Answer(status, _normal(body, kept, step.loose)))
    connection.close()
    return answers


def _send(connection: HTTPConnection, step: Step, kept: Mapping[str, str]) -> tuple[int, Any]:
    path = step.path if step.path.startswith("/") else _API + step.path
    path, fields = quote(_filled(path, kept)), _filled(step.fields, kept)
    body = fields if isinstance(fields, str) else json.dumps(fields)
    if step.method == "GET":
        path, body = path + (f"?{urlencode(fields, doseq=True)}" if fields else ""), ""
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(step.method, path, body.encode() or None, headers)
    response = connection.getresponse()
    data = response.read()
    try:
        return response.status, json.loads(data)
    except ValueError:
        return response.status, data.decode(errors="replace")


def _filled(value: Any, kept: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _NAME.sub(lambda name: kept.get(name[1], name[0]), value)
        case dict():
            return {key: _filled(inner, kept) for key, inner in value.items()}
        case list():
            return [_filled(inner, kept) for inner in value]
        case _:
            return value


def _at(body: Any, path: list[str]) -> Any:
    for name in path:
        body = body.get(name) if isinstance(body, dict) else None
    return body


def _normal(body: Any, kept: Mapping[str, str], loose: Iterable[str]) -> Any:
    if isinstance(body, dict):
        for path in loose:
            _loosen(body, path.split(".", 3))
    names = {value: f"${name}" for name, value in kept.items() if len(value) > 8}
    return _renamed(body, names, "")


def _loosen(body: Any, path: list[str]) -> None:
    name, *rest = path
    if isinstance(body, list):  # tags, by their keys
        for entry in body:
            if entry.get("key") == ".".join(path):
                entry["value"] = "ANY"
    elif rest and name in body:
        _loosen(body[name], [".".join(rest)] if name == "tags" else rest)
    elif name in body:
        body[name] = "ANY"


def _renamed(value: Any, names: Mapping[str, str], key: str) -> Any:
    match value:
        case dict():
            return {inner: _renamed(value[inner], names, inner) for inner in sorted(value)}
        case list():
            items = [_renamed(inner, names, key) for inner in value]
            has_keys = key in {"tags", "params", "metrics", "aliases", "dataset_inputs"}
            return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if has_keys else items
        case int() if key in _TIMES:
            return "TIME"
        case str():
            for known, name in names.items():
                value = value.replace(known, name)
            return value
        case _:
            return value
