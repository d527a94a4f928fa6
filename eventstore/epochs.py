"""Epochs: the identity of a log, and what shows that a log is not the one that rows were computed from.

A log begins in epoch 1. When it lost events and its operator accepts that, an event in `EPOCH_STREAM` begins a new
epoch: positions and revisions that were read before may name other events from then on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Protocol, cast

from eventstore.errors import Conflict, LogLost, Loss, WrongExpectedRevision
from eventstore.event import IndexedEvent, KnownPosition, Metadata, NewEvent, RecordedEvent
from eventstore.ids import new_id
from eventstore.store import NO_STREAM, EventStore

EPOCH_STREAM = "epochs"
"""The stream of the events that begin an epoch; every log has it."""

APPEND_NS = 1_000_000_000
"""Longer than an append takes to be recorded."""

FIRST_EPOCH = 1
"""The epoch of a log that never lost an event."""


class EpochBegan(Protocol):
    """The event that begins an epoch, as far as the kernel reads it."""

    @property
    def epoch(self) -> int:
        """The position that the epoch began at."""
        ...

    @property
    def kept_until(self) -> int:
        """The last position of the epoch before that was kept."""
        ...


class EpochMessage(EpochBegan, Protocol):
    """A message of such an event, whose other fields say what was lost."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the event's bytes."""
        ...


def mark_of(event_id: str) -> str:
    """Return the short hash that names an event outside of its log."""
    return hashlib.sha256(event_id.encode()).hexdigest()[:16]


async def read_epochs(store: EventStore) -> tuple[int, ...]:
    """Return the epochs of a log, oldest first; the last is the current one."""
    return (FIRST_EPOCH, *[epoch_of(event) async for event in store.read(EPOCH_STREAM) if begins_epoch(event)])


def begins_epoch(event: RecordedEvent) -> bool:
    """Return whether an event begins an epoch; what this program cannot read does not."""
    return event.stream == EPOCH_STREAM and not event.unreadable


def epoch_of(event: RecordedEvent) -> int:
    """Return the epoch that an event of `EPOCH_STREAM` begins."""
    return cast("EpochBegan", event.data).epoch


def next_epoch(epochs: Sequence[int], time_ms: int) -> int:
    """Return a number for a new epoch: its time, so that two copies of one log never start the same epoch."""
    return max(time_ms, max(epochs) + 1)


def check_epoch(log: str, given: int, current: int) -> None:
    """Raise `Conflict` LOG_EPOCH_CHANGED when a position was read in another epoch than the log's; 0 is the first."""
    if (read := given or FIRST_EPOCH) != current:
        message = (
            f"stale position of the {log} log: it is of epoch {read}, and the log lost events and is in epoch {current}"
        )
        raise Conflict("LOG_EPOCH_CHANGED", f"{message}. Read again", log=log, epoch=str(current), given=str(read))


async def check_past(store: EventStore, position: int, given: int) -> None:
    """Raise `Conflict` LOG_EPOCH_CHANGED when what stood at a position in an epoch may have been lost since.

    Args:
        store: The log.
        position: A position that was read in that epoch.
        given: The epoch; 0 is the first.
    """
    read, current = given or FIRST_EPOCH, store.epochs[-1]
    if read == current:
        return
    if read in store.epochs:
        later = store.epochs[store.epochs.index(read) + 1 :]
        events = [event async for event in store.read(EPOCH_STREAM) if begins_epoch(event)]
        if position <= min(cast("EpochBegan", event.data).kept_until for event in events if epoch_of(event) in later):
            return
    fault = f"position {position} of the {store.log} log is of epoch {read}, and its event may be lost"
    message = f"{fault}: the log is in epoch {current}. Read again, or pass the position's epoch"
    raise Conflict("LOG_EPOCH_CHANGED", message, log=store.log, epoch=str(current), given=str(read))


def on_wire(epoch: int) -> int:
    """Return an epoch as messages hold it: 0 for the first, so that nothing changes for a log that lost nothing."""
    return 0 if epoch == FIRST_EPOCH else epoch


async def find_loss(store: EventStore, known: KnownPosition) -> Loss | None:
    """Return what a log lacks of what is known of it; None when it holds the very event, or that was erased."""
    if not known.position:
        return None
    event = await store.event_at(known.position)
    if event is not None and mark_of(event.id) == known.mark:
        return None
    head = await store.head()
    if event is None and head >= known.position:
        return None
    return Loss(store.log, head, known, await _last_in_common(store, head, known))


async def _last_in_common(store: EventStore, head: int, known: KnownPosition) -> int | None:
    """Return the last position at which a log and what is known of it hold the same event; None if nobody can tell.

    Once they differ they differ for good, so that a few looks are enough.
    """
    if known.index is None:
        return head if head < known.position else None
    kept, differs = 0, min(head, known.position) + 1
    while differs - kept > 1:
        middle = (kept + differs) // 2
        event, indexed = await store.event_at(middle), await asyncio.to_thread(known.index, middle)
        if event is None or indexed is None or _is_indexed(event, indexed):
            kept = middle
        else:
            differs = middle
    return kept


def _is_indexed(event: RecordedEvent, indexed: IndexedEvent) -> bool:
    asked = event.metadata
    same = (asked.actor, asked.request_id, asked.request_digest)
    # All events of an append are indexed with the time of its first.
    recent = abs(event.time - indexed.time) < APPEND_NS
    return recent and same == (indexed.actor, indexed.request_id, indexed.request_digest)


async def refuse_losses(store: EventStore, known: Sequence[KnownPosition]) -> None:
    """Raise `LogLost` if a log lacks known events."""
    if losses := [loss for position in known if (loss := await find_loss(store, position))]:
        raise LogLost(losses)


async def begin_epoch(store: EventStore, began: EpochMessage, metadata: Metadata) -> None:
    """Append the event that begins an epoch, unless another process has begun one."""
    last = [event.position async for event in store.read(EPOCH_STREAM)]
    event_id = new_id()
    event = NewEvent(EPOCH_STREAM, began, metadata, event_id, event_id)  # type: ignore[arg-type]
    try:
        await store.append([event], {EPOCH_STREAM: last[-1] if last else NO_STREAM})
    except WrongExpectedRevision:
        return
