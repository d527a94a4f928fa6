"""Get many messages of a stream at once, past its consumers.

Source: https://github.com/nats-io/nats-architecture-and-design (ADR-31, batched direct get).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence

from nats.aio.client import Client as NatsClient
from nats.js.errors import NoStreamResponseError

from eventstore.jetstream.appending.publishing import LOOK_SECONDS, AnswerLost
from eventstore.jetstream.connection import headers_of, raw_subscription

PAGE_BYTES = 1_000_000
"""What one answer may have, about: whatever else comes over the connection waits behind it."""

SILENCE_SECONDS = 4.0


Stored = tuple[bytes, bytes]
"""A stored message as it came: its headers with the lines around them, and its payload."""


class _Answer:
    """The messages that answer a query; `end` has the headers of the one that says so."""

    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.end: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self.latest = time.monotonic()

    def take(self, block: bytes, payload: bytes) -> None:
        self.latest = time.monotonic()
        if block.startswith(b"NATS/1.0\r\n"):
            self.messages.append((block, payload))
        elif not self.end.done():
            self.end.set_result(headers_of(block))


async def direct_get(client: NatsClient, stream: str, query: Mapping[str, str | int]) -> tuple[Sequence[Stored], bool]:
    """Return the messages that answer a query, and whether there are more.

    Raises:
        AnswerLost: The connection was lost, or nothing came for a while.
        NoStreamResponseError: No server has the stream.
    """
    answer = _Answer()
    inbox = client.new_inbox()
    connection = client.stats["reconnects"]
    async with raw_subscription(client, inbox, answer.take):
        payload = json.dumps({"max_bytes": PAGE_BYTES, **query}).encode()
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", payload, reply=inbox)
        while not (await asyncio.wait({answer.end}, timeout=LOOK_SECONDS))[0]:
            if client.is_closed or client.stats["reconnects"] != connection:
                raise AnswerLost("the connection was lost before the response")
            if time.monotonic() - answer.latest > SILENCE_SECONDS:
                raise AnswerLost("timed out")
    headers = answer.end.result()
    if headers.get("Status") not in {"204", "404"}:
        raise NoStreamResponseError
    return answer.messages, int(headers.get("Nats-Num-Pending") or 0) > 0
