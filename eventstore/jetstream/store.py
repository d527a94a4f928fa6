"""The JetStream store: a log kept by NATS."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TypeVar
from urllib.parse import quote

import nats.errors
import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServerError, ServiceUnavailableError

from eventstore.cloudevents import Place, decode, encode_append
from eventstore.codec import EventTypes
from eventstore.concurrency.backoff import pause_after
from eventstore.epochs import FIRST_EPOCH, read_epochs
from eventstore.errors import (
    DuplicateAppend,
    EventTooLarge,
    LogRewritten,
    StoreUnavailable,
    UnsafeStore,
    WrongExpectedRevision,
)
from eventstore.event import LogCondition, NewEvent, RecordedEvent
from eventstore.jetstream.appends import (
    AppendChecker,
    Assembler,
    append_of,
    stream_of,
    torn_message,
)
from eventstore.jetstream.coalescing import Coalescer
from eventstore.jetstream.connection import connect, headers_of, server_version
from eventstore.jetstream.delivery import Delivered, Delivery, DeliveryBroken
from eventstore.jetstream.direct_get import Stored, direct_get
from eventstore.jetstream.error_messages import describe
from eventstore.jetstream.group_commit import DUPLICATE_IN_BATCH, EXPECTED, EXPECTED_END, WRONG_REVISION, GroupCommit
from eventstore.jetstream.history import HistoryReader
from eventstore.jetstream.message_decoding import decode_stored
from eventstore.jetstream.monitoring import FlushQuestion, flush_warnings, stream_warnings
from eventstore.jetstream.publishing import AnswerLost, Message, Publisher
from eventstore.jetstream.stream_config import NEEDED, TOLD_OTHERWISE, differences, stream_config
from eventstore.shared_pages import Page, PagedLog
from eventstore.store import check_append

__all__ = ["JetStreamStore", "connect", "subject_of"]

T = TypeVar("T")

ATTEMPT_SECONDS = 2.0
PATIENCE_SECONDS = 12.0
PAUSE_SECONDS = 0.05
FAILURE_SECONDS = 10.0
"""For how long a failed append counts as a sign that the log takes no writes, unless one succeeds."""

PAGE_EVENTS = 500
MAX_SUBJECT_BYTES = 3_800  # NATS ends the connection at a line of more than 4,096, and a line is more than a subject

_NO_MESSAGE = 10037
_TOO_MANY_BATCHES = 429
_INCOMPLETE_BATCH = 10176  # the connection was lost between the messages of a batch: nothing of it is stored

_logger = structlog.get_logger(__name__)


@lru_cache(maxsize=4096)
def subject_of(log: str, stream: str) -> str:
    """The NATS subject of a stream: a token for each "/"-separated part; no name can escape its token."""
    # An empty token is not allowed; "%" alone is what no other part is encoded as.
    return f"rf.{log}." + ".".join(quote(part, safe="").replace(".", "%2E") or "%" for part in stream.split("/"))


class JetStreamStore:
    """A log in one JetStream stream.

    Args:
        client: From `connect`.
        log: The log's name, a word.
        types: What the log may hold.
        flush: Asks the servers when they flush to disk; without it the log's condition says that it is not known.
        history: Another connection, for reading the past, so that acknowledgements do not wait behind it; without it
            `client`.
        explain: Says what is known to be wrong with the servers; empty when nothing is.
    """

    def __init__(
        self,
        client: NatsClient,
        log: str,
        types: EventTypes,
        flush: FlushQuestion | None = None,
        history: NatsClient | None = None,
        explain: Callable[[], str] = str,
    ) -> None:
        self._client = client
        self._log = log
        self._types = types
        self._flush = flush
        self._explain = explain
        self._write_failure: tuple[float, str] | None = None
        self._name = f"rf-{log}"
        self._js = client.jetstream(timeout=ATTEMPT_SECONDS)
        self._replicas = 1
        self._asked: api.StreamConfig | None = None
        self._epochs: tuple[int, ...] = (FIRST_EPOCH,)
        self._together = Coalescer()
        self._publisher = Publisher(client, self._js, f"rf.{log}.%probe", PATIENCE_SECONDS)
        self._group_commit = GroupCommit(self._publisher.publish, PATIENCE_SECONDS)
        self._appends = AppendChecker(log, self._stored_at, self._last_position)
        self._history = HistoryReader(history or client, self._name, self._from_stored, self._last_stored)
        self._pages = PagedLog(self._load)

    @property
    def log(self) -> str:
        """The log's name."""
        return self._log

    @property
    def epochs(self) -> Sequence[int]:
        """The epochs of the log as it was opened, oldest first."""
        return self._epochs

    async def find(self) -> bool:
        """Open the log for reading if it is there, and return whether it is.

        Raises:
            StoreUnavailable: JetStream does not answer or refuses.
        """

        async def info() -> api.StreamInfo | None:
            try:
                return await self._js.stream_info(self._name)
            except NotFoundError:
                return None

        found = await self._insist(info)
        if found is None:
            return False
        self._replicas = found.config.num_replicas or 1
        self._epochs = await read_epochs(self)
        return True

    async def open(self, *, replicas: int = 1, erasable: bool = False) -> None:
        """Makes the log when it is not there; an existing one stays as it is.

        Args:
            replicas: On how many servers a new log is kept.
            erasable: Whether single streams of a new log may be erased; if not, nothing can ever be deleted or purged.

        Raises:
            StoreUnavailable: JetStream does not answer or refuses.
            UnsafeStore: A new log was not created as it was asked for, or an existing one cannot be used as it is.
        """
        asked = self._asked = stream_config(self._log, replicas, erasable=erasable)
        made = False

        async def info() -> api.StreamInfo:
            nonlocal made
            try:
                return await self._js.stream_info(self._name)
            except NotFoundError:
                made = True
                return await self._js.add_stream(asked)

        given = (await self._insist(info)).config
        different = differences(asked, given)
        unfit = different if made else {setting: different[setting] for setting in NEEDED if setting in different}
        if unfit:
            raise UnsafeStore(f"the {self._log} log cannot be kept safely: {'; '.join(unfit.values())}")
        self._replicas = given.num_replicas or 1
        self._epochs = await read_epochs(self)

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Appends events, all or none; see `EventStore.append`."""
        check_append(events, expected or {})
        messages = self._messages(events, expected or {})
        try:
            positions = await self._insist(lambda: self._attempt(events, messages, expected or {}))
        except StoreUnavailable as error:
            self._write_failure = time.monotonic(), str(error)
            raise
        self._write_failure = None
        return positions

    async def settle(self) -> None:
        """Return once what was sent and not answered is stored, or refused; see `EventStore.settle`."""
        await self._group_commit.wait_for_batch()
        await self._insist(lambda: self._publisher.settle(replicated=self._replicas > 1))

    async def check_writable(self) -> None:
        """Ask the log whether it takes writes.

        Raises:
            StoreUnavailable: It does not answer, or the last append failed a moment ago.
        """
        if why := self._explain():
            raise StoreUnavailable(f"the {self._log} log takes no writes: {why}")
        if not await self._publisher.is_answered():
            raise StoreUnavailable(f"the {self._log} log takes no writes: no server that could write answers")
        failed_at, message = self._write_failure or (0.0, "")
        if message and time.monotonic() - failed_at < FAILURE_SECONDS:
            raise StoreUnavailable(f"the last append failed: {message}")
        self._write_failure = None

    async def _insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Attempts again for as long as a server may need to restart or a cluster to choose a leader."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        failures = 0
        while True:
            try:
                return await attempt()
            except (AnswerLost, TimeoutError, nats.errors.Error) as error:
                failures += 1
                if not _may_pass(error) or time.monotonic() > deadline:
                    words = self._explain() or describe(error)
                    raise StoreUnavailable(f"the {self._log} log does not answer: {words}") from error
                await asyncio.sleep(pause_after(failures))

    def _messages(self, events: Sequence[NewEvent], expected: Mapping[str, int]) -> list[Message]:
        unchecked = dict(expected)
        now = time.time_ns()
        messages = []
        encoded = encode_append(self._log, events, self._types, now)
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
            async with self._together:
                ack = await self._publisher.publish(messages)
        except APIError as error:
            if error.err_code in WRONG_REVISION or error.err_code == DUPLICATE_IN_BATCH:
                return await self._positions_if_appended(events, expected, error)
            raise
        if ack.duplicate:
            first = await self.event_at(ack.seq)
            if first is None or first.id != events[-1].id:
                raise DuplicateAppend(ack.seq)
        return (ack.seq,)

    async def _positions_if_appended(
        self, events: Sequence[NewEvent], expected: Mapping[str, int], error: APIError
    ) -> tuple[int, ...]:
        # An attempt whose answer was lost may have been appended: then the refusal of its repetition is not a conflict.
        stream = events[0].stream
        async for event in self.read(stream, expected.get(stream, 0)):
            if event.id == events[0].id:
                return tuple(range(event.position, event.position + len(events)))
        if error.err_code == DUPLICATE_IN_BATCH:
            raise DuplicateAppend(0)
        guarded, self._appends.end = self._appends.end, 0
        for expected_stream, revision in expected.items():
            if await self._last(expected_stream) != revision:
                raise WrongExpectedRevision(expected_stream, revision)
        if guarded:
            raise WrongExpectedRevision(stream, expected.get(stream, 0))
        # A cluster refuses an append, too, while an earlier one to the stream is not settled, a lost attempt at this
        # very append perhaps: nobody else was faster.
        raise AnswerLost("another append to the stream is under way")

    async def _last(self, stream: str) -> int:
        """A stream's revision, from the leader; `NO_STREAM` when there is none."""
        return await self._leader_finds(subject=subject_of(self._log, stream))

    async def _leader_finds(self, **query: str | int) -> int:
        """The position of the event that a query of the leader is for; 0 when there is none."""

        async def ask() -> int:
            try:
                return (await self._js.get_msg(self._name, **query, direct=False)).seq or 0  # type: ignore[arg-type]
            except NotFoundError as error:
                if error.err_code == _NO_MESSAGE:
                    return 0
                raise

        return await self._insist(ask)

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        """The events of one stream behind a position."""
        subject = subject_of(self._log, stream)
        revision, pending = after, True
        while pending:
            query: dict[str, str | int] = {"seq": after + 1, "next_by_subj": subject, "batch": PAGE_EVENTS}
            get = partial(direct_get, self._client, self._name, query)
            messages, pending = await self._insist(get)
            for message in messages:
                event = self._from_stored(message)
                after = event.position
                if await self._appends.is_whole(event):
                    revision = after
                    yield event
                else:
                    self._appends.left_out(stream, revision, event)
            if not pending and self._replicas > 1 and await self._last(stream) > after:
                # A follower that is behind has answered.
                pending = True
                await asyncio.sleep(PAUSE_SECONDS)

    async def event_at(self, position: int) -> RecordedEvent | None:
        """The event at a position."""
        event = await self._stored_at(position)
        return event if event and await self._appends.is_whole(event) else None

    async def _stored_at(self, position: int) -> RecordedEvent | None:
        """The event at a position, of a torn append too."""
        if position <= 0:
            return None
        while True:
            message = await self._insist(lambda: self._direct(position))
            if message or self._replicas == 1 or not await self._leader_finds(seq=position):
                return self._from_direct(message.headers or {}, message.data) if message else None
            await asyncio.sleep(PAUSE_SECONDS)

    async def _direct(self, position: int) -> Msg | None:
        subject, query = f"$JS.API.DIRECT.GET.{self._name}", json.dumps({"seq": position}).encode()
        message = await self._client.request(subject, query, timeout=ATTEMPT_SECONDS)
        status = _header(message, "Status")
        if status and status != "404":
            raise NoStreamResponseError
        return None if status else message

    def _from_stored(self, message: Stored) -> RecordedEvent:
        block, payload = message
        event = decode_stored(block, payload, self._log, self._types)
        return event or self._from_direct(headers_of(block), payload)

    def _from_direct(self, headers: Mapping[str, str], payload: bytes) -> RecordedEvent:
        subject, position = headers.get("Nats-Subject", ""), int(headers.get("Nats-Sequence", ""))
        return self._recorded(headers, payload, subject, position, _nanoseconds(headers.get("Nats-Time-Stamp", "")))

    def _recorded(
        self, headers: Mapping[str, str], payload: bytes, subject: str, position: int, time_ns: int
    ) -> RecordedEvent:
        append_end, append_id = append_of(headers, position)
        place = Place(stream_of(self._log, subject), position, time_ns, append_end, append_id)
        return decode(headers, payload, self._types, place)

    def past(self, after: int, until: int, *, shared: bool = False) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield the events after a position up to another; see `EventStore.past`."""
        return (self._pages.shared if shared else self._pages.fresh)(after, until)

    async def _load(self, after: int, is_mark: bool, until: int) -> Page:
        stretch = await self._insist(lambda: self._history.read(after, is_mark, until))
        return stretch.page(await self._assemble(Assembler(), stretch.events))

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """All events behind a position, then those to come."""
        last = await self.event_at(after)
        failures = 0
        while True:
            try:
                await self._check_holds(last)
                async with Delivery(self._client, self._name, last.position if last else after) as delivery:
                    appends = Assembler()
                    async for messages in delivery:
                        failures = 0
                        events = [self._delivered(one) for one in messages]
                        if whole := await self._assemble(appends, events):
                            last = whole[-1]
                            yield whole
            except (DeliveryBroken, StoreUnavailable) as broken:
                if self._client.is_closed:
                    raise StoreUnavailable(f"the connection to the {self._log} log is closed") from broken
                _logger.info("subscription starts again", log=self._log, why=str(broken))
                failures += 1
                await asyncio.sleep(pause_after(failures))

    def _delivered(self, delivered: Delivered) -> RecordedEvent:
        message = delivered.message
        return self._recorded(
            message.headers or {}, message.data, message.subject, delivered.position, delivered.time_ns
        )

    async def _assemble(self, appends: Assembler, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """The events that are whole appends now."""
        whole = appends.add(events)
        while appends.torn:
            event = appends.torn.pop()
            self._appends.note_torn(event, torn_message(event))
        if appends.open and await self._appends.is_whole(appends.open[-1]):
            last = appends.open[-1]
            if await self._stored_at(last.append_end) is None:
                whole += appends.take()  # what it ended with was erased
        return whole

    async def _check_holds(self, last: RecordedEvent | None) -> None:
        if last:
            now = await self.event_at(last.position)
            # An event may have been erased from the middle of a log; one behind the log's head was lost.
            if (now.id != last.id) if now else (await self.head() < last.position):
                raise LogRewritten(f"the {self._log} log no longer holds event {last.id} at position {last.position}")

    async def head(self) -> int:
        """The position of the last event, even if it was erased."""
        return await self._appends.whole_until(await self._last_position())

    async def last(self) -> int:
        """The position of the last event that is there."""
        return await self._appends.whole_until(await self._last_stored(), erased=False)

    async def _last_stored(self) -> int:
        """The position of the last event that is there, of a torn append, too."""
        return await self._leader_finds(subject=f"rf.{self._log}.>")

    async def _last_position(self) -> int:
        """The position of the last event, even if it was erased or is of a torn append."""
        return (await self._info()).state.last_seq

    async def _info(self) -> api.StreamInfo:
        return await self._insist(lambda: self._js.stream_info(self._name))

    async def condition(self) -> LogCondition:
        """How the log is really kept: read from the stream and, where it can be asked, from the server."""
        info = await self._info()
        config = info.config
        if newest := await self._stored_at(info.state.last_seq):
            await self._appends.is_whole(newest)
        replicas = config.num_replicas or 1
        words = f"{config.storage or 'file'}, {replicas} replica{'s' * (replicas > 1)}"
        different = differences(self._asked, config) if self._asked else {}
        told = [words for setting, words in different.items() if setting not in TOLD_OTHERWISE]
        warnings = [
            *stream_warnings(config),
            *told,
            *await flush_warnings(self._flush, replicas),
            *self._appends.warnings,
        ]
        return LogCondition(words, tuple(warnings), {"nats": server_version(self._client)})


def _may_pass(error: Exception) -> bool:
    passing = (
        AnswerLost,
        TimeoutError,
        nats.errors.NoRespondersError,
        NoStreamResponseError,
        ServiceUnavailableError,
        ServerError,
    )
    if isinstance(error, APIError) and (error.code == _TOO_MANY_BATCHES or error.err_code == _INCOMPLETE_BATCH):
        return True
    return isinstance(error, passing)


def _nanoseconds(timestamp: str) -> int:
    """Return a time such as 2026-11-30T18:37:50.123456789Z in nanoseconds since 1970."""
    second, _, fraction = timestamp.removesuffix("Z").partition(".")
    return _seconds(second) * 1_000_000_000 + int(fraction.ljust(9, "0"))


@lru_cache(maxsize=8)
def _seconds(second: str) -> int:
    return int(datetime.fromisoformat(second).replace(tzinfo=UTC).timestamp())


def _header(message: Msg, name: str) -> str:
    return (message.headers or {}).get(name, "")
