"""Logs for tests of epochs, and shortened copies of them."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import StringValue

from eventstore.codec import EventTypes
from eventstore.epochs import begin_epoch, next_epoch
from eventstore.event import Metadata
from eventstore.memory import MemoryStore
from eventstore.store import EventStore
from rollforward import v1

TYPES = EventTypes([StringValue, v1.LogEpochBegan])


def new_log() -> MemoryStore:
    """Return an empty log."""
    return MemoryStore("words", TYPES)


def shortened(log: MemoryStore, head: int) -> MemoryStore:
    """Return a copy of a log that ends at a position."""
    copy = new_log()
    for event in log._events[:head]:
        copy._events.append(event)
        copy._revisions[event.stream] = event.position
    return copy


async def accept(log: EventStore) -> int:
    """Begin an epoch and return its number."""
    epoch = next_epoch(log.epochs, 0)
    await begin_epoch(log, v1.LogEpochBegan(epoch=epoch, previous_epoch=log.epochs[-1]), Metadata("operator"))
    return epoch
