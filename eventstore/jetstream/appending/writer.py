"""Append events to a log's stream: once each, on the revisions that their writer expects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from nats.js.errors import APIError

from eventstore.cloudevents import encode_append
from eventstore.codec import EventTypes
from eventstore.errors import DuplicateAppend, EventTooLarge, StoreUnavailable, WrongExpectedRevision
from eventstore.event import NewEvent
from eventstore.jetstream.appending.coalescing import Coalescer
from eventstore.jetstream.appending.group_commit import (
    DUPLICATE_IN_BATCH,
    EXPECTED,
    EXPECTED_END,
    WRONG_REVISION,
    GroupCommit,
)
from eventstore.jetstream.appending.publishing import AnswerLost, Message, Publisher
from eventstore.jetstream.appending.whole_appends import AppendChecker
from eventstore.jetstream.reading.stream_reader import StreamReader
from eventstore.jetstream.retries import Retries
from eventstore.jetstream.subjects import MAX_SUBJECT_BYTES, subject_of
from eventstore.store import EventStore

TIMEOUT_SECONDS = 12.0
FAILURE_SECONDS = 10.0
"""For how long a failed append counts as a sign that the log takes no writes, unless one succeeds."""


class Writer:
    """Appends events to one log.

    Args:
        store: The log, which is read to find out what became of an append.
        types: What the log may hold.
        publisher: Publishes messages and waits for their acknowledgement.
        appends: Which appends are whole, and where the log ends.
        reader: Reads the log's stream.
        retries: Repeats attempts.
        explain: Returns what is known to be wrong with the servers; empty when nothing is.
    """

    def __init__(
        self,
        store: EventStore,
        types: EventTypes,
        publisher: Publisher,
        appends: AppendChecker,
        reader: StreamReader,
        retries: Retries,
        explain: Callable[[], str],
    ) -> None:
        self._store = store
        self._log = store.log
        self._types = types
        self._publisher = publisher
        self._appends = appends
        self._reader = reader
        self._retry = retries
        self._explain = explain
        self._coalescer = Coalescer()
        self._group_commit = GroupCommit(publisher.publish, TIMEOUT_SECONDS)
        self._failure: tuple[float, str] | None = None

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int]) -> tuple[int, ...]:
        """Append events, all or none, and return their positions; see `EventStore.append`."""
        messages = self._messages(events, expected)
        try:
            positions = await self._retry(lambda: self._attempt(events, messages, expected))
        except StoreUnavailable as error:
            self._failure = time.monotonic(), str(error)
            raise
        self._failure = None
        return positions

    async def settle(self) -> None:
        """Wait until what was sent and not answered is stored, or refused; see `EventStore.settle`."""
        await self._group_commit.wait_for_batch()
        await self._retry(lambda: self._publisher.settle(replicated=self._reader.replicas > 1))

    async def check_writable(self) -> None:
        """Check that the log takes writes.

        Raises:
            StoreUnavailable: It does not answer, or the last append failed a moment ago.
        """
        if why := self._explain():
            raise StoreUnavailable(f"cannot write to the {self._log} log: {why}")
        if not await self._publisher.is_answered():
            raise StoreUnavailable(f"cannot write to the {self._log} log: no server that can write responds")
        failed_at, message = self._failure or (0.0, "")
        if message and time.monotonic() - failed_at < FAILURE_SECONDS:
            raise StoreUnavailable(f"the last append failed: {message}")
        self._failure = None

    def _messages(self, events: Sequence[NewEvent], expected: Mapping[str, int]) -> list[Message]:
        unchecked = dict(expected)
        messages = []
        encoded = encode_append(self._log, events, self._types, time.time_ns())
        for event, (headers, payload) in zip(events, encoded, strict=True):
            subject = subject_of(self._log, event.stream)
            if len(subject) > MAX_SUBJECT_BYTES:
                raise EventTooLarge(len(subject), MAX_SUBJECT_BYTES)
            headers["Nats-Msg-Id"] = quote(event.deduplication_key)
            if event.stream in unchecked:
                revision = self._appends.sequence(event.stream, unchecked.pop(event.stream))
                headers[EXPECTED] = str(revision)
            messages.append((subject, payload, headers))
        if expected and self._appends.end:
            messages[0][2][EXPECTED_END] = str(self._appends.end)
        return messages

    async def _attempt(
        self, events: Sequence[NewEvent], messages: Sequence[Message], expected: Mapping[str, int]
    ) -> tuple[int, ...]:
        try:
            if len(events) > 1:
                last = await self._group_commit.append(messages)
                return tuple(range(last - len(events) + 1, last + 1))
            async with self._coalescer:
                ack = await self._publisher.publish(messages)
        except APIError as error:
            if error.err_code in WRONG_REVISION or error.err_code == DUPLICATE_IN_BATCH:
                return await self._positions_if_appended(events, expected, error)
            raise
        if ack.duplicate:
            first = await self._store.event_at(ack.seq)
            if first is None or first.id != events[-1].id:
                raise DuplicateAppend(ack.seq)
        return (ack.seq,)

    async def _positions_if_appended(
        self, events: Sequence[NewEvent], expected: Mapping[str, int], error: APIError
    ) -> tuple[int, ...]:
        # An attempt whose answer was lost may have been appended: then the refusal of its repetition is not a conflict.
        stream = events[0].stream
        async for event in self._store.read(stream, expected.get(stream, 0)):
            if event.id == events[0].id:
                return tuple(range(event.position, event.position + len(events)))
        if error.err_code == DUPLICATE_IN_BATCH:
            raise DuplicateAppend(0)
        guarded, self._appends.end = self._appends.end, 0
        for expected_stream, revision in expected.items():
            if await self._reader.revision(expected_stream) != revision:
                raise WrongExpectedRevision(expected_stream, revision)
        if guarded:
            raise WrongExpectedRevision(stream, expected.get(stream, 0))
        # A cluster refuses an append, too, while an earlier one to the stream is not settled, a lost attempt at this
        # very append perhaps: nobody else was faster.
        raise AnswerLost("another append to the stream is in progress")
