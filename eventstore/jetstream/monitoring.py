"""What NATS does before it acknowledges an event, read from the running servers and the log's real stream."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from nats.js import api

from eventstore.error_messages import error_text
from eventstore.errors import StoreUnavailable
from eventstore.jetstream.server_health import ask_server

ANSWER_SECONDS = 5.0

UNREAD = (
    "when NATS flushes to disk could not be read (neither its system account nor ROLLFORWARD_NATS_MONITOR is known): "
    "unless it is set to sync_interval: always, a power cut loses acknowledged events"
)


@dataclass(frozen=True, slots=True)
class Flush:
    """When a server flushes to disk: before each acknowledgement (`always`), or every so many seconds."""

    server: str
    always: bool
    seconds: float


FlushQuestion = Callable[[], Awaitable[Sequence[Flush]]]
"""Asks running servers when they flush; raises `StoreUnavailable` when they cannot be asked."""


def ask_system_account(url: str, user: str, password: str) -> FlushQuestion:
    """Query one server through its system account, on a connection of its own."""

    async def ask() -> Sequence[Flush]:
        return [_flush(await ask_server(url, user, password, "VARZ"))]

    return ask


def ask_monitor(urls: str) -> FlushQuestion:
    """Query servers through their monitoring ports: `http://nats:8222`, or all of a cluster, separated by commas."""

    async def ask() -> Sequence[Flush]:
        return [await asyncio.to_thread(_read_monitor, url.strip()) for url in urls.split(",")]

    return ask


def _read_monitor(url: str) -> Flush:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", parts.path.rstrip("/") + "/varz")
        return _flush(json.loads(connection.getresponse().read()))
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise StoreUnavailable(f"cannot reach the monitoring port {url}: {error_text(error)}") from error
    finally:
        connection.close()


def _flush(varz: Mapping[str, Any]) -> Flush:
    settings = varz["jetstream"]["config"]
    return Flush(varz["server_name"], settings.get("sync_always", False), settings.get("sync_interval", 0) / 1e9)


async def flush_warnings(ask: FlushQuestion | None, replicas: int) -> list[str]:
    """Return warnings of what the servers' flush settings could lose; that they cannot be read is one too."""
    if ask is None:
        return [UNREAD]
    try:
        flushes = await ask()
    except StoreUnavailable as error:
        return [f"when NATS flushes to disk could not be read: {error}"]
    cut = "a power cut" if replicas < 3 else f"a power cut of all {replicas} servers at once"
    return [
        f"NATS server {flush.server} flushes to disk every {flush.seconds:g} s, not before it acknowledges: "
        f"{cut} loses acknowledged events (set sync_interval: always)"
        for flush in flushes
        if not flush.always
    ]


def stream_warnings(config: api.StreamConfig) -> list[str]:
    """Return warnings of what the settings of a log's stream could lose."""
    # At these two the server drops the oldest events whatever `discard` says.
    drops = (config.max_age or 0) > 0 or (config.max_msgs_per_subject > 0 and not config.discard_new_per_subject)
    full = config.discard != api.DiscardPolicy.NEW and ((config.max_msgs or 0) > 0 or (config.max_bytes or 0) > 0)
    weaknesses = {
        "the stream is kept in memory: a restart of NATS loses every event": config.storage != api.StorageType.FILE,
        "the stream has a limit (max_*) at which it drops old events": drops or full,
        "the stream acknowledges before it writes (persist_mode: async)": config.persist_mode == api.PersistMode.ASYNC,
        "the stream cannot append several events all or none (allow_atomic is off)": not config.allow_atomic,
    }
    return [text for text, holds in weaknesses.items() if holds]
