"""Fixtures for tests of the client: real gRPC servers in this process, and clients of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from rollforward import Client
from services.artifacts.directory_store import LocalBlobs
from services.artifacts.open_store import open_directory
from tests.servers.artifacts import serving_artifacts
from tests.timeouts import scaled

Serve = Callable[..., Client]


class Service:
    """A service whose methods are unimplemented unless a subclass defines them."""

    def __getattr__(self, name: str) -> Callable[[object, grpc.ServicerContext], object]:
        def refuse(_request: object, context: grpc.ServicerContext) -> object:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, name)

        return refuse


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return serve(servicer, add, timeout=...), which serves on a free port and returns a client."""
    servers: list[grpc.Server] = []
    connections: list[Client] = []

    def start(servicer: object, add: Callable[[Any, grpc.Server], None], timeout: float = scaled(20.0)) -> Client:
        server = grpc.server(ThreadPoolExecutor(4))
        add(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        connections.append(Client(f"127.0.0.1:{port}", actor="Zoë", timeout=timeout))
        return connections[-1]

    yield start
    for client in connections:
        client.close()
    for server in servers:
        server.stop(None).wait()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return open_directory(tmp_path / "blobs")


@pytest.fixture
def artifacts(blobs: LocalBlobs) -> Iterator[Client]:
    """Return a client of the real artifact service, which stores blobs in a directory."""
    with serving_artifacts(blobs) as address, Client(address, timeout=scaled(20.0)) as client:
        yield client
