"""The connection to NATS, and which servers are refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient

from eventstore.errors import StoreUnavailable, UnsafeStore
from eventstore.event import MAX_MESSAGE_BYTES
from eventstore.jetstream.error_messages import describe

OLDEST_SERVER = (2, 12)
TIMEOUT_SECONDS = 15.0

# Without end, ten times a second.
_OPTIONS: dict[str, Any] = {
    "name": "rollforward",
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.1,
    "connect_timeout": 5,
}

_logger = structlog.get_logger(__name__)


Take = Callable[[bytes, bytes], None]
"""Takes a message as it came: its headers with the lines around them, and its payload."""


class _Client(NatsClient):
    """Spend less time on each message than nats-py does.

    A header's name is looked at once instead of each of its letters in each message. If nats-py does not call that
    method any more, only time is lost. Messages of raw subscriptions are handed over in place: no header is parsed, and
    nothing waits in queues. Tests hold nats-py to calling both methods.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw: dict[int, Take] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self.raw.get(sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            take(headers or b"", data)

    async def close(self) -> None:
        """Close the connection; what cannot be sent any more, since it has just broken, is given up."""
        try:
            await super().close()
        except RuntimeError:  # uvloop's: the transport is closed, and nats-py has not noticed yet
            self._pending, self._pending_data_size = [], 0
            self._status = self.DISCONNECTED
            await super().close()

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        headers = {}
        for line in raw.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if key := _header_name(name):
                headers[key] = value.strip().decode("utf-8", "replace")
        return headers


@asynccontextmanager
async def raw_subscription(client: NatsClient, subject: str, take: Take) -> AsyncIterator[None]:
    """Subscribe to a subject until the context is left; for a client from `connect`."""
    if not isinstance(client, _Client):
        raise TypeError(f"expected a client from connect, got {type(client).__name__}")
    subscription = await client.subscribe(subject)
    client.raw[subscription._id] = take  # noqa: SLF001 - nats-py's own methods know a subscription by it
    try:
        yield
    finally:
        del client.raw[subscription._id]  # noqa: SLF001
        if not client.is_closed:
            await subscription.unsubscribe()


def headers_of(block: bytes) -> dict[str, str]:
    """Return the headers of a message as it came; `Status` is that of an answer without an event, such as 204."""
    first, _, lines = block.partition(b"\r\n")
    status = first.removeprefix(b"NATS/1.0").strip()[:3].decode("ascii", "replace")
    return _Client._parse_header_lines(lines) | ({"Status": status} if status else {})  # noqa: SLF001 - our own


@lru_cache(maxsize=256)
def _header_name(name: bytes) -> str:
    """Return the name of a header; empty if it cannot be one."""
    key = name.decode("ascii", "replace").strip()
    return key if key.isascii() and not any(letter.isspace() for letter in key) else ""


async def connect(
    url: str, user: str | None = None, password: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> NatsClient:
    """Return a connection that reconnects for as long as it lives.

    Args:
        url: A server, or several of one cluster with commas in between; one that answers is enough.
        user: The user, unless it stands in the URL.
        password: The password, unless it stands in the URL.
        timeout_seconds: How long to try for the first time, in seconds.

    Raises:
        StoreUnavailable: No server answers, or it refuses the credentials.
        UnsafeStore: The server is older than 2.12, or takes messages too small for an event.
    """
    client = _Client()
    errors = _Errors()
    callbacks: dict[str, Any] = {"error_cb": errors.note, "reconnected_cb": errors.forget}
    servers = [server.strip() for server in url.split(",") if server.strip()]
    connecting = asyncio.ensure_future(client.connect(servers, user=user, password=password, **callbacks, **_OPTIONS))
    refused = asyncio.ensure_future(errors.refused.wait())
    try:
        await asyncio.wait({connecting, refused}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and not connecting.exception():
            check_server(server_version(client), client.max_payload)
            return client
    except BaseException:
        await _abandon(client, connecting)
        raise
    finally:
        refused.cancel()
    # The server also resets the connection that it refuses: the refusal says more than what came last.
    error = errors.refusal or (connecting.exception() if connecting.done() else errors.error)
    await _abandon(client, connecting)
    raise StoreUnavailable(_cannot_connect(url, error))


def _cannot_connect(url: str, error: BaseException | None) -> str:
    fault = f"cannot connect to NATS at {re.sub('//[^@/,]*@', '//', url)}"
    if _is_refusal(error):
        return (
            f"{fault}: authorization failed. Set ROLLFORWARD_NATS_USER and ROLLFORWARD_NATS_PASSWORD to a user of the "
            "server, or put them into the URL"
        )
    if isinstance(error, (ValueError, nats.errors.Error)) and not isinstance(error, TimeoutError):
        return f"{fault}: {describe(error)}. Expected nats://HOST:PORT, or several separated by commas"
    reason = "connection refused" if isinstance(error, ConnectionRefusedError) else describe(error or TimeoutError())
    return f"{fault}: {reason}. Is a server running there?"


def _is_refusal(error: BaseException | None) -> bool:
    return "authorization" in str(error).lower()


async def _abandon(client: NatsClient, connecting: asyncio.Future[None]) -> None:
    if connecting.done() and connecting.exception():
        return  # an address that cannot be read: there is nothing to close
    connecting.cancel()
    await asyncio.wait({connecting})
    await client.close()


class _Errors:
    """What goes wrong with a connection, logged once however often it is tried again."""

    def __init__(self) -> None:
        self.refused = asyncio.Event()
        self.refusal: Exception | None = None
        self.error: Exception | None = None

    async def note(self, error: Exception) -> None:
        if _is_refusal(error):
            self.refusal = error
            self.refused.set()
        if repr(error) != repr(self.error):
            _logger.warning("NATS connection error", error=describe(error))
        self.error = error

    async def forget(self) -> None:
        self.error = None


def server_version(client: NatsClient) -> str:
    """Return the version of the server that a client is connected to, such as 2.15.1."""
    version = client.connected_server_version
    return f"{version.major}.{version.minor}.{version.patch}"


def check_server(version: str, max_payload: int) -> None:
    """Raise `UnsafeStore` for a server that is older than 2.12 or takes messages too small for an event."""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
        raise UnsafeStore(f"NATS {version} has no atomic batches: expected 2.12 or newer")
    if max_payload < MAX_MESSAGE_BYTES:
        raise UnsafeStore(f"the max_payload of NATS is {max_payload} bytes: expected at least {MAX_MESSAGE_BYTES}")
