"""Real nats-servers for tests: a shared one, and others for tests that kill theirs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import nats.errors
from nats.aio.client import Client

from eventstore.codec import EventTypes
from eventstore.jetstream import JetStreamStore, connect
from services.nats.errors import HOST
from services.nats.process import find_nats_server, leashed
from services.nats.server import EmbeddedNats, NatsAddress
from tests.servers.ports import free_port
from tests.timeouts import scaled


@contextmanager
def running_nats() -> Iterator[NatsAddress]:
    """Run a server on its own thread and event loop, so that tests with loops of their own can share it."""
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
                asyncio.run_coroutine_threadsafe(server.stop(), loop).result(scaled(30))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def running_cluster() -> Iterator[NatsAddress]:
    """Run three servers that keep a log with three replicas; yield the address of the second one."""
    with tempfile.TemporaryDirectory(prefix="nats-") as home, ExitStack() as stack:
        clients, routes = ([free_port() for _ in range(3)] for _ in range(2))
        others = [f"nats://{HOST}:{port}" for port in routes]
        for number, (client, route) in enumerate(zip(clients, routes, strict=True)):
            directory = Path(home, str(number))
            directory.mkdir()
            (directory / "conf").write_text(
                f'''server_name: "{number}"
                listen: "{HOST}:{client}"
                cluster {{ name: test, listen: "{HOST}:{route}", routes: {others} }}
                jetstream {{ store_dir: "{directory}/store", sync_interval: always }}
                '''
            )
            stack.enter_context(_member(directory))
        url = f"nats://{HOST}:{clients[1]}"
        with ThreadPoolExecutor(1) as thread:  # a test's own loop may be running on this one
            thread.submit(lambda: asyncio.run(_has_leader(url))).result()
        yield NatsAddress(url, "", "", "", "")


@contextmanager
def _member(directory: Path) -> Iterator[None]:
    command = leashed([str(find_nats_server()), "-c", str(directory / "conf")])
    with (directory / "log").open("wb") as log, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log) as process:
        try:
            yield
        finally:
            process.kill()


async def _has_leader(url: str) -> None:
    client = await connect(url, timeout_seconds=30)
    try:
        async with asyncio.timeout(scaled(30)):
            while not await _can_replicate(client):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.05)
    finally:
        await client.close()


async def _can_replicate(client: Client) -> bool:
    try:
        await client.jetstream(timeout=1).add_stream(name="ready", num_replicas=3)
    except (nats.errors.Error, TimeoutError):
        return False
    return True


@asynccontextmanager
async def open_log(
    address: NatsAddress, types: EventTypes, log: str | None = None, replicas: int = 1, *, erasable: bool = False
) -> AsyncIterator[JetStreamStore]:
    """Open a log on its own connection; a new one unless it is named."""
    client = await connect(address.url, address.user or None, address.password or None)
    try:
        store = JetStreamStore(client, log or f"log-{uuid.uuid4().hex}", types)
        await store.open(replicas=replicas, erasable=erasable)
        yield store
    finally:
        await client.close()


async def kill(server: EmbeddedNats) -> None:
    """Kill a server with SIGKILL; return when its supervisor has restarted it."""
    restarts, pid = server.restarts, server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.restarts > restarts and server.pid is not None)


async def until(condition: Callable[[], bool], seconds: float = scaled(20.0)) -> None:
    """Wait until a condition without an event becomes true; raise `TimeoutError` when it does not."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)
