"""The event store: what every log promises, whatever keeps it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from eventstore.errors import TooManyEvents
from eventstore.event import MAX_APPEND_EVENTS, LogCondition, NewEvent, RecordedEvent

NO_STREAM = 0
"""The expected revision of a stream that must not exist yet."""


class EventStore(Protocol):
    """One log: streams of events in one total order.

    Positions start at 1 and grow; there is no promise that they are dense. An event's position is also its stream's
    revision. Every method may raise `StoreUnavailable`.
    """

    @property
    def log(self) -> str:
        """The log's name."""
        ...

    @property
    def epochs(self) -> Sequence[int]:
        """The epochs of the log as it was opened, oldest first; the last is the current one."""
        ...

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Append events, all or none, and return their positions; on return they are durable.

        Args:
            events: One to `MAX_APPEND_EVENTS`; those of one append are neighbours in the log.
            expected: For each stream named, the revision that it must be at (`NO_STREAM`: it must not exist).

        Raises:
            WrongExpectedRevision: A stream is at another revision.
            DuplicateAppend: Another event with one of these deduplication keys was appended lately. A store may forget
                a key after two minutes, and may answer `WrongExpectedRevision` instead when both hold.
            EventTooLarge: An event has more than `MAX_EVENT_BYTES`, or `MAX_HEADER_BYTES` around it, or all together
                have more than `MAX_APPEND_BYTES`.
            TooManyEvents: There are more than `MAX_APPEND_EVENTS`.
            UnknownEventType: An event is of a type that the log was not told of.
            ValueError: There is no event, or `expected` names a stream that none of the events is of; or an event's
                stream, id or metadata hold the character NUL, or are longer than what rows can be looked up by.
            StoreUnavailable: The log did not answer in time. The events may be in it or not; the same events may be
                appended again: their first positions are the answer when they are in it already.
        """
        ...

    async def settle(self) -> None:
        """Return once each append of this process that ended with an unknown outcome is in the log, or never will be.

        Raises:
            StoreUnavailable: Nobody can tell yet.
        """
        ...

    def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        """Yield the events of one stream after a position, in order, to its present end."""
        ...

    def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield all events of the log after a position, in order, each once, then new ones, without end.

        They arrive in batches that never split what one append wrote. A subscription outlives restarts of the log's
        server: it continues after the last event that it yielded.

        Raises:
            LogRewritten: The last event that it yielded is not in the log any more.
            StoreUnavailable: The connection was closed for good.
        """
        ...

    def past(self, after: int, until: int, *, shared: bool = False) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield the events of the log after a position, up to another that it has reached, in order, each once.

        They come in batches that never split what one append wrote; the last batch may go on after `until`.
        It costs the server nothing once it is left. Readers of the same log take turns.

        Args:
            after: A position between two appends.
            until: Where to end, at most `last`.
            shared: Whether batches may be those that others have just read: the same objects.
        """
        ...

    async def event_at(self, position: int) -> RecordedEvent | None:
        """Return the event at a position; None when there is none."""
        ...

    async def head(self) -> int:
        """Return the position of the last event, even if it was erased; 0 for an empty log."""
        ...

    async def last(self) -> int:
        """Return the position of the last event that was not erased: less than `head` when later ones were."""
        ...

    async def condition(self) -> LogCondition:
        """Return the actual storage settings of the log."""
        ...


def check_append(events: Sequence[NewEvent], expected: Mapping[str, int]) -> None:
    """Raise what every store raises before it looks into its log: `ValueError` or `TooManyEvents`."""
    if not events:
        raise ValueError("empty append: expected at least one event")
    if len(events) > MAX_APPEND_EVENTS:
        raise TooManyEvents(len(events), MAX_APPEND_EVENTS)
    if unwritten := expected.keys() - {event.stream for event in events}:
        raise ValueError(f"expected revisions of streams without events: {sorted(unwritten)}")
