"""One delivery from JetStream: the messages of a stream from a position on, in order, gaps noticed at once.

Acknowledgement is not needed: the reader keeps its own position and starts a new delivery behind it when this one
breaks.
Source: the push consumer of https://github.com/nats-io/nats-architecture-and-design (ADR-15, ADR-17).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from eventstore.jetstream.error_messages import describe

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
LOOK_SECONDS = 0.25
ANSWER_SECONDS = 12.0
SILENT_LOOKS = 3
BATCH = 1000


class DeliveryBroken(Exception):
    """The delivery cannot go on; another one, from the same position, may."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message with its place in the stream and the time (ns since 1970) at which the stream recorded it."""

    message: Msg
    position: int
    time_ns: int


class Delivery:
    """An async iterator over batches of messages behind `after`; also an async context manager.

    Raises:
        DeliveryBroken: A gap, silence, or a new connection.
    """

    def __init__(self, client: NatsClient, stream: str, after: int) -> None:
        self._client = client
        self._stream = stream
        self._after = after
        self._delivered = 0
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._consumer = f"rf-{uuid.uuid4().hex}"
        self._looks = 0
        self._connection = client.stats["reconnects"]
        self._received_at = time.monotonic()

    async def __aenter__(self) -> Delivery:
        inbox = self._client.new_inbox()
        try:
            self._subscription = await self._client.subscribe(inbox, cb=self._queue.put)
            config = api.ConsumerConfig(
                name=self._consumer,
                deliver_subject=inbox,
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._after + 1,
                ack_policy=api.AckPolicy.NONE,
                max_deliver=1,
                flow_control=True,
                idle_heartbeat=HEARTBEAT_SECONDS,
                inactive_threshold=30,
                mem_storage=True,
                num_replicas=1,
            )
            await self._client.jetstream(timeout=ANSWER_SECONDS).add_consumer(self._stream, config)
        except (TimeoutError, nats.errors.Error) as error:
            await self._leave()
            raise DeliveryBroken(f"cannot create a consumer: {describe(error)}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        """Stop listening and have the consumer deleted, without waiting for the answer."""
        if self._subscription and not self._client.is_closed:
            try:
                await self._subscription.unsubscribe()
                await self._client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}")
            except (nats.errors.ConnectionClosedError, nats.errors.BadSubscriptionError):
                return

    def __aiter__(self) -> Delivery:
        return self

    async def __anext__(self) -> Sequence[Delivered]:
        while True:
            batch = await self._take(await self._next())
            while len(batch) < BATCH and not self._queue.empty():
                batch += await self._take(self._queue.get_nowait())
            if batch:
                return batch

    async def _next(self) -> Msg:
        while self._queue.empty():
            if self._client.is_closed:
                raise DeliveryBroken("the connection is closed")
            if self._client.stats["reconnects"] != self._connection:
                raise DeliveryBroken("the connection was replaced")
            if time.monotonic() - self._received_at > SILENCE_SECONDS:
                await self._look()
            # Not wait_for: when both come at once, Python 3.11 gives the message and forgets the cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    return await self._queue.get()
        return self._queue.get_nowait()

    async def _look(self) -> None:
        """Ask whether the consumer is still there: a server that is merely slow must not be given another to serve."""
        js = self._client.jetstream(timeout=SILENCE_SECONDS)
        try:
            await js.consumer_info(self._stream, self._consumer)
            self._received_at = time.monotonic()
        except NotFoundError as error:
            raise DeliveryBroken("the consumer is gone") from error
        except (TimeoutError, nats.errors.Error):
            # The consumer lives on one server of a cluster. When that one is lost, the others serve the stream and say
            # nothing of the consumer, until it is back (nats-server 2.14).
            if not await self._stream_answers(js):
                return  # asked again, as long as the connection stands
        self._looks += 1
        if self._looks == SILENT_LOOKS:
            raise DeliveryBroken("the stream responds, but its consumer sends nothing, not even heartbeats")

    async def _stream_answers(self, js: JetStreamContext) -> bool:
        try:
            await js.stream_info(self._stream)
        except (TimeoutError, nats.errors.Error):
            return False
        return True

    async def _take(self, message: Msg) -> list[Delivered]:
        self._received_at, self._looks = time.monotonic(), 0
        headers = message.headers or {}
        if headers.get("Status"):
            await self._control(message, headers)
            return []
        position, number, time_ns = _place(message.reply)
        if number != self._delivered + 1:
            raise DeliveryBroken(f"message {number} arrived after {self._delivered}")
        self._delivered = number
        # Asked for what is behind its end, the server begins at its end.
        return [Delivered(message, position, time_ns)] if position > self._after else []

    async def _control(self, message: Msg, headers: dict[str, str]) -> None:
        if headers["Status"] != "100":
            raise DeliveryBroken(f"{headers['Status']} {headers.get('Description', '')}")
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._delivered:
            raise DeliveryBroken(f"message {last} was sent, but the last received is {self._delivered}")
        # Answered only here, after everything before it was taken: that is what bounds the queue.
        answer = message.reply or headers.get("Nats-Consumer-Stalled", "")
        if answer:
            await self._client.publish(answer)


def _place(reply: str) -> tuple[int, int, int]:
    """Return the position, delivery number and time in a message's reply subject ($JS.ACK..., ADR-15)."""
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 2])
