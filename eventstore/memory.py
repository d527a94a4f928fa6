"""The reference store: a log in memory that keeps every promise of `EventStore` but durability."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence

from eventstore.cloudevents import Place, decode, encode_append
from eventstore.codec import EventTypes
from eventstore.epochs import EPOCH_STREAM, FIRST_EPOCH, epoch_of
from eventstore.errors import DuplicateAppend, WrongExpectedRevision
from eventstore.event import LogCondition, NewEvent, RecordedEvent
from eventstore.store import NO_STREAM, check_append

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

    @property
    def epochs(self) -> Sequence[int]:
        """The epochs of the log, oldest first."""
        return (FIRST_EPOCH, *(epoch_of(event) for event in self._events if event.stream == EPOCH_STREAM))

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Append events, all or none; see `EventStore.append`."""
        check_append(events, expected or {})
        now = time.time_ns()
        encoded = encode_append(self._log, events, self._types, now)
        if first := self._appended(events):
            return tuple(range(first, first + len(events)))
        for stream, revision in (expected or {}).items():
            if self._revisions.get(stream, NO_STREAM) != revision:
                raise WrongExpectedRevision(stream, revision)
        end = len(self._events) + len(events)
        for event, (headers, payload) in zip(events, encoded, strict=True):
            position = len(self._events) + 1
            recorded = decode(headers, payload, self._types, Place(event.stream, position, now, end))
            self._events.append(recorded)
            self._revisions[event.stream] = position
            self._keys[event.deduplication_key] = position
        self._grown.set()
        self._grown = asyncio.Event()
        return tuple(range(len(self._events) - len(events) + 1, len(self._events) + 1))

    def _appended(self, events: Sequence[NewEvent]) -> int:
        """Return the first position of these very events; 0 when they are new."""
        keys = [event.deduplication_key for event in events]
        known = [self._keys[key] for key in keys if key in self._keys]
        if known and self._events[known[0] - 1].id != events[0].id:
            raise DuplicateAppend(known[0])
        if len(set(keys)) < len(keys):
            raise DuplicateAppend(0)
        return known[0] if known else 0

    async def settle(self) -> None:
        """Return at once: an append is in the log, or not, when it ends."""

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        """Yield the events of one stream after a position."""
        for event in self._events[after:]:
            if event.stream == stream:
                yield event

    async def past(
        self,
        after: int,
        until: int,
        *,
        shared: bool = False,  # noqa: ARG002 - all of it is in memory
    ) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield the events after a position up to another."""
        while after < until and (batch := self._batch(after)):
            after = batch[-1].position
            yield batch

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield all events after a position, then those to come."""
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
        """Return the event at a position."""
        return self._events[position - 1] if 0 < position <= len(self._events) else None

    async def head(self) -> int:
        """Return the position of the last event."""
        return len(self._events)

    async def last(self) -> int:
        """Return the position of the last event."""
        return len(self._events)

    async def condition(self) -> LogCondition:
        """Return that the log is kept in memory."""
        return LogCondition("memory", ("the log is in memory: every event is lost when the process ends",))
