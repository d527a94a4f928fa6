"""Commands without a server: they fail fast, with one line that says the way out."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rollforward.cli.app import run

# The first bytes of servers of other protocols, which then close the connection.
FOREIGN = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "tls": b"\x15\x03\x03\x00\x02\x02\x46",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "closed": b"",
}
# Longer than a test's timeout: a command that waits this long fails the test.
TIMEOUT = ("--timeout", "300")
COMMANDS = [
    ("runs", "list"),
    ("models", "create", "m"),
    ("aliases", "move", "m@a", "1"),
    ("watch",),
    ("runs", "watch", "--experiment", "e"),
    ("audit", "export"),
    ("rebuild", "registry"),
    ("download", "m@a"),
    ("artifacts", "gc"),
    ("status",),
]


@contextmanager
def foreign(greeting: bytes) -> Iterator[int]:
    """Serve another protocol than gRPC on a port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(64)
                    peer.sendall(greeting)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Reserve a port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def refusal(capsys: pytest.CaptureFixture[str], *tokens: str) -> str:
    """Run a command line that finds no server; return its message."""
    assert run([*tokens, *TIMEOUT, "-o", "json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    error = json.loads(captured.err)["error"]
    assert error["reason"] == "UNAVAILABLE"
    return str(error["message"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_fails_fast_if_nothing_listens(
    command: tuple[str, ...], closed_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(capsys, *command, "--server", f"127.0.0.1:{closed_port}")
    assert message.startswith(f"cannot connect to 127.0.0.1:{closed_port}: connection refused")
    assert "rollforward up" in message


def test_command_fails_fast_for_an_unknown_host(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "models", "list", "--server", "no-such-host.invalid:50051")
    assert message.startswith("cannot connect to no-such-host.invalid:50051: host not found")


@pytest.mark.parametrize("kind", FOREIGN)
def test_command_reports_a_server_of_another_protocol(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with foreign(FOREIGN[kind]) as port:
        message = refusal(capsys, "models", "list", "--server", f"127.0.0.1:{port}")
    assert message.startswith(f"cannot connect to 127.0.0.1:{port}: ")
