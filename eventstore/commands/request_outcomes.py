"""What requests wrote: each is appended once, however often it is sent and whatever acknowledgement is lost."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from cachetools import LRUCache
from google.protobuf.message import Message

from eventstore.commands.stream_states import check_readable
from eventstore.decider import RequestIndex
from eventstore.errors import (
    Conflict,
    DuplicateAppend,
    EventTooLarge,
    Kind,
    Rejected,
    StoreUnavailable,
    TooManyEvents,
    WrongExpectedRevision,
)
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.ids import new_id
from eventstore.store import EventStore

UNSETTLED_REQUESTS = 10_000

Written = tuple[tuple[RecordedEvent, ...], int]
"""The events that a request wrote, and the position to read from to see them."""

_NOT_WRITTEN = (WrongExpectedRevision, DuplicateAppend, EventTooLarge, TooManyEvents, ValueError)
"""The errors of an append that has written nothing, and never will."""


class RequestOutcomes:
    """Appends the events of requests, and finds what earlier ones wrote.

    Args:
        store: The log.
        index: Knows which request wrote which events.
    """

    def __init__(self, store: EventStore, index: RequestIndex) -> None:
        self._store = store
        self._index = index
        self._under_way: Counter[str] = Counter()
        self._unsettled: LRUCache[str, None] = LRUCache(UNSETTLED_REQUESTS)

    async def append(
        self, events: Sequence[tuple[str, Message]], metadata: Metadata, expected: Mapping[str, int] | None
    ) -> tuple[RecordedEvent, ...]:
        """Append events, each given with its stream, and return them as recorded.

        Raises:
            DuplicateAppend: The request has written before.
            WrongExpectedRevision, EventTooLarge, TooManyEvents, StoreUnavailable: As `EventStore.append`.
        """
        new = _new_events(events, metadata)
        with self._noting(metadata):
            positions = await self._store.append(new, expected)
        return tuple(
            RecordedEvent(event.stream, position, 0, event.id, event.data, event.metadata, positions[-1])
            for event, position in zip(new, positions, strict=True)
        )

    async def written(self, metadata: Metadata, at_least: int | None = None) -> Written | None:
        """Return what a request wrote before, judged at a position or later; at the log's head if none is given.

        Raises:
            Rejected: REQUEST_ID_REUSED when the id was used for another command.
            StoreUnavailable: REQUEST_IN_FLIGHT while its outcome is not known; or the log does not answer.
        """
        if not metadata.request_id:
            return None
        if at_least is not None:
            return await self._written_until(at_least, metadata)
        key = _request_key(metadata)
        may_come = key in self._under_way or key in self._unsettled
        written = await self._written_until(await self._store.head(), metadata)
        if written is None and may_come:
            await self._settle(key)
            return await self._written_until(await self._store.head(), metadata)
        return written

    async def written_or(self, error: Exception, metadata: Metadata, evaluated_at: int | None = None) -> Written:
        """Return what a request wrote before; raise the error if the log's head holds nothing of it.

        An append whose acknowledgement was lost may stand in the log: then the request was done, whatever prevents it
        by now.

        Args:
            error: What stands in the request's way.
            metadata: The request's.
            evaluated_at: The position of the state that the error rests on.
        """
        if written := await self.written(metadata):
            return written
        if evaluated_at is not None and isinstance(error, (Rejected, Conflict)):
            error.evaluated_at = self._store.log, evaluated_at
        raise error

    @contextmanager
    def _noting(self, metadata: Metadata) -> Iterator[None]:
        """Note an append of a request in progress, and whether its outcome is unknown at the end."""
        request = _request_key(metadata)
        self._under_way[request] += 1
        try:
            yield
        except _NOT_WRITTEN:
            raise
        except BaseException:  # a cancelled append may be written too
            self._unsettled[request] = None
            raise
        finally:
            self._under_way[request] -= 1
            if not self._under_way[request]:
                del self._under_way[request]

    async def _settle(self, request: str) -> None:
        """Wait until no append of a request can still come into the log.

        One that was sent and not answered may be queued in the server, which answers a look at the log's head sooner:
        a refusal that rests on such a look would not be final.

        Raises:
            StoreUnavailable: REQUEST_IN_FLIGHT while another call appends for the request; or nobody can tell yet.
        """
        if request in self._under_way:
            raise in_flight()
        if request in self._unsettled:
            await self._store.settle()
            self._unsettled.pop(request, None)

    async def _written_until(self, at_least: int, metadata: Metadata) -> Written | None:
        request = await self._index.find_request(metadata.actor, metadata.request_id, at_least)
        if request is None:
            return None
        if request.digest != metadata.request_digest:
            reused = Rejected(
                Kind.INVALID,
                "REQUEST_ID_REUSED",
                f"request id {metadata.request_id!r} was already used for another command. Use a new one",
                request_id=metadata.request_id,
                position=str(request.first),
            )
            reused.evaluated_at = self._store.log, request.last
            raise reused
        recorded = [await self._store.event_at(position) for position in range(request.first, request.last + 1)]
        events = tuple(event for event in recorded if event is not None)
        for event in events:
            check_readable(event)
        return events, request.last


def in_flight() -> StoreUnavailable:
    """Return the error for a request whose outcome is not known yet."""
    return StoreUnavailable(
        "the outcome of this request is not known yet. Retry with the same request id", "REQUEST_IN_FLIGHT"
    )


def _new_events(events: Sequence[tuple[str, Message]], metadata: Metadata) -> list[NewEvent]:
    ids = [new_id() for _ in events]
    request = _request_key(metadata)
    keys = [f"{request}.{number}" for number in range(len(events))] if metadata.request_id else ids
    return [
        NewEvent(stream, event, metadata, event_id, key)
        for (stream, event), event_id, key in zip(events, ids, keys, strict=True)
    ]


def _request_key(metadata: Metadata) -> str:
    return hashlib.sha256(f"{metadata.actor}\0{metadata.request_id}".encode()).hexdigest()[:32]
