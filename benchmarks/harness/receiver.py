"""A local receiver of webhooks that records requests, answers as configured, and can be down."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Delivery:
    """A received request, when (time.perf_counter), and its response."""

    time: float
    path: str
    body: Any
    status: int


Answer = Callable[[str, Any], int]
"""The HTTP status for a request with this path and body."""


def accept(path: str, body: Any) -> int:
    """Return 200 for every request."""
    del path, body
    return HTTPStatus.NO_CONTENT


class Receiver:
    """A receiver on its own port that listens inside `with`, except between `down` and `up`."""

    def __init__(self, answer: Answer = accept) -> None:
        self._answer = answer
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []
        self._server: _Server | None = None
        self.port = 0

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def url(self) -> str:
        """Return the URL of the receiver."""
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        """Start listening, on the same port every time."""
        self._server = _Server(("127.0.0.1", self.port), self._take)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Close the port and cut open connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
            self._server = None

    def accepted(self) -> list[Delivery]:
        """Return the accepted deliveries so far, in order of arrival."""
        with self._changed:
            return [one for one in self._deliveries if one.status < HTTPStatus.BAD_REQUEST]

    def refused(self) -> int:
        """Return the number of requests answered with an error."""
        with self._changed:
            return sum(one.status >= HTTPStatus.BAD_REQUEST for one in self._deliveries)

    def wait_for(self, count: int, seconds: float) -> bool:
        """Wait until so many requests were taken; False when the time is up."""

        def enough() -> bool:
            return sum(one.status < HTTPStatus.BAD_REQUEST for one in self._deliveries) >= count

        with self._changed:
            return self._changed.wait_for(enough, seconds)

    def clear(self) -> None:
        """Remove all recorded requests."""
        with self._changed:
            self._deliveries.clear()

    def _take(self, path: str, content: bytes, arrived: float) -> int:
        body = json.loads(content)
        with self._changed:
            status = self._answer(path, body)
            self._deliveries.append(Delivery(arrived, path, body, status))
            self._changed.notify_all()
        return status


class _Server(ThreadingHTTPServer):
    """A server that knows its connections, to cut them."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], take: Callable[[str, bytes, float], int]) -> None:
        super().__init__(address, _Handler)
        self.take = take
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End every connection."""
        for connection in list(self._open):
            with connection:
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        """Take the request in."""
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status = self.server.take(self.path, content, time.perf_counter())
        self.send_response_only(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""
