"""The NATS server whose logs are backed up: an outside one, the built-in one that runs, or one started for this."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from eventstore import StoreUnavailable, error_text
from eventstore.jetstream import connect
from eventstore.jetstream.archive import NatsClient
from services.nats.server import DataDirectoryInUse, EmbeddedNats
from services.settings import Settings

_USER = re.compile(r'authorization \{ users: \[\{ user: "([^"]*)", password: "([^"]*)" \}\] \}')


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[NatsClient]:
    """Connect to the NATS server that the settings name, started for this if it is built in and does not run.

    Raises:
        StoreUnavailable: It does not answer.
        DataDirectoryError, NatsServerError: It cannot be started.
    """
    if settings.nats:
        async with connection(settings.nats, settings.nats_user, settings.nats_password) as client:
            yield client
        return
    try:
        async with started(settings.data / "nats") as client:
            yield client
    except DataDirectoryInUse:
        async with connection(*_running(settings.data / "nats")) as client:
            yield client


@asynccontextmanager
async def started(directory: Path) -> AsyncIterator[NatsClient]:
    """Start the built-in server over a directory and connect to it; it ends with the block."""
    async with EmbeddedNats(directory) as nats:
        address = nats.address
        async with connection(address.url, address.user, address.password) as client:
            yield client


@asynccontextmanager
async def connection(url: str, user: str, password: str) -> AsyncIterator[NatsClient]:
    """Connect to a server for as long as the block lasts."""
    client = await connect(url, user or None, password or None)
    try:
        yield client
    finally:
        await client.close()


def _running(directory: Path) -> tuple[str, str, str]:
    """Return where the server over a directory listens, and its credentials, which its owner alone can read."""
    try:
        user = _USER.search((directory / "nats-server.conf").read_text())
        ports = [json.loads(path.read_text())["nats"][0] for path in directory.glob("*.ports")]
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise StoreUnavailable(
            f"cannot find the address of the NATS server in {directory}: {error_text(error)}"
        ) from error
    if not (user and ports):
        raise StoreUnavailable(f"cannot find the address of the NATS server in {directory}. Is it starting? Retry")
    return ports[0], user[1], user[2]
