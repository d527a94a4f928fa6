"""Recovery from a full disk: an embedded NATS server writes again only after a restart."""

from __future__ import annotations

import asyncio
import shutil

import structlog

from eventstore import StoreUnavailable
from eventstore.jetstream import ask_write_error
from services.nats.server import EmbeddedNats

LOOK_SECONDS = 2.0
ROOM_BYTES = 8 * 1024 * 1024
"""The free space that a restart waits for: with less, the disk would soon be full again."""

MIN_FREE_BYTES = 256 * 1024
"""With less than this free an event may not fit."""

_logger = structlog.get_logger(__name__)


def explain(nats: EmbeddedNats) -> str:
    """Return why a server cannot write, as far as known; else empty."""
    if nats.pid is None:
        return f"nats-server is down, see {nats.data / 'nats-server.log'}"
    if shutil.disk_usage(nats.data).free < MIN_FREE_BYTES:
        return f"no space left on device: {nats.data}"
    return f"nats-server cannot write to {nats.data}: {nats.write_error}" if nats.write_error else ""


async def keep_writable(nats: EmbeddedNats) -> None:
    """Restart a server whenever it cannot write and its disk has space again; runs until it is cancelled."""
    logged = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        address = nats.address
        try:
            error = await ask_write_error(address.url, address.system_user, address.system_password)
        except StoreUnavailable:
            continue  # it is down or busy: its supervisor restarts it
        if error and error != logged:
            _logger.error("nats-server cannot write", error=error)
        logged = nats.write_error = error
        if error and shutil.disk_usage(nats.data).free >= ROOM_BYTES:
            await nats.renew()
