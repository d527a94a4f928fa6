"""Read single events of a log's stream, and what its leader says of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache, partial

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import NoStreamResponseError, NotFoundError

from eventstore.cloudevents import Place, decode
from eventstore.codec import EventTypes
from eventstore.event import RecordedEvent
from eventstore.jetstream.appending.whole_appends import append_of
from eventstore.jetstream.connection import headers_of
from eventstore.jetstream.reading.delivery import Delivered
from eventstore.jetstream.reading.direct_get import Stored, direct_get
from eventstore.jetstream.reading.message_decoding import decode_stored
from eventstore.jetstream.retries import Retries
from eventstore.jetstream.subjects import stream_of, subject_of

ATTEMPT_SECONDS = 2.0
PAUSE_SECONDS = 0.05
PAGE_EVENTS = 500

_NO_MESSAGE = 10037


class StreamReader:
    """Reads a log's stream, torn appends included.

    Args:
        client: The connection to NATS.
        js: JetStream over it.
        log: The log's name.
        types: What the log may hold.
        retries: Repeats requests.

    Attributes:
        replicas: On how many servers the stream is kept: with more than one, a follower that lags may answer.
    """

    def __init__(self, client: NatsClient, js: JetStreamContext, log: str, types: EventTypes, retries: Retries) -> None:
        self.replicas = 1
        self._client = client
        self._js = js
        self._log = log
        self._name = f"rf-{log}"
        self._types = types
        self._retry = retries

    async def stored_at(self, position: int) -> RecordedEvent | None:
        """Return the event at a position."""
        if position <= 0:
            return None
        while True:
            message = await self._retry(lambda: self._direct(position))
            if message or self.replicas == 1 or not await self._leader_finds(seq=position):
                return self._from_direct(message.headers or {}, message.data) if message else None
            await asyncio.sleep(PAUSE_SECONDS)

    async def page(self, stream: str, after: int) -> tuple[list[RecordedEvent], bool]:
        """Return the next events of a stream after a position, and whether more follow."""
        subject = subject_of(self._log, stream)
        query: dict[str, str | int] = {"seq": after + 1, "next_by_subj": subject, "batch": PAGE_EVENTS}
        messages, pending = await self._retry(partial(direct_get, self._client, self._name, query))
        events = [self.from_stored(message) for message in messages]
        last = events[-1].position if events else after
        if not pending and self.replicas > 1 and await self.revision(stream) > last:
            # A follower that lags has answered.
            await asyncio.sleep(PAUSE_SECONDS)
            return events, True
        return events, bool(pending)

    async def revision(self, stream: str) -> int:
        """Return a stream's last position, from the leader; `NO_STREAM` when there is none."""
        return await self._leader_finds(subject=subject_of(self._log, stream))

    async def last_stored(self) -> int:
        """Return the position of the last event that was not erased."""
        return await self._leader_finds(subject=f"rf.{self._log}.>")

    async def last_position(self) -> int:
        """Return the position of the last event, even if it was erased."""
        return (await self.info()).state.last_seq

    async def info(self) -> api.StreamInfo:
        """Return what the leader says of the stream."""
        return await self._retry(lambda: self._js.stream_info(self._name))

    def from_stored(self, message: Stored) -> RecordedEvent:
        """Return the event of a message that was got together with others."""
        block, payload = message
        event = decode_stored(block, payload, self._log, self._types)
        return event or self._from_direct(headers_of(block), payload)

    def from_delivered(self, delivered: Delivered) -> RecordedEvent:
        """Return the event of a message that was delivered."""
        message = delivered.message
        return self._recorded(
            message.headers or {}, message.data, message.subject, delivered.position, delivered.time_ns
        )

    async def _leader_finds(self, **query: str | int) -> int:
        """Return the position of the event that a query of the leader is for; 0 when there is none."""

        async def ask() -> int:
            try:
                return (await self._js.get_msg(self._name, **query, direct=False)).seq or 0  # type: ignore[arg-type]
            except NotFoundError as error:
                if error.err_code == _NO_MESSAGE:
                    return 0
                raise

        return await self._retry(ask)

    async def _direct(self, position: int) -> Msg | None:
        subject, query = f"$JS.API.DIRECT.GET.{self._name}", json.dumps({"seq": position}).encode()
        message = await self._client.request(subject, query, timeout=ATTEMPT_SECONDS)
        status = (message.headers or {}).get("Status", "")
        if status and status != "404":
            raise NoStreamResponseError
        return None if status else message

    def _from_direct(self, headers: Mapping[str, str], payload: bytes) -> RecordedEvent:
        subject, position = headers.get("Nats-Subject", ""), int(headers.get("Nats-Sequence", ""))
        return self._recorded(headers, payload, subject, position, _nanoseconds(headers.get("Nats-Time-Stamp", "")))

    def _recorded(
        self, headers: Mapping[str, str], payload: bytes, subject: str, position: int, time_ns: int
    ) -> RecordedEvent:
        append_end, append_id = append_of(headers, position)
        place = Place(stream_of(self._log, subject), position, time_ns, append_end, append_id)
        return decode(headers, payload, self._types, place)


def _nanoseconds(timestamp: str) -> int:
    """Return a time such as 2026-11-30T18:37:50.123456789Z in nanoseconds since 1970."""
    second, _, fraction = timestamp.removesuffix("Z").partition(".")
    return _seconds(second) * 1_000_000_000 + int(fraction.ljust(9, "0"))


@lru_cache(maxsize=8)
def _seconds(second: str) -> int:
    return int(datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp())
