"""Events for the tests of the event store, and a running tail."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, BytesValue, Int64Value, StringValue

from eventstore.codec import EventTypes
from eventstore.event import Metadata, NewEvent
from eventstore.store import EventStore
from eventstore.tail import KEPT_BYTES, Tail

ALICE = Metadata("alice")


def _as_number(old: Message) -> Message:
    assert isinstance(old, BoolValue)
    return Int64Value(value=int(old.value))


def _as_string(old: Message) -> Message:
    assert isinstance(old, Int64Value)
    return StringValue(value=f"number {old.value}")


TYPES = EventTypes(
    [StringValue, Int64Value, BytesValue, BoolValue],
    {BoolValue: _as_number, Int64Value: _as_string},
)


def new(stream: str, data: Message | str = "x", *, key: str = "", metadata: Metadata = ALICE) -> NewEvent:
    event_id = uuid.uuid4().hex
    message = StringValue(value=data) if isinstance(data, str) else data
    return NewEvent(stream, message, metadata, event_id, key or event_id)


@asynccontextmanager
async def following(log: EventStore, kept_bytes: int = KEPT_BYTES) -> AsyncIterator[Tail]:
    tail = Tail(log, kept_bytes)
    await tail.start()
    try:
        yield tail
    finally:
        await tail.stop()
