"""A gRPC service that appends what it receives to a log, durably, without rules, rows or duplicate detection.

What a service in Python over gRPC and JetStream cannot be quicker than, on the libraries that rollforward uses. Run as
a program it serves itself, over the directory that it is given.
"""

from __future__ import annotations

import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import uvloop

from benchmarks.harness.contract import Endpoint
from benchmarks.systems.bare_log import BareLog, moved, opened
from benchmarks.systems.points import packed
from benchmarks.systems.processes import program
from rollforward import v1
from services.nats.server import EmbeddedNats


class BareServiceClient:
    """A client of the bare service, with the stubs that the SDK uses."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._channel = grpc.insecure_channel(endpoint.address, options=[("grpc.enable_http_proxy", 0)])
        self._tracking, self._registry = v1.TrackingServiceStub(self._channel), v1.RegistryServiceStub(self._channel)
        self._run = uuid.uuid4().hex

    def prepare(self, model: str, versions: int) -> None:
        """Do nothing."""

    def move(self, model: str, alias: str, version: int) -> None:
        """Append one event."""
        self._registry.MoveAlias(v1.MoveAliasRequest(model=model, alias=alias, version=version))

    def log(self, points: int) -> None:
        """Append one event with the points."""
        self._tracking.LogBatch(v1.LogBatchRequest(run_id=self._run, series=[packed(points)]))

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()


@contextmanager
def running(data: Path | None = None) -> Iterator[Endpoint]:
    """Run the service without data."""
    del data
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.systems.bare", folder]
        with program(command) as (said, pid):
            yield Endpoint("bare", said, pids=(pid,))


class _Service:
    def __init__(self, log: BareLog) -> None:
        self._log = log

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Return the service's methods, under the names that rollforward's services have."""
        log = grpc.unary_unary_rpc_method_handler(
            self._log_batch, v1.LogBatchRequest.FromString, v1.LogBatchResponse.SerializeToString
        )
        move = grpc.unary_unary_rpc_method_handler(
            self._move_alias, v1.MoveAliasRequest.FromString, v1.MoveAliasResponse.SerializeToString
        )
        return [
            grpc.method_handlers_generic_handler("rollforward.v1.TrackingService", {"LogBatch": log}),
            grpc.method_handlers_generic_handler("rollforward.v1.RegistryService", {"MoveAlias": move}),
        ]

    async def _log_batch(self, request: v1.LogBatchRequest, _: Any) -> v1.LogBatchResponse:
        logged = v1.MetricsLogged(run_id=request.run_id, series=request.series)
        return v1.LogBatchResponse(position=await self._log.append(f"metrics/{request.run_id}", logged))

    async def _move_alias(self, request: v1.MoveAliasRequest, _: Any) -> v1.MoveAliasResponse:
        event = moved(request.model, request.alias, request.version)
        return v1.MoveAliasResponse(position=await self._log.append(f"model/{request.model}", event))


async def _serve(folder: Path) -> None:
    async with EmbeddedNats(folder) as nats:
        log = await opened(nats.address.url, nats.address.user, nats.address.password)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(_Service(log).handlers())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(f"127.0.0.1:{port}", flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
