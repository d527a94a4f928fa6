"""Get many messages of a stream at once, past its consumers.

Source: https://github.com/nats-io/nats-architecture-and-design (ADR-31, batched direct get).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js.errors import NoStreamResponseError

from eventstore.jetstream.publishing import LOOK_SECONDS, AnswerLost

PAGE_BYTES = 1_000_000
"""What one answer may have, about: whatever else comes over the connection waits behind it."""

SILENCE_SECONDS = 4.0


class _Answer:
    """The messages that answer a query; `end` is the one that says so."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []
        self.end: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self.latest = time.monotonic()

    async def take(self, message: Msg) -> None:
        self.latest = time.monotonic()
        if not (message.headers or {}).get("Status"):
            self.messages.append(message)
        elif not self.end.done():
            self.end.set_result(message)


async def direct_get(client: NatsClient, stream: str, query: Mapping[str, str | int]) -> tuple[Sequence[Msg], bool]:
    """Return the messages that answer a query, and whether there are more.

    Raises:
        AnswerLost: The connection was lost, or nothing came for a while.
        NoStreamResponseError: No server has the stream.
    """
    answer = _Answer()
    inbox = client.new_inbox()
    connection = client.stats["reconnects"]
    subscription = await client.subscribe(inbox, cb=answer.take)
    try:
        payload = json.dumps({"max_bytes": PAGE_BYTES, **query}).encode()
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", payload, reply=inbox)
        while not (await asyncio.wait({answer.end}, timeout=LOOK_SECONDS))[0]:
            if client.is_closed or client.stats["reconnects"] != connection:
                raise AnswerLost("the connection was lost before the answer came")
            if time.monotonic() - answer.latest > SILENCE_SECONDS:
                raise AnswerLost("no answer in time")
    finally:
        if not client.is_closed:
            await subscription.unsubscribe()
    headers = answer.end.result().headers or {}
    if headers["Status"] not in {"204", "404"}:
        raise NoStreamResponseError
    return answer.messages, int(headers.get("Nats-Num-Pending") or 0) > 0
