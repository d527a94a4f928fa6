"""The routes of MLflow's REST API, and how a request becomes an answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import structlog
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from services.mlflow_rest.browsers import check_sender
from services.mlflow_rest.endpoints import (
    artifacts,
    experiments,
    logged_models,
    metrics,
    model_versions,
    registered_models,
    run_logging,
    runs,
)
from services.mlflow_rest.errors import MlflowError, error_of, invalid
from services.mlflow_rest.parameters import Parameters
from services.mlflow_rest.request import Answer, Front, Request
from services.operations.http_connections import REQUEST_SECONDS
from services.rpc.local import CallFailed, LocalCalls
from services.rpc.server import MESSAGE_BYTES

Transfer = Callable[[Request, HttpRequest], Awaitable[Response]]
"""Answers a request with a response of its own, such as a file."""

PREFIXES = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")

ENDPOINTS: Sequence[tuple[str, str, Answer]] = (
    ("POST", "experiments/create", experiments.create),
    ("GET", "experiments/get", experiments.get),
    ("GET", "experiments/get-by-name", experiments.get_by_name),
    ("GET POST", "experiments/search", experiments.search),
    ("POST", "experiments/update", experiments.update),
    ("POST", "experiments/delete", experiments.delete),
    ("POST", "experiments/restore", experiments.restore),
    ("POST", "experiments/set-experiment-tag", experiments.set_tag),
    ("POST", "experiments/delete-experiment-tag", experiments.delete_tag),
    ("POST", "runs/create", runs.create),
    ("GET", "runs/get", runs.get),
    ("POST", "runs/update", runs.update),
    ("POST", "runs/delete", runs.delete),
    ("POST", "runs/restore", runs.restore),
    ("POST", "runs/search", runs.search),
    ("POST", "runs/log-metric", run_logging.log_metric),
    ("POST", "runs/log-parameter", run_logging.log_parameter),
    ("POST", "runs/log-batch", run_logging.log_batch),
    ("POST", "runs/set-tag", run_logging.set_tag),
    ("POST", "runs/delete-tag", run_logging.delete_tag),
    ("POST", "runs/log-inputs", run_logging.log_inputs),
    ("POST", "runs/outputs", run_logging.log_outputs),
    ("GET", "metrics/get-history", metrics.history),
    ("GET", "metrics/get-history-bulk", metrics.history_bulk),
    ("GET", "metrics/get-history-bulk-interval", metrics.history_bulk_interval),
    ("POST", "logged-models", logged_models.create),
    ("POST", "logged-models/search", logged_models.search),
    ("GET", "logged-models/{model_id}", logged_models.get),
    ("PATCH", "logged-models/{model_id}", logged_models.finalize),
    ("DELETE", "logged-models/{model_id}", logged_models.delete),
    ("PATCH", "logged-models/{model_id}/tags", logged_models.set_tags),
    ("DELETE", "logged-models/{model_id}/tags/{key:path}", logged_models.delete_tag),
    ("POST", "logged-models/{model_id}/params", logged_models.log_params),
    ("GET", "logged-models/{model_id}/artifacts/directories", artifacts.list_of_model),
    ("GET", "artifacts/list", artifacts.list_of_run),
    ("POST", "registered-models/create", registered_models.create),
    ("GET", "registered-models/get", registered_models.get),
    ("GET", "registered-models/search", registered_models.search),
    ("POST", "registered-models/rename", registered_models.rename),
    ("PATCH", "registered-models/update", registered_models.update),
    ("DELETE", "registered-models/delete", registered_models.delete),
    ("POST", "registered-models/set-tag", registered_models.set_tag),
    ("DELETE", "registered-models/delete-tag", registered_models.delete_tag),
    ("GET POST", "registered-models/get-latest-versions", registered_models.latest_versions),
    ("POST", "registered-models/alias", registered_models.set_alias),
    ("GET", "registered-models/alias", registered_models.get_by_alias),
    ("DELETE", "registered-models/alias", registered_models.delete_alias),
    ("POST", "model-versions/create", model_versions.create),
    ("GET", "model-versions/get", model_versions.get),
    ("GET", "model-versions/search", model_versions.search),
    ("GET", "model-versions/get-download-uri", model_versions.download_uri),
    ("PATCH", "model-versions/update", model_versions.update),
    ("DELETE", "model-versions/delete", model_versions.delete),
    ("POST", "model-versions/set-tag", model_versions.set_tag),
    ("DELETE", "model-versions/delete-tag", model_versions.delete_tag),
    ("POST", "model-versions/transition-stage", model_versions.transition_stage),
)
"""Methods, path below a prefix, and what answers with JSON."""

FILES: Sequence[tuple[str, str, Transfer]] = (
    ("GET", "/api/2.0/mlflow-artifacts/artifacts/{path:path}", artifacts.download),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/{path:path}", artifacts.upload),
    ("GET", "/ajax-api/2.0/mlflow-artifacts/artifacts/{path:path}", artifacts.download),
    ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/{path:path}", artifacts.upload),
    ("GET", "/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files", artifacts.download_of_model),
    ("GET", "/get-artifact", artifacts.download_of_run),
    ("GET", "/model-versions/get-artifact", artifacts.download_of_version),
)
"""Methods, whole path, and what receives or sends a file."""

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_NEEDS_DEFAULT = ("experiments/", "runs/create", "runs/search")

_logger = structlog.get_logger(__name__)


class _Api:
    """The answers to all requests of a process."""

    def __init__(self, calls: LocalCalls, *, any_host: bool) -> None:
        self._front = Front(calls)
        self._any_host = any_host
        self._has_default = False
        self._creating = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        """Return the routes below every prefix."""
        transfers = [Route(path, self._guarded(transfer, ""), methods=[method]) for method, path, transfer in FILES]
        extensions = [
            Route("/api/2.0/mlflow-artifacts/link", self._guarded(_as_json(artifacts.link), ""), methods=["POST"]),
            Route("/api/2.0/mlflow-artifacts/files", self._guarded(_as_json(artifacts.files_at), "")),
        ]
        lists = [
            Route(f"/{api}/2.0/mlflow-artifacts/artifacts", self._guarded(_as_json(artifacts.list_at), ""))
            for api in ("api", "ajax-api")
        ]
        endpoints = [
            Route(f"{prefix}/{path}", self._guarded(_as_json(answer), path), methods=methods.split())
            for prefix in PREFIXES
            for methods, path, answer in ENDPOINTS
        ]
        others = [Route(f"/{api}/{{path:path}}", _unknown, methods=_METHODS) for api in ("api", "ajax-api")]
        return [*extensions, *lists, *transfers, *endpoints, *others]

    def _guarded(self, transfer: Transfer, path: str) -> Any:
        """Return an endpoint that answers errors in MLflow's form."""
        needs_default = path.startswith(_NEEDS_DEFAULT)

        async def respond(http: HttpRequest) -> Response:
            try:
                request = await self._read(http)
                if needs_default and not self._has_default:
                    await self._ensure_default()
                return await transfer(request, http)
            except CallFailed as failed:
                error = error_of(failed)
            except MlflowError as refused:
                error = refused
            except Exception:
                _logger.exception("MLflow request failed", path=http.url.path)
                error = MlflowError("INTERNAL_ERROR", "internal error; the server's log says more")
            return _json(error.body(), error.status)

        return respond

    async def _read(self, http: HttpRequest) -> Request:
        check_sender(http.headers, any_host=self._any_host)
        parameters = await parameters_of(http)
        path = {name: str(value) for name, value in http.path_params.items()}
        reason, revision = unquote(http.headers.get("rollforward-reason", "")), revision_of(http.headers)
        return Request(self._front, parameters, path, actor_of(http.headers), reason, revision)

    async def _ensure_default(self) -> None:
        async with self._creating:
            if not self._has_default:
                await experiments.ensure_default(Request(self._front, Parameters({}), {}, "mlflow"))
                self._has_default = True


def mlflow_routes(calls: LocalCalls, *, any_host: bool = False) -> list[BaseRoute]:
    """Return the routes of MLflow's REST API over the services of a process.

    Args:
        calls: The methods of the services.
        any_host: Whether the server may be called by any name; else by an IP address or localhost alone.
    """
    return _Api(calls, any_host=any_host).routes()


async def parameters_of(http: HttpRequest) -> Parameters:
    """Return the parameters of a request. Raises `MlflowError`."""
    if http.method in {"GET", "PUT"}:  # the body of a PUT is a file
        return Parameters.from_query(http.url.query)
    body = bytearray()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for chunk in http.stream():
                body += chunk
                if len(body) > MESSAGE_BYTES:
                    raise MlflowError("BAD_REQUEST", f"the body has more than {MESSAGE_BYTES} bytes")
    except TimeoutError as error:
        raise MlflowError("BAD_REQUEST", f"the body did not arrive within {REQUEST_SECONDS:g} s") from error
    return Parameters.from_body(bytes(body))


def actor_of(headers: Mapping[str, str]) -> str:
    """Return who makes a request: by our own header, or by the user name of basic authentication."""
    if actor := unquote(headers.get("rollforward-actor", "")):
        return actor
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def revision_of(headers: Mapping[str, str]) -> int | None:
    """Return the revision in an If-Match header, None without one. Raises `MlflowError` when it is none of ours."""
    if (tag := headers.get("if-match")) is None:
        return None
    text = tag.strip().strip('"')
    if not text.isascii() or not text.isdigit():
        raise invalid(f"invalid If-Match header {tag[:100]!r}: expected the revision of an alias")
    return int(text)


def _as_json(answer: Answer) -> Transfer:
    async def respond(request: Request, _: HttpRequest) -> Response:
        return _json(await answer(request), 200)

    return respond


async def _unknown(http: HttpRequest) -> Response:
    error = MlflowError("ENDPOINT_NOT_FOUND", f"{http.method} {http.url.path} is not supported")
    return _json(error.body(), error.status)


def _json(fields: Mapping[str, Any], status: int) -> Response:
    body = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body, status, media_type="application/json")
