"""Has an embedded NATS server write again after its disk was full: it does only once it is started anew."""

from __future__ import annotations

import asyncio
import shutil

import structlog

from eventstore import StoreUnavailable
from eventstore.jetstream import ask_write_error
from services.nats.server import EmbeddedNats

LOOK_SECONDS = 2.0
ROOM_BYTES = 8 * 1024 * 1024
"""What must be free before the server is started anew: it would soon be where it was."""

MIN_FREE_BYTES = 256 * 1024
"""With less than this free an event may not fit."""

_logger = structlog.get_logger(__name__)


def explain(nats: EmbeddedNats) -> str:
    """Say what is known to keep a server from writing; empty when nothing is."""
    if nats.pid is None:
        return f"nats-server is down, see {nats.data / 'nats-server.log'}"
    if shutil.disk_usage(nats.data).free < MIN_FREE_BYTES:
        return f"no space left on device: {nats.data}"
    return f"nats-server cannot write to {nats.data}: {nats.write_error}" if nats.write_error else ""


async def keep_writable(nats: EmbeddedNats) -> None:
    """Look after a server for as long as it runs."""
    told = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        address = nats.address
        try:
            error = await ask_write_error(address.url, address.system_user, address.system_password)
        except StoreUnavailable:
            continue  # it is down or busy: its supervisor sees to that
        if error and error != told:
            _logger.error("nats-server cannot write", error=error)
        told = nats.write_error = error
        if error and shutil.disk_usage(nats.data).free >= ROOM_BYTES:
            await nats.renew()
