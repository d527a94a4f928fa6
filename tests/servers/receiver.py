"""A real HTTP endpoint for webhooks that records every request and responds as the test says."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from standardwebhooks.webhooks import Webhook

from tests.e2e.program import until
from tests.servers.ports import free_port
from tests.timeouts import scaled


@dataclass(frozen=True)
class Request:
    """A received request: when (monotonic seconds), and the response."""

    headers: Mapping[str, str]
    body: str
    time: float
    status: int

    @property
    def json(self) -> dict[str, Any]:
        """Return the decoded body."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def sequence(self) -> int:
        """Return the position of the change in the registry log."""
        return int(self.json["data"]["sequence"])

    @property
    def id(self) -> str:
        """Return the message id."""
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> None:
        """Verify that the request was signed with the secret, just now."""
        Webhook(secret).verify(self.body, dict(self.headers))


Answer = Callable[[Request, int], "int | tuple[int, Mapping[str, str]]"]
"""The status for a request, and further headers; the number counts requests with its id, from 1."""


def accept_all(_request: Request, _times: int) -> int:
    """Return 200 for every request."""
    return 204


class Receiver:
    """An endpoint whose address stays the same across stop and start."""

    def __init__(self, answer: Answer = accept_all) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def taken(self) -> list[Request]:
        """Return the acknowledged requests, in order."""
        with self._lock:
            return [request for request in self.requests if 200 <= request.status < 300]

    def start(self) -> None:
        """Start listening."""
        self._server = _server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name=f"receiver-{self.port}")
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; new connections are refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None

    def wait_for(self, count: int, seconds: float = scaled(30.0)) -> list[Request]:
        """Wait for a number of acknowledged requests; return them."""
        until(lambda: len(self.taken) >= count, f"{count} requests are taken", seconds)
        return self.taken

    def take(self, headers: Mapping[str, str], body: str) -> tuple[int, Mapping[str, str]]:
        """Record a request and return the response to it."""
        request = Request(headers, body, time.monotonic(), 0)
        with self._lock:
            times = 1 + sum(known.id == request.id for known in self.requests)
        answer = self.answer(request, times)
        status, more = answer if isinstance(answer, tuple) else (answer, {})
        with self._lock:
            self.requests.append(Request(headers, body, request.time, status))
        return status, more


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # The sender may have been killed meanwhile.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _server(receiver: Receiver) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def setup(self) -> None:
            super().setup()
            receiver.connections += 1

        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            raw = self.rfile.read(size)
            if len(raw) < size:  # the sender was killed
                self.close_connection = True
                return
            body = raw.decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more = receiver.take(headers, body)
            self.send_response(status)
            for name, value in {"content-length": "0", **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.close_connection = receiver._server is None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    server = _Server(("127.0.0.1", receiver.port), Handler, bind_and_activate=False)
    server.allow_reuse_address = True
    server.daemon_threads = True
    # A thread that waits for the next request on an open connection must not delay the stop.
    server.block_on_close = False
    server.server_bind()
    server.server_activate()
    return server
