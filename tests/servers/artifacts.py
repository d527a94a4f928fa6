"""A real artifact service over a store, on a free port and its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc.aio

from rollforward import v1
from services.artifacts.garbage_collection import Collector
from services.artifacts.servicer import ArtifactServicer
from services.artifacts.store import BlobStore
from services.rpc.interceptor import Interceptor
from tests.timeouts import scaled


async def nothing() -> set[str]:
    """Return no digests."""
    return set()


@contextmanager
def serving_artifacts(store: BlobStore, *interceptors: grpc.aio.ServerInterceptor) -> Iterator[str]:
    """Serve artifacts; yield the address."""
    ports: list[int] = []
    ready, ending = threading.Event(), threading.Event()

    async def work() -> None:
        server = grpc.aio.server(interceptors=[*interceptors, Interceptor()])
        v1.add_ArtifactServiceServicer_to_server(ArtifactServicer(store, Collector(store, nothing)), server)
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        ready.set()
        await asyncio.to_thread(ending.wait)
        await server.stop(None)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    assert ready.wait(scaled(20))
    try:
        yield f"127.0.0.1:{ports[0]}"
    finally:
        ending.set()
        thread.join()
