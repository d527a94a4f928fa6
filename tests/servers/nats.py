"""Real nats-servers for tests: one for the whole run, others for the tests that kill theirs."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from eventstore.codec import EventTypes
from eventstore.jetstream import JetStreamStore, connect
from services.nats_server import EmbeddedNats, NatsAddress


@contextmanager
def running_nats() -> Iterator[NatsAddress]:
    """A server on a thread and an event loop of its own, so that tests with loops of theirs can share it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="nats-server")
    thread.start()
    try:
        with tempfile.TemporaryDirectory(prefix="nats-") as home:
            server = EmbeddedNats(Path(home))
            address = asyncio.run_coroutine_threadsafe(server.start(), loop).result()
            try:
                yield address
            finally:
                asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def open_log(address: NatsAddress, types: EventTypes, log: str | None = None) -> AsyncIterator[JetStreamStore]:
    """A log on a connection of its own; a new one unless it is named."""
    client = await connect(address.url, address.user, address.password)
    try:
        store = JetStreamStore(client, log or f"log-{uuid.uuid4().hex}", types)
        await store.open()
        yield store
    finally:
        await client.close()


async def kill(server: EmbeddedNats) -> None:
    """Kills a server as a crash would; returns once its supervisor has brought it back."""
    restarts, pid = server.restarts, server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.restarts > restarts and server.pid is not None)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns once a condition holds that no event tells of; raises `TimeoutError` when it does not."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)
