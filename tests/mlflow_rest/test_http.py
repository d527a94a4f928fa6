"""What the HTTP side of MLflow's API does with requests that it should not answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from services.nats.server import NatsAddress
from tests.e2e.processes import ROLLFORWARD
from tests.e2e.program import Program
from tests.integration.up import Up, up
from tests.timeouts import scaled

GET = "/api/2.0/mlflow/experiments/get?experiment_id=0"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("mlflow") / "data") as services:
        yield services
        assert "Traceback" not in services.program.errors


def ask(url: str, path: str, headers: dict[str, str], body: str | None = None) -> tuple[int, Any]:
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=scaled(60))
    connection.request("POST" if body else "GET", path, body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Host": "elsewhere.example"},
        {"Host": "elsewhere.example:5000", "Origin": "http://elsewhere.example:5000"},
        {"Host": "localhost.elsewhere.example"},
    ],
    ids=["page of another host", "page without a host", "page of another port", "host", "host and page", "suffix"],
)
@pytest.mark.parametrize("body", [None, "{}"], ids=["read", "write"])
def test_request_of_a_foreign_page_is_refused(services: Up, headers: dict[str, str], body: str | None) -> None:
    path = GET if body is None else "/api/2.0/mlflow/experiments/create"
    status, answer = ask(services.http, path, headers, body)
    assert (status, answer["error_code"]) == (403, "PERMISSION_DENIED")


def test_request_of_an_own_page_is_answered(services: Up) -> None:
    port = urlsplit(services.http).port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"console.localhost:{port}", f"[::1]:{port}"):
        assert ask(services.http, GET, {"Host": host})[0] == 200
        assert ask(services.http, GET, {"Host": host, "Origin": f"http://{host}"})[0] == 200


@pytest.mark.busy
def test_body_that_does_not_arrive_is_given_up(services: Up) -> None:
    address = urlsplit(services.http)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=scaled(60)) as connection:
        head = "POST /api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n{"
        connection.sendall(head.encode())
        assert b"400" in connection.recv(4096).split(b"\r\n")[0]


def test_request_for_a_service_of_another_process_is_not_implemented(tmp_path: Path, nats_address: NatsAddress) -> None:
    command = [ROLLFORWARD, "start", "tracking", "--nats", nats_address.url, "--grpc", "127.0.0.1:0"]
    command += ["--http", "127.0.0.1:0", "--data", str(tmp_path / "data")]
    environment = {"ROLLFORWARD_NATS_USER": nats_address.user, "ROLLFORWARD_NATS_PASSWORD": nats_address.password}
    program = Program(command, tmp_path / "log", environment)
    try:
        url = program.line(" listens on ")[1].split()[-1]
        assert ask(url, GET, {})[0] == 200
        status, answer = ask(url, "/api/2.0/mlflow/registered-models/get?name=m", {})
        assert (status, answer["error_code"]) == (501, "NOT_IMPLEMENTED")
    finally:
        program.terminate()
