"""The JetStream store: a log kept by NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import structlog
from nats.aio.client import Client as NatsClient
from nats.js import api
from nats.js.errors import NotFoundError

from eventstore.codec import EventTypes
from eventstore.concurrency.backoff import pause_after
from eventstore.epochs import FIRST_EPOCH, read_epochs
from eventstore.errors import LogRewritten, StoreUnavailable, UnsafeStore
from eventstore.event import LogCondition, NewEvent, RecordedEvent
from eventstore.jetstream.appending.publishing import Publisher
from eventstore.jetstream.appending.whole_appends import AppendChecker, Assembler, torn_message
from eventstore.jetstream.appending.writer import TIMEOUT_SECONDS, Writer
from eventstore.jetstream.connection import server_version
from eventstore.jetstream.monitoring import FlushQuestion, flush_warnings, stream_warnings
from eventstore.jetstream.reading.delivery import Delivery, DeliveryBroken
from eventstore.jetstream.reading.history import HistoryReader
from eventstore.jetstream.reading.shared_pages import Page, PagedLog
from eventstore.jetstream.reading.stream_reader import ATTEMPT_SECONDS, StreamReader
from eventstore.jetstream.retries import Retries
from eventstore.jetstream.stream_config import NEEDED, WARNED_ELSEWHERE, differences, stream_config
from eventstore.store import check_append

_logger = structlog.get_logger(__name__)


class JetStreamStore:
    """A log in one JetStream stream.

    Args:
        client: From `connect`.
        log: The log's name, a word.
        types: What the log may hold.
        flush: Asks the servers when they flush to disk; without it the log's condition says that it is not known.
        history: Another connection, for reading the past, so that acknowledgements do not wait for it; without it
            `client`.
        explain: Returns what is known to be wrong with the servers; empty when nothing is.
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
        self._flush = flush
        self._name = f"rf-{log}"
        self._js = client.jetstream(timeout=ATTEMPT_SECONDS)
        self._config: api.StreamConfig | None = None
        self._epochs: tuple[int, ...] = (FIRST_EPOCH,)
        self._retry = Retries(log, explain)
        self._reader = StreamReader(client, self._js, log, types, self._retry)
        self._appends = AppendChecker(log, self._reader.stored_at, self._reader.last_position)
        self._publisher = Publisher(client, self._js, f"rf.{log}.%probe", TIMEOUT_SECONDS)
        self._writer = Writer(self, types, self._publisher, self._appends, self._reader, self._retry, explain)
        self._history = HistoryReader(history or client, self._name, self._reader.from_stored, self._reader.last_stored)
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

        stream = await self._retry(info)
        if stream is None:
            return False
        self._reader.replicas = stream.config.num_replicas or 1
        self._epochs = await read_epochs(self)
        return True

    async def open(self, *, replicas: int = 1, erasable: bool = False) -> None:
        """Create the log if it does not exist; an existing one stays as it is.

        Args:
            replicas: On how many servers a new log is kept.
            erasable: Whether single streams of a new log may be erased; if not, nothing can ever be deleted or purged.

        Raises:
            StoreUnavailable: JetStream does not answer or refuses.
            UnsafeStore: A new log was not created as it was asked for, or an existing one cannot be used as it is.
        """
        wanted = self._config = stream_config(self._log, replicas, erasable=erasable)
        created = False

        async def info() -> api.StreamInfo:
            nonlocal created
            try:
                return await self._js.stream_info(self._name)
            except NotFoundError:
                created = True
                return await self._js.add_stream(wanted)

        given = (await self._retry(info)).config
        different = differences(wanted, given)
        unfit = different if created else {setting: different[setting] for setting in NEEDED if setting in different}
        if unfit:
            raise UnsafeStore(f"unsafe {self._log} log: {'; '.join(unfit.values())}")
        self._reader.replicas = given.num_replicas or 1
        self._epochs = await read_epochs(self)

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Append events, all or none; see `EventStore.append`."""
        check_append(events, expected or {})
        return await self._writer.append(events, expected or {})

    async def settle(self) -> None:
        """Wait until what was sent and not answered is stored, or refused; see `EventStore.settle`."""
        await self._writer.settle()

    async def check_writable(self) -> None:
        """Check that the log takes writes.

        Raises:
            StoreUnavailable: It does not answer, or the last append failed a moment ago.
        """
        await self._writer.check_writable()

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        """Yield the events of one stream after a position."""
        revision, more = after, True
        while more:
            events, more = await self._reader.page(stream, after)
            for event in events:
                after = event.position
                if await self._appends.is_whole(event):
                    revision = after
                    yield event
                else:
                    self._appends.left_out(stream, revision, event)

    async def event_at(self, position: int) -> RecordedEvent | None:
        """Return the event at a position; None when there is none, or it is of a torn append."""
        event = await self._reader.stored_at(position)
        return event if event and await self._appends.is_whole(event) else None

    def past(self, after: int, until: int, *, shared: bool = False) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield the events after a position until another; see `EventStore.past`."""
        return (self._pages.shared if shared else self._pages.fresh)(after, until)

    async def _load(self, after: int, is_mark: bool, until: int) -> Page:
        stretch = await self._retry(lambda: self._history.read(after, is_mark, until))
        return stretch.page(await self._assemble(Assembler(), stretch.events))

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Yield all events after a position, then those to come."""
        last = await self.event_at(after)
        failures = 0
        while True:
            try:
                await self._check_holds(last)
                async with Delivery(self._client, self._name, last.position if last else after) as delivery:
                    appends = Assembler()
                    async for messages in delivery:
                        failures = 0
                        events = [self._reader.from_delivered(message) for message in messages]
                        if whole := await self._assemble(appends, events):
                            last = whole[-1]
                            yield whole
            except (DeliveryBroken, StoreUnavailable) as broken:
                if self._client.is_closed:
                    raise StoreUnavailable(f"the connection to the {self._log} log is closed") from broken
                _logger.info("subscription interrupted, retrying", log=self._log, error=str(broken))
                failures += 1
                await asyncio.sleep(pause_after(failures))

    async def _assemble(self, appends: Assembler, events: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        """Return the events that are whole appends now."""
        whole = appends.add(events)
        while appends.torn:
            event = appends.torn.pop()
            self._appends.note_torn(event, torn_message(event))
        if appends.open and await self._appends.is_whole(appends.open[-1]):
            last = appends.open[-1]
            if await self._reader.stored_at(last.append_end) is None:
                whole += appends.take()  # the last event of the append was erased
        return whole

    async def _check_holds(self, last: RecordedEvent | None) -> None:
        if last:
            now = await self.event_at(last.position)
            # An event may have been erased from the middle of a log; one after the log's head was lost.
            if (now.id != last.id) if now else (await self.head() < last.position):
                raise LogRewritten(f"the {self._log} log lost event {last.id} at position {last.position}")

    async def head(self) -> int:
        """Return the position of the last event, even if it was erased."""
        return await self._appends.whole_until(await self._reader.last_position())

    async def last(self) -> int:
        """Return the position of the last event that was not erased."""
        return await self._appends.whole_until(await self._reader.last_stored(), erased=False)

    async def condition(self) -> LogCondition:
        """Return how the log is really kept: read from the stream and, where it can be asked, from the server."""
        info = await self._reader.info()
        config = info.config
        if newest := await self._reader.stored_at(info.state.last_seq):
            await self._appends.is_whole(newest)
        replicas = config.num_replicas or 1
        storage = f"{config.storage or 'file'}, {replicas} replica{'s' * (replicas > 1)}"
        different = differences(self._config, config) if self._config else {}
        unexpected = [text for setting, text in different.items() if setting not in WARNED_ELSEWHERE]
        warnings = [
            *stream_warnings(config),
            *unexpected,
            *await flush_warnings(self._flush, replicas),
            *self._appends.warnings,
        ]
        return LogCondition(storage, tuple(warnings), {"nats": server_version(self._client)})
