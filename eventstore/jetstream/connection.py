"""The connection to NATS, and which servers are refused."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

import structlog
from nats.aio.client import Client as NatsClient

from eventstore.errors import StoreUnavailable, UnsafeStore
from eventstore.event import MAX_MESSAGE_BYTES

OLDEST_SERVER = (2, 12)
PATIENCE_SECONDS = 15.0

# For ever, ten times a second.
_OPTIONS: dict[str, Any] = {
    "name": "rollforward",
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.1,
    "connect_timeout": 5,
}

_logger = structlog.get_logger(__name__)


class _Client(NatsClient):
    """Looks at each header's name once instead of at each of its letters in each message.

    That is most of the work of reading a message. If nats-py does not call this method any more, only time is lost.
    """

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        headers = {}
        for line in raw.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if key := _header_name(name):
                headers[key] = value.strip().decode("utf-8", "replace")
        return headers


@lru_cache(maxsize=256)
def _header_name(name: bytes) -> str:
    """The name of a header; empty if it cannot be one."""
    key = name.decode("ascii", "replace").strip()
    return key if key.isascii() and not any(letter.isspace() for letter in key) else ""


async def connect(
    url: str, user: str | None = None, password: str | None = None, *, patience: float = PATIENCE_SECONDS
) -> NatsClient:
    """A connection that reconnects for as long as it lives; `patience` (seconds) is for the first time.

    Raises:
        StoreUnavailable: No server answers at `url`, or it refuses the credentials.
        UnsafeStore: The server is older than 2.12, or takes messages too small for an event.
    """
    client = _Client()
    errors = _Errors()
    callbacks: dict[str, Any] = {"error_cb": errors.note, "reconnected_cb": errors.forget}
    connecting = asyncio.ensure_future(client.connect(url, user=user, password=password, **callbacks, **_OPTIONS))
    refused = asyncio.ensure_future(errors.refused.wait())
    try:
        await asyncio.wait({connecting, refused}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and not connecting.exception():
            check_server(server_version(client), client.max_payload)
            return client
    except BaseException:
        await _abandon(client, connecting)
        raise
    finally:
        refused.cancel()
    await _abandon(client, connecting)
    raise StoreUnavailable(f"no NATS server that lets us in at {url}: {errors.last}")


async def _abandon(client: NatsClient, connecting: asyncio.Future[None]) -> None:
    connecting.cancel()
    await asyncio.wait({connecting})
    await client.close()


class _Errors:
    """What goes wrong with a connection, logged once however often it is tried again."""

    def __init__(self) -> None:
        self.refused = asyncio.Event()
        self.last = ""

    async def note(self, error: Exception) -> None:
        if "authorization" in str(error).lower():
            self.refused.set()
        if repr(error) != self.last:
            self.last = repr(error)
            _logger.warning("nats error", error=self.last)

    async def forget(self) -> None:
        self.last = ""


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
