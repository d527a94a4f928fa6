"""Three NATS servers that keep each log three times, and may be killed one by one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import nats.errors
from nats.aio.client import Client

from eventstore.jetstream import connect
from services.nats.errors import HOST
from services.nats.process import find_nats_server
from tests.histories.systems.processes import Process
from tests.servers.ports import free_port

SERVERS = 3
_READY_SECONDS = 30.0
_POLL = 0.05


class Cluster:
    """The servers, by number."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self._ports = [free_port() for _ in range(SERVERS)]
        routes = [f"nats://{HOST}:{free_port()}" for _ in range(SERVERS)]
        self.servers = [
            _server(home / f"nats-{number}", self._ports[number], routes, number) for number in range(SERVERS)
        ]
        for server in self.servers:
            stack.callback(server.kill)
            server.start()
        self.ready()

    @property
    def url(self) -> str:
        """Return the address of the first server."""
        return f"nats://{HOST}:{self._ports[0]}"

    def number(self, client: Client) -> int:
        """Return the number of the server that a client is connected to."""
        url = client.connected_url
        if url is None or url.port is None:
            raise RuntimeError("the client is not connected")
        return self._ports.index(url.port)

    def ready(self) -> None:
        """Return once the cluster can keep a log three times."""
        asyncio.run(_can_replicate(self.url))

    def leader(self, log: str) -> int:
        """Return the number of the server that leads a log."""
        return asyncio.run(_leader(self.url, log))

    def followers(self, log: str, dice: random.Random) -> Sequence[int]:
        """Return the numbers of the other servers, shuffled."""
        leader = self.leader(log)
        return dice.sample([number for number in range(SERVERS) if number != leader], SERVERS - 1)


def _server(home: Path, port: int, routes: Sequence[str], number: int) -> Process:
    home.mkdir()
    (home / "conf").write_text(
        f"""server_name: "{number}"
        listen: "{HOST}:{port}"
        cluster {{ name: histories, listen: "{routes[number].removeprefix("nats://")}", routes: {list(routes)} }}
        jetstream {{ store_dir: "{home}/store", sync_interval: always }}
        """
    )
    return Process([str(find_nats_server()), "-c", str(home / "conf")], home.with_suffix(".log"), "", {})


async def _can_replicate(url: str) -> None:
    client = await connect(url, timeout_seconds=_READY_SECONDS)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while not await _answers(client):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(_POLL)
    finally:
        await client.close()


async def _answers(client: Client) -> bool:
    try:
        await client.jetstream(timeout=1).add_stream(name="ready", num_replicas=SERVERS)
    except (nats.errors.Error, TimeoutError):
        return False
    return True


async def _leader(url: str, log: str) -> int:
    client = await connect(url, timeout_seconds=_READY_SECONDS)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            while True:
                try:
                    info = await client.jetstream(timeout=1).stream_info(f"rf-{log}")
                    if info.cluster is not None and info.cluster.leader:
                        return int(info.cluster.leader)
                except (nats.errors.Error, TimeoutError):
                    pass
                await asyncio.sleep(_POLL)
    finally:
        await client.close()
