"""The connection to NATS, and which servers are refused."""

from __future__ import annotations

import nats
import nats.errors
import structlog
from nats.aio.client import Client as NatsClient

from eventstore.errors import StoreUnavailable, UnsafeStore
from eventstore.event import MAX_MESSAGE_BYTES

OLDEST_SERVER = (2, 12)

_logger = structlog.get_logger(__name__)


async def connect(url: str, user: str | None = None, password: str | None = None) -> NatsClient:
    """A connection that reconnects for as long as it lives.

    Raises:
        StoreUnavailable: No server answers at `url`, or it refuses the credentials.
        UnsafeStore: The server is older than 2.12, or takes messages too small for an event.
    """

    async def on_error(error: Exception) -> None:
        _logger.warning("nats error", error=repr(error))

    try:
        client = await nats.connect(
            url,
            user=user,
            password=password,
            name="rollforward",
            error_cb=on_error,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            connect_timeout=5,
        )
    except (TimeoutError, nats.errors.Error, OSError) as error:
        raise StoreUnavailable(f"no NATS server that lets us in at {url}: {error}") from error
    try:
        check_server(server_version(client), client.max_payload)
    except UnsafeStore:
        await client.close()
        raise
    return client


def server_version(client: NatsClient) -> str:
    """The version of the server that a client is connected to, such as 2.15.1."""
    version = client.connected_server_version
    return f"{version.major}.{version.minor}.{version.patch}"


def check_server(version: str, max_payload: int) -> None:
    """Raises `UnsafeStore` for a server that is older than 2.12 or takes messages too small for an event."""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
        raise UnsafeStore(f"NATS {version} cannot append several events all or none; 2.12 or newer is needed")
    if max_payload < MAX_MESSAGE_BYTES:
        raise UnsafeStore(f"NATS takes messages of {max_payload} bytes; {MAX_MESSAGE_BYTES} are needed")
