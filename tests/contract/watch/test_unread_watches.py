"""A watch that is not read ends after a timeout, with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rollforward import v1
from services.rpc import interceptor
from services.rpc.interceptor import Interceptor

STEP = v1.WatchAliasesResponse(
    changes=v1.AliasChanges(changes=[v1.AliasChange(reason="r" * 4_000) for _ in range(100)]), position=1
)


@asynccontextmanager
async def endless(closed: asyncio.Event) -> AsyncIterator[v1.RegistryServiceAsyncStub]:
    """Serve a registry whose watches never run out of steps."""

    async def steps(*_: object) -> AsyncIterator[v1.WatchAliasesResponse]:
        try:
            while True:
                yield STEP
        finally:
            closed.set()

    handler = grpc.unary_stream_rpc_method_handler(
        steps, v1.WatchAliasesRequest.FromString, v1.WatchAliasesResponse.SerializeToString
    )
    server = grpc.aio.server(interceptors=[Interceptor()])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("rollforward.v1.RegistryService", {"WatchAliases": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield v1.RegistryServiceStub(channel)
    finally:
        await server.stop(None)


async def test_watch_without_reader_ends_with_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "UNREAD_SECONDS", 0.2)
    closed = asyncio.Event()
    async with endless(closed) as registry, asyncio.timeout(60):
        call = registry.WatchAliases(v1.WatchAliasesRequest())
        await call.read()
        await closed.wait()  # the server has dropped the watch, although it was not read

        async def read_to_the_end() -> None:
            while await call.read() is not grpc.aio.EOF:
                continue

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_the_end()
    status, info = Status(), ErrorInfo()
    status.ParseFromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    assert status.details[0].Unpack(info)
    assert info.reason == "WATCHER_TOO_SLOW"


async def test_slow_watch_with_reader_continues() -> None:
    closed = asyncio.Event()
    async with endless(closed) as registry, asyncio.timeout(60):
        call = registry.WatchAliases(v1.WatchAliasesRequest())
        for _ in range(100):
            assert await call.read() == STEP
        assert not closed.is_set()
        call.cancel()
        await closed.wait()
