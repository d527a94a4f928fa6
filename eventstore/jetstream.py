"""The JetStream store: a log kept by NATS. The only module that knows NATS."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from urllib.parse import quote

import nats
import nats.errors
import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from eventstore.cloudevents import metadata_of, stream_of, to_headers
from eventstore.codec import EventTypes
from eventstore.delivery import Delivery, DeliveryBroken
from eventstore.errors import DuplicateAppend, EventTooLarge, StoreUnavailable, UnsafeStore, WrongExpectedRevision
from eventstore.event import MAX_EVENT_BYTES, LogCondition, NewEvent, RecordedEvent

OLDEST_SERVER = (2, 12)
HEADER_ROOM = 48_000
DUPLICATE_WINDOW = 120.0
ATTEMPT_SECONDS = 2.0
APPEND_SECONDS = 12.0
READ_BATCH = 500

_WRONG_REVISION = {10071, 10164}
_DUPLICATE_IN_BATCH = 10201

_logger = structlog.get_logger(__name__)


async def connect(url: str, user: str | None = None, password: str | None = None) -> NatsClient:
    """A connection that reconnects for as long as it lives.

    Raises:
        StoreUnavailable: No server answers at `url`, or it refuses the credentials.
        UnsafeStore: The server is older than 2.12, or takes messages too small for an event.
    """

    async def on_error(error: Exception) -> None:
        _logger.warning("nats error", error=repr(error))

    try:
        client = await nats.connect(
            url,
            user=user,
            password=password,
            name="rollforward",
            error_cb=on_error,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            connect_timeout=5,
        )
    except (TimeoutError, nats.errors.Error, OSError) as error:
        raise StoreUnavailable(f"no NATS server that lets us in at {url}: {error}") from error
    version = client.connected_server_version
    if (version.major, version.minor) < OLDEST_SERVER:
        await client.close()
        raise UnsafeStore(f"NATS {version} cannot append several events all or none; 2.12 or newer is needed")
    if client.max_payload < MAX_EVENT_BYTES + HEADER_ROOM:
        await client.close()
        raise UnsafeStore(
            f"NATS takes messages of {client.max_payload} bytes; {MAX_EVENT_BYTES + HEADER_ROOM} are needed"
        )
    return client


def subject_of(log: str, stream: str) -> str:
    """The NATS subject of a stream: one token for each "/"-separated part, so encoded that no name can escape its token."""
    return f"rf.{log}." + ".".join(quote(part, safe="").replace(".", "%2E") for part in stream.split("/"))


class JetStreamStore:
    """A log in one JetStream stream.

    Args:
        client: From `connect`.
        log: The log's name, a word.
        types: What the log may hold.
    """

    def __init__(self, client: NatsClient, log: str, types: EventTypes) -> None:
        self._client = client
        self._log = log
        self._types = types
        self._name = f"rf-{log}"
        self._js = client.jetstream(timeout=ATTEMPT_SECONDS)

    @property
    def log(self) -> str:
        """The log's name."""
        return self._log

    async def open(self, *, replicas: int = 1, erasable: bool = False) -> None:
        """Makes the log when it is not there; an existing one stays as it is.

        Args:
            replicas: On how many servers a new log is kept.
            erasable: Whether single streams of a new log may be erased; if not, nothing can ever be deleted or purged.

        Raises:
            StoreUnavailable: JetStream does not answer or refuses.
        """
        config = api.StreamConfig(
            name=self._name,
            description=f"The {self._log} log of rollforward",
            subjects=[f"rf.{self._log}.>"],
            storage=api.StorageType.FILE,
            num_replicas=replicas,
            discard=api.DiscardPolicy.NEW,
            duplicate_window=DUPLICATE_WINDOW,
            allow_direct=True,
            allow_atomic=True,
            deny_delete=not erasable,
            deny_purge=not erasable,
        )
        try:
            try:
                await self._js.stream_info(self._name)
            except NotFoundError:
                await self._js.add_stream(config)
        except (TimeoutError, nats.errors.Error) as error:
            raise StoreUnavailable(f"JetStream cannot open the {self._log} log: {error}") from error

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        """Appends events, all or none; see `EventStore.append`."""
        messages = self._messages(events, expected or {})
        deadline = time.monotonic() + APPEND_SECONDS
        while True:
            try:
                return await self._attempt(events, messages, expected or {})
            except (TimeoutError, nats.errors.TimeoutError, NoStreamResponseError, ServiceUnavailableError) as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(f"the {self._log} log did not answer in time") from error
                await asyncio.sleep(0.05)
            except nats.errors.Error as error:
                raise StoreUnavailable(f"the {self._log} log cannot be written: {error}") from error

    def _messages(
        self, events: Sequence[NewEvent], expected: Mapping[str, int]
    ) -> list[tuple[str, bytes, dict[str, str]]]:
        checked: set[str] = set()
        batch = {"Nats-Batch-Id": uuid.uuid4().hex} if len(events) > 1 else {}
        messages = []
        for number, event in enumerate(events, 1):
            type_name, payload = self._types.encode(event.data)
            if len(payload) > MAX_EVENT_BYTES:
                raise EventTooLarge(len(payload), MAX_EVENT_BYTES)
            headers = to_headers(self._log, event, type_name, time.time_ns()) | batch
            headers["Nats-Msg-Id"] = event.deduplication_key
            if event.stream in expected and event.stream not in checked:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(expected[event.stream])
                checked.add(event.stream)
            if batch:
                headers["Nats-Batch-Sequence"] = str(number)
            if batch and number == len(events):
                headers["Nats-Batch-Commit"] = "1"
            messages.append((subject_of(self._log, event.stream), payload, headers))
        return messages

    async def _attempt(
        self,
        events: Sequence[NewEvent],
        messages: Sequence[tuple[str, bytes, dict[str, str]]],
        expected: Mapping[str, int],
    ) -> tuple[int, ...]:
        for subject, payload, headers in messages[:-1]:
            await self._client.publish(subject, payload, headers=headers)
        subject, payload, headers = messages[-1]
        try:
            ack = await self._js.publish(subject, payload, timeout=ATTEMPT_SECONDS, headers=headers)
        except APIError as error:
            if error.err_code in _WRONG_REVISION or error.err_code == _DUPLICATE_IN_BATCH:
                return await self._positions_if_appended(events, expected, error)
            raise
        if ack.duplicate:
            first = await self.event_at(ack.seq)
            if first is None or first.id != events[-1].id:
                raise DuplicateAppend(ack.seq)
        return tuple(range(ack.seq - len(events) + 1, ack.seq + 1))

    async def _positions_if_appended(
        self, events: Sequence[NewEvent], expected: Mapping[str, int], error: APIError
    ) -> tuple[int, ...]:
        # An attempt whose answer was lost may have been appended: then the refusal of its repetition is not a conflict.
        stream = events[0].stream
        async for event in self.read(stream, expected.get(stream, 0)):
            if event.id == events[0].id:
                return tuple(range(event.position, event.position + len(events)))
        if error.err_code == _DUPLICATE_IN_BATCH:
            raise DuplicateAppend(0)
        conflicting = await self._conflicting(expected)
        raise WrongExpectedRevision(conflicting, expected.get(conflicting, 0))

    async def _conflicting(self, expected: Mapping[str, int]) -> str:
        for stream, revision in expected.items():
            last = await self._direct({"last_by_subj": subject_of(self._log, stream)})
            if (int(_header(last, "Nats-Sequence")) if last else 0) != revision:
                return stream
        return next(iter(expected), "")

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        """The events of one stream behind a position."""
        subject = subject_of(self._log, stream)
        pending = True
        while pending:
            pending = False
            query = {"seq": after + 1, "next_by_subj": subject, "batch": READ_BATCH, "max_bytes": 8_000_000}
            async for message in self._direct_batch(query):
                if (message.headers or {}).get("Status"):
                    pending = int((message.headers or {}).get("Nats-Num-Pending", "0")) > 0
                    break
                event = self._from_direct(message)
                after = event.position
                yield event

    async def _direct_batch(self, query: Mapping[str, object]) -> AsyncGenerator[Msg, None]:
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        try:
            await self._client.publish(f"$JS.API.DIRECT.GET.{self._name}", json.dumps(query).encode(), reply=inbox)
            while True:
                yield await answers.next_msg(timeout=ATTEMPT_SECONDS)
        except (TimeoutError, nats.errors.Error) as error:
            raise StoreUnavailable(f"the {self._log} log cannot be read: {error!r}") from error
        finally:
            await answers.unsubscribe()

    async def _direct(self, query: Mapping[str, object]) -> Msg | None:
        try:
            message = await self._client.request(
                f"$JS.API.DIRECT.GET.{self._name}", json.dumps(query).encode(), timeout=ATTEMPT_SECONDS
            )
        except (TimeoutError, nats.errors.Error) as error:
            raise StoreUnavailable(f"the {self._log} log cannot be read: {error!r}") from error
        status = (message.headers or {}).get("Status")
        if status and status != "404":
            raise StoreUnavailable(f"the {self._log} log cannot be read: {_header(message, 'Description')}")
        return None if status else message

    async def event_at(self, position: int) -> RecordedEvent | None:
        """The event at a position."""
        message = await self._direct({"seq": position}) if position > 0 else None
        return self._from_direct(message) if message else None

    def _from_direct(self, message: Msg) -> RecordedEvent:
        recorded = Timestamp()
        recorded.FromJsonString(_header(message, "Nats-Time-Stamp"))
        return self._recorded(message, int(_header(message, "Nats-Sequence")), recorded.ToNanoseconds())

    def _recorded(self, message: Msg, position: int, time_ns: int) -> RecordedEvent:
        headers = message.headers or {}
        return RecordedEvent(
            stream=stream_of(headers),
            position=position,
            time=time_ns,
            id=headers["ce-id"],
            data=self._types.decode(headers["ce-type"], message.data),
            metadata=metadata_of(headers),
            closes_append="Nats-Batch-Id" not in headers or "Nats-Batch-Commit" in headers,
        )

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """All events behind a position, then those to come."""
        partial: list[RecordedEvent] = []
        while True:
            try:
                async with Delivery(self._client, self._name, after) as delivery:
                    async for messages in delivery:
                        partial += [self._recorded(m.message, m.position, m.time_ns) for m in messages]
                        whole = _whole_appends(partial)
                        if whole:
                            partial = partial[len(whole) :]
                            after = whole[-1].position
                            yield whole
            except DeliveryBroken as broken:
                partial = []
                _logger.info("subscription starts again", log=self._log, after=after, why=str(broken))
                await asyncio.sleep(0.05)

    async def head(self) -> int:
        """The position of the last event."""
        try:
            info = await self._js.stream_info(self._name)
        except (TimeoutError, nats.errors.Error) as error:
            raise StoreUnavailable(f"the {self._log} log does not answer: {error!r}") from error
        return info.state.last_seq

    async def condition(self) -> LogCondition:
        """How the log is really kept: read from the stream and, where this account may ask, from the server."""
        try:
            config = (await self._js.stream_info(self._name)).config
        except (TimeoutError, nats.errors.Error) as error:
            raise StoreUnavailable(f"the {self._log} log does not answer: {error!r}") from error
        replicas = config.num_replicas or 1
        warnings = tuple(text for text, holds in _weaknesses(config).items() if holds)
        return LogCondition(
            f"{'file' if config.storage == api.StorageType.FILE else 'memory'}, {replicas} replica{'s' * (replicas > 1)}",
            warnings,
            {"nats": str(self._client.connected_server_version)},
        )


def _weaknesses(config: api.StreamConfig) -> dict[str, bool]:
    """What each setting of a stream could do to an acknowledged event, and whether it is so set."""
    limits = [config.max_msgs or 0, config.max_bytes or 0, config.max_age or 0, config.max_msgs_per_subject or 0]
    return {
        "the stream is kept in memory: a restart of NATS loses every event": config.storage != api.StorageType.FILE,
        "the stream has a limit (max_msgs, max_bytes, max_age or max_msgs_per_subject) at which it drops old events": any(
            limit > 0 for limit in limits
        )
        and (config.discard != api.DiscardPolicy.NEW or (config.max_age or 0) > 0),
        "the stream acknowledges before it writes (persist_mode: async)": config.persist_mode == api.PersistMode.ASYNC,
        "the stream cannot append several events all or none (allow_atomic is off)": not config.allow_atomic,
    }


def _whole_appends(events: list[RecordedEvent]) -> list[RecordedEvent]:
    end = len(events)
    while end and not events[end - 1].closes_append:
        end -= 1
    return events[:end]


def _header(message: Msg, name: str) -> str:
    return (message.headers or {}).get(name, "")
