"""What a server says of itself to its system account; above all whether it can still write.

After an error of its disk it refuses every event, without an answer, until it is restarted.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import nats.errors

from eventstore.errors import StoreUnavailable
from eventstore.jetstream.connection import connect
from eventstore.jetstream.error_messages import describe

ANSWER_SECONDS = 5.0


async def ask_server(url: str, user: str, password: str, endpoint: str) -> Any:
    """Query one server through its system account, on a connection of its own.

    Raises:
        StoreUnavailable: It does not respond.
    """
    client = await connect(url, user, password, timeout_seconds=ANSWER_SECONDS)
    try:
        answer = await client.request(f"$SYS.REQ.SERVER.PING.{endpoint}", b"", timeout=ANSWER_SECONDS)
    except (TimeoutError, nats.errors.Error) as error:
        raise StoreUnavailable(f"the system account of {url} does not respond: {describe(error)}") from error
    finally:
        await client.close()
    return json.loads(answer.data)["data"]


async def ask_write_error(url: str, user: str, password: str) -> str:
    """Return what a server says is wrong when it cannot write; empty if it can.

    Raises:
        StoreUnavailable: It does not respond.
    """
    said = str((await ask_server(url, user, password, "HEALTHZ")).get("error", ""))
    return said if "write error" in said else ""


async def ask_ready(host: str, port: int, user: str, password: str) -> bool:
    """Return whether JetStream answers a request made with these credentials.

    The request is written in NATS's own protocol, without the client: a server that starts is asked every few
    milliseconds, and the client's connections wait and retry for longer than that.
    """
    options = {"user": user, "pass": password, "verbose": False, "headers": True, "no_responders": True}
    request = f"CONNECT {json.dumps(options)}\r\nSUB ready 1\r\nPUB $JS.API.INFO ready 0\r\n\r\n"
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except ConnectionError:
        return False
    try:
        writer.write(request.encode())
        async for line in reader:
            if line.startswith((b"MSG ", b"HMSG ", b"-ERR ")):
                return line.startswith(b"MSG ") and "error" not in json.loads(await reader.readline())
    except ConnectionError:
        return False
    finally:
        writer.close()
        with suppress(ConnectionError):  # the server may have closed it first
            await writer.wait_closed()
    return False
