"""Requests of MLflow's REST API, sent over gRPC."""

from __future__ import annotations

import json
import os
import threading
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from rollforward import v1
from rollforward._transport.connection import Connection
from rollforward.errors import RollforwardError, Unavailable
from rollforward.mlflow.change_reason import REASON

SCHEME: Final = "rollforward"
_STORED: Final = "mlflow-artifacts:/"

_URIS: Final = frozenset({"artifact_location", "artifact_uri", "root_uri", "source"})
"""The fields that hold the URI of an artifact."""

_connections: dict[str, Connection] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    """Let a forked process connect by itself: a channel is its process's own."""
    global _lock  # noqa: PLW0603 - the parent may have held it
    _lock = threading.Lock()
    _connections.clear()


os.register_at_fork(after_in_child=_after_fork)


class Transport:
    """The requests of one server; all stores of a process share a connection.

    Args:
        uri: rollforward://HOST:PORT; what follows is ignored.

    Raises:
        MlflowException: INVALID_PARAMETER_VALUE for another URI.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme != SCHEME or not parts.netloc:
            message = f"invalid URI {uri!r}: expected {SCHEME}://HOST:PORT"
            raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        self._address = parts.netloc
        self._root = f"{SCHEME}://{parts.netloc}/"

    @property
    def connection(self) -> Connection:
        """The process's connection to the server.

        Raises:
            InvalidRequest: INVALID_ADDRESS.
        """
        with _lock:
            if self._address not in _connections:
                _connections[self._address] = Connection(self._address)
            return _connections[self._address]

    def send(self, method: str, path: str, fields: Any) -> Any:
        """Send a request, and return the fields of the JSON response.

        Args:
            method: GET, POST, PATCH or DELETE.
            path: The path.
            fields: The query of a GET, else the JSON body.

        Raises:
            RestException: The server refuses it.
            MlflowException: TEMPORARILY_UNAVAILABLE when it does not answer.
        """
        request = v1.CallMlflowRequest(method=method, path=path, reason=REASON.get())
        fields = _with_uris(fields or {}, self._root, _STORED)
        if method == "GET":
            request.query = urlencode(fields, doseq=True)
        else:
            request.body = json.dumps(fields).encode()
        try:
            status, body = self._answer(request)
        except Unavailable as error:
            raise MlflowException(str(error), error_code=TEMPORARILY_UNAVAILABLE) from error
        except RollforwardError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        answer = json.loads(body) if body else {}
        if status != 200:
            raise RestException(answer)
        return _with_uris(answer, _STORED, self._root)

    def _answer(self, request: v1.CallMlflowRequest) -> tuple[int, bytes]:
        connection = self.connection

        def attempt(seconds: float | None) -> tuple[int, bytes]:
            parts = list(connection.mlflow.CallMlflow(request, timeout=seconds, metadata=connection.metadata()))
            return (parts[0].status if parts else 0), b"".join(part.body for part in parts)

        return connection.retry(attempt)


def _with_uris(value: Any, old: str, new: str) -> Any:
    """Return fields with the beginning of the URIs of artifacts replaced."""
    match value:
        case dict():
            return {
                name: new + inner.removeprefix(old)
                if name in _URIS and isinstance(inner, str) and inner.startswith(old)
                else _with_uris(inner, old, new)
                for name, inner in value.items()
            }
        case list():
            return [_with_uris(inner, old, new) for inner in value]
        case _:
            return value
