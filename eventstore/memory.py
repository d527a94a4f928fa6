"""The reference store: a log in memory that keeps every promise of `EventStore` but durability."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from eventstore.codec import EventTypes
from eventstore.errors import DuplicateAppend, EventTooLarge, WrongExpectedRevision
from eventstore.event import MAX_EVENT_BYTES, LogCondition, NewEvent, RecordedEvent
from eventstore.store import NO_STREAM

BATCH = 500


class MemoryStore:
    """A log in memory."""

    def __init__(self, log: str, types: EventTypes) -> None:
        self._log = log
        self._types = types
        self._events: list[RecordedEvent] = []
        self._revisions: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        self._grown = asyncio.Event()

    @property
    def log(self) -> str:
        """The log's name."""
        return self._log

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Appends events, all or none; see `EventStore.append`."""
        recorded = [self._record(event) for event in events]
        for event in events:
            if event.deduplication_key in self._keys:
                raise DuplicateAppend(self._keys[event.deduplication_key])
        for stream, revision in (expected or {}).items():
            if self._revisions.get(stream, NO_STREAM) != revision:
                raise WrongExpectedRevision(stream, revision)
        first = len(self._events) + 1
        positions = tuple(range(first, first + len(recorded)))
        for position, new, kept in zip(positions, events, recorded, strict=True):
            closes = position == positions[-1]
            self._events.append(replace(kept, position=position, closes_append=closes))
            self._revisions[new.stream] = position
            self._keys[new.deduplication_key] = position
        self._grown.set()
        self._grown = asyncio.Event()
        return positions

    def _record(self, event: NewEvent) -> RecordedEvent:
        name, payload = self._types.encode(event.data)
        if len(payload) > MAX_EVENT_BYTES:
            raise EventTooLarge(len(payload), MAX_EVENT_BYTES)
        data = self._types.decode(name, payload)
        return RecordedEvent(event.stream, 0, time.time_ns(), event.id, data, event.metadata)

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        """The events of one stream behind a position."""
        for event in self._events[after:]:
            if event.stream == stream:
                yield event

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """All events behind a position, then those to come."""
        while True:
            grown = self._grown
            while batch := self._batch(after):
                after = batch[-1].position
                yield batch
            await grown.wait()

    def _batch(self, after: int) -> Sequence[RecordedEvent]:
        end = min(after + BATCH, len(self._events))
        while end > after and not self._events[end - 1].closes_append:
            end += 1
        return self._events[after:end]

    async def event_at(self, position: int) -> RecordedEvent | None:
        """The event at a position."""
        return self._events[position - 1] if 0 < position <= len(self._events) else None

    async def head(self) -> int:
        """The position of the last event."""
        return len(self._events)

    async def condition(self) -> LogCondition:
        """A log in memory says what it is."""
        return LogCondition("memory", ("the log is in memory: every event is lost when the process ends",))
