"""The one path of a command: load the stream's state, decide, append, and decide again when someone else was faster."""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from eventstore.errors import (
    Conflict,
    DuplicateAppend,
    EventTooLarge,
    Kind,
    Rejected,
    StoreUnavailable,
    StreamUnreadable,
    TooManyEvents,
    WrongExpectedRevision,
)
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.ids import new_id
from eventstore.store import EventStore

S = TypeVar("S")

ATTEMPTS = 16
CACHED_STREAMS = 1000
UNSETTLED_REQUESTS = 10_000

Written = tuple[tuple[RecordedEvent, ...], int]
"""The events that a request wrote, and the position to read from to see them."""

_NOT_WRITTEN = (WrongExpectedRevision, DuplicateAppend, EventTooLarge, TooManyEvents, ValueError)
"""The errors of an append that has written nothing, and never will."""

_FINAL = (Rejected, Conflict, EventTooLarge, TooManyEvents)


@dataclass(frozen=True, slots=True)
class Decider(Generic[S]):
    """The rules of one kind of stream, as pure functions.

    Attributes:
        initial: The state of a stream without events.
        decide: What a command makes happen in a state: events, none if it is so already. Raises `Rejected` or
            `Conflict`.
        evolve: The state after an event.
        stream_of: The stream that an event belongs to; without it, that of the command.
        refusal: The error that an event stands for, if it records that a command was refused: it is appended like
            every event, and then raised.
    """

    initial: S
    decide: Callable[[object, S], Sequence[Message]]
    evolve: Callable[[S, RecordedEvent], S]
    stream_of: Callable[[Message], str] | None = None
    refusal: Callable[[Message], Rejected | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Request:
    """What an earlier request with the same id did: its command's digest, its events' first and last position."""

    digest: str
    first: int
    last: int


class RequestIndex(Protocol):
    """Which request made which events; rebuilt from the log like every other projection."""

    async def find_request(self, actor: str, request_id: str, at_least: int) -> Request | None:
        """What that request did, judged by an index that has come to position `at_least` or further."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome(Generic[S]):
    """What a command came to.

    Attributes:
        state: The stream's state after it.
        events: The events that it made, in order; empty when there was nothing to do. A repeated request has those of
            the first.
        position: What to read from to see it: its last event's position, or the stream's revision.
    """

    state: S
    events: tuple[RecordedEvent, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command over several streams shall append.

    Attributes:
        events: Each with its stream, in order; none if it is so already.
        seen: By stream, the revision of what was looked at: the append is refused when one of the streams that it
            writes to is at another.
    """

    events: Sequence[tuple[str, Message]]
    seen: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Held(Generic[S]):
    state: S
    revision: int
    end: int


class CommandHandler(Generic[S]):
    """Handles the commands of one decider.

    Args:
        store: The log.
        decider: The rules.
        requests: Tells a repeated request from a new one.
    """

    def __init__(self, store: EventStore, decider: Decider[S], requests: RequestIndex) -> None:
        self._store = store
        self._decider = decider
        self._requests = requests
        self._cache: OrderedDict[str, _Held[S]] = OrderedDict()
        self._under_way: Counter[str] = Counter()
        self._unsettled: OrderedDict[str, None] = OrderedDict()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def handle(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        """Does a command on a stream, once for each request id.

        Raises:
            Rejected: As the decider says; or REQUEST_ID_REUSED when the id came with another command before.
            Conflict: As the decider says; or STREAM_BUSY when others were faster again and again.
            EventTooLarge, TooManyEvents: The decider made more than the log takes.
            StoreUnavailable: The log or the index did not answer; the same request may be sent again.
            StreamUnreadable: The stream holds an event that this program cannot read.
        """
        lock = self._locks.setdefault(stream, asyncio.Lock())
        async with lock:
            outcome = await self._done(stream, command, metadata)
        self._raise_refusal(outcome.events)
        return outcome

    async def _done(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        for _ in range(ATTEMPTS):
            held = self._cache.get(stream) or await self._refresh(stream)
            try:
                return await self._attempt(stream, held, command, metadata)
            except _FINAL as refusal:
                # Held state may be behind what other writers did: only a refusal by the newest state counts.
                if (await self._refresh(stream)).revision == held.revision:
                    return await self._first_outcome(stream, metadata, refusal, held.end)
            except WrongExpectedRevision:
                await self._refresh(stream)
        busy = Conflict("STREAM_BUSY", f"others were faster {ATTEMPTS} times in a row", stream=stream)
        return await self._first_outcome(stream, metadata, busy)

    async def handle_across(self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata) -> Written:
        """Does a command over several streams, all of it or nothing, once for each request id.

        Args:
            plan: Looks at the newest state and decides; called again when another writer was faster.
            metadata: Who asks, and why.

        Returns: The events, none if there was nothing to do, and the position to read from to see them.

        Raises:
            Rejected, Conflict, TooManyEvents, StoreUnavailable: As `handle`.
        """
        recorded, position = await self._done_across(plan, metadata)
        self._raise_refusal(recorded)
        return recorded, position

    async def _done_across(self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata) -> Written:
        written: set[str] = set()
        for _ in range(ATTEMPTS):
            # First without a lock: to plan may take long, and who is in nobody's way need not wait. Then with those of
            # all streams that it writes to, in one order for all, so that no two wait for each other.
            async with AsyncExitStack() as locked:
                mine = frozenset(written)
                for stream in sorted(mine):
                    await locked.enter_async_context(self._locks.setdefault(stream, asyncio.Lock()))
                with suppress(WrongExpectedRevision):
                    return await self._attempt_across(plan, metadata, written, mine)
        busy = Conflict("STREAM_BUSY", f"others were faster {ATTEMPTS} times in a row")
        return await self._written_or(busy, metadata)

    async def _attempt_across(
        self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata, streams: set[str], mine: Collection[str]
    ) -> Written:
        """Plan and append once; the streams that the plan writes to are put into `streams`, `mine` are locked."""
        try:
            planned = await plan()
            seen = max(planned.seen.values(), default=0)
            if written := await self._written(metadata, at_least=seen):
                return written
            if planned.events:
                return await self._append_across(planned, metadata, streams, mine)
        except _FINAL as refusal:
            # A repetition finds that what it asks for is not possible any more, because it was done.
            return await self._written_or(refusal, metadata, await self._store.head())
        if written := await self._written(metadata):
            return written
        last = await self._store.event_at(seen)
        return (), last.append_end if last else seen

    async def _append_across(
        self, planned: Plan, metadata: Metadata, streams: set[str], mine: Collection[str]
    ) -> Written:
        written_to = {stream for stream, _ in planned.events}
        streams |= written_to
        for stream in written_to.difference(mine):
            # Whoever has the lock of a stream is about to be faster.
            if (lock := self._locks.get(stream)) and lock.locked():
                raise WrongExpectedRevision(stream, planned.seen.get(stream, 0))
        expected = {stream: revision for stream, revision in planned.seen.items() if stream in written_to}
        try:
            recorded = await self._append(_numbered(planned.events, metadata), expected)
        except DuplicateAppend:
            return await self._written_or(_in_flight(), metadata)
        return recorded, recorded[-1].position

    async def handle_concurrently(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        """Does a command whose events commute with all others of the stream and leave its state as it is.

        No expected revision is given, so that many may write at once. The command may be judged by a state that is
        behind what other processes did.

        Raises:
            Rejected, Conflict, EventTooLarge, StoreUnavailable: As `handle`.
        """
        outcome = await self._done_concurrently(stream, command, metadata)
        self._raise_refusal(outcome.events)
        return outcome

    async def _done_concurrently(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        held = self._cache.get(stream) or await self._refresh(stream)
        if written := await self._written(metadata, at_least=0):
            return await self._outcome(stream, written)
        try:
            return await self._attempt_concurrently(stream, held, command, metadata)
        except _FINAL:
            held = await self._refresh(stream)
        try:
            return await self._attempt_concurrently(stream, held, command, metadata)
        except _FINAL as refusal:
            return await self._first_outcome(stream, metadata, refusal, held.end)

    async def _attempt_concurrently(
        self, stream: str, held: _Held[S], command: object, metadata: Metadata
    ) -> Outcome[S]:
        events = self._new_events(stream, self._decider.decide(command, held.state), metadata)
        if not events:
            return await self._nothing(stream, held, metadata)
        try:
            recorded = await self._append(events, None)
        except DuplicateAppend:
            return await self._first_outcome(stream, metadata, _in_flight())
        return Outcome(held.state, recorded, recorded[-1].position)

    async def held(self, stream: str) -> S:
        """A stream's state as it was when it was last looked at; looked at now if it never was."""
        return (self._cache.get(stream) or await self._refresh(stream)).state

    async def state(self, stream: str, until: int | None = None) -> tuple[S, int]:
        """A stream's state and revision, now or as of a position, folded from its events."""
        if until is None:
            held = await self._refresh(stream)
            return held.state, held.revision
        held = _Held(self._decider.initial, 0, 0)
        async for event in self._store.read(stream):
            if event.position > until:
                break
            held = self._evolved(held, event)
        return held.state, held.revision

    async def _attempt(self, stream: str, held: _Held[S], command: object, metadata: Metadata) -> Outcome[S]:
        if written := await self._written(metadata, at_least=held.revision):
            return await self._outcome(stream, written)
        events = self._new_events(stream, self._decider.decide(command, held.state), metadata)
        if not events:
            newest = await self._refresh(stream)
            if newest.revision != held.revision:
                raise WrongExpectedRevision(stream, held.revision)
            return await self._nothing(stream, held, metadata)
        try:
            # What commutes with all that others do may be all that is left of a command.
            judged = any(event.stream == stream for event in events)
            recorded = await self._append(events, {stream: held.revision} if judged else None)
        except DuplicateAppend:
            return await self._first_outcome(stream, metadata, _in_flight())
        for event in recorded:
            if event.stream == stream:
                held = self._evolved(held, event)
        self._hold(stream, held)
        return Outcome(held.state, recorded, recorded[-1].position)

    def _evolved(self, held: _Held[S], event: RecordedEvent) -> _Held[S]:
        _check_readable(event)
        try:
            state = self._decider.evolve(held.state, event)
        except Exception as error:
            # A fold is pure and asks nothing that may be away: whatever it raises is about this event.
            raise StreamUnreadable(event, f"{event.type_name} does not follow from the events before it") from error
        return _Held(state, event.position, event.append_end)

    async def _append(self, events: Sequence[NewEvent], expected: dict[str, int] | None) -> tuple[RecordedEvent, ...]:
        with self._noting(events[0].metadata):
            positions = await self._store.append(events, expected)
        return tuple(
            RecordedEvent(event.stream, position, 0, event.id, event.data, event.metadata, positions[-1])
            for event, position in zip(events, positions, strict=True)
        )

    @contextmanager
    def _noting(self, metadata: Metadata) -> Iterator[None]:
        """Note that an append of a request is under way, and whether its outcome is not known when it ends."""
        request = _request_key(metadata)
        self._under_way[request] += 1
        try:
            yield
        except _NOT_WRITTEN:
            raise
        except BaseException:
            self._unsettled[request] = None
            if len(self._unsettled) > UNSETTLED_REQUESTS:
                self._unsettled.popitem(last=False)
            raise
        finally:
            self._under_way[request] -= 1
            if not self._under_way[request]:
                del self._under_way[request]

    async def _settle(self, request: str) -> None:
        """Return once no append of a request can still come into the log.

        One that was sent and not answered may be queued in the server, which answers a look at the log's head sooner:
        a refusal that rests on such a look would not be final.

        Raises:
            StoreUnavailable: REQUEST_IN_FLIGHT while another call appends for the request; or nobody can tell yet.
        """
        if request in self._under_way:
            raise _in_flight()
        if request in self._unsettled:
            await self._store.settle()
            self._unsettled.pop(request, None)

    def _new_events(self, stream: str, events: Sequence[Message], metadata: Metadata) -> list[NewEvent]:
        stream_of = self._decider.stream_of
        return _numbered([(stream_of(event) if stream_of else stream, event) for event in events], metadata)

    def _raise_refusal(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if refusal := self._decider.refusal(event.data):
                refusal.evaluated_at = self._store.log, event.append_end
                raise refusal

    async def _nothing(self, stream: str, held: _Held[S], metadata: Metadata) -> Outcome[S]:
        """Return the outcome of a command that has nothing to do, unless that is because it was done before."""
        if written := await self._written(metadata):
            return await self._outcome(stream, written)
        return Outcome(held.state, (), held.end)

    async def _first_outcome(
        self, stream: str, metadata: Metadata, otherwise: Exception, evaluated_at: int | None = None
    ) -> Outcome[S]:
        return await self._outcome(stream, await self._written_or(otherwise, metadata, evaluated_at))

    async def _outcome(self, stream: str, written: Written) -> Outcome[S]:
        return Outcome((await self._refresh(stream)).state, *written)

    async def _written_or(self, error: Exception, metadata: Metadata, evaluated_at: int | None = None) -> Written:
        """Return what the request wrote before; raise the error if the log's head holds nothing of it.

        An append whose acknowledgement was lost may stand in the log: then the request was done, whatever is in its
        way by now.
        """
        if written := await self._written(metadata):
            return written
        if evaluated_at is not None and isinstance(error, (Rejected, Conflict)):
            error.evaluated_at = self._store.log, evaluated_at
        raise error

    async def _written(self, metadata: Metadata, at_least: int | None = None) -> Written | None:
        """Return what the request wrote before, judged at a position or further; at the log's head if none is given."""
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

    async def _written_until(self, at_least: int, metadata: Metadata) -> Written | None:
        request = await self._requests.find_request(metadata.actor, metadata.request_id, at_least)
        if request is None:
            return None
        if request.digest != metadata.request_digest:
            reused = Rejected(
                Kind.INVALID,
                "REQUEST_ID_REUSED",
                f"request id {metadata.request_id!r} came with another command before",
                request_id=metadata.request_id,
                position=str(request.first),
            )
            reused.evaluated_at = self._store.log, request.last
            raise reused
        found = [await self._store.event_at(position) for position in range(request.first, request.last + 1)]
        events = tuple(event for event in found if event is not None)
        for event in events:
            _check_readable(event)
        return events, request.last

    async def _refresh(self, stream: str) -> _Held[S]:
        held = self._cache.get(stream) or _Held(self._decider.initial, 0, 0)
        async for event in self._store.read(stream, held.revision):
            held = self._evolved(held, event)
        self._hold(stream, held)
        return held

    def _hold(self, stream: str, held: _Held[S]) -> None:
        known = self._cache.get(stream)
        if known is None or known.revision <= held.revision:
            self._cache[stream] = held
            self._cache.move_to_end(stream)
            if len(self._cache) > CACHED_STREAMS:
                self._cache.popitem(last=False)


def _check_readable(event: RecordedEvent) -> None:
    if event.unreadable:
        raise StreamUnreadable(event, event.unreadable)


def _numbered(events: Sequence[tuple[str, Message]], metadata: Metadata) -> list[NewEvent]:
    ids = [new_id() for _ in events]
    request = _request_key(metadata)
    keys = [f"{request}.{number}" for number in range(len(events))] if metadata.request_id else ids
    return [
        NewEvent(stream, event, metadata, event_id, key)
        for (stream, event), event_id, key in zip(events, ids, keys, strict=True)
    ]


def _in_flight() -> StoreUnavailable:
    return StoreUnavailable("the first outcome of this request is not known yet", "REQUEST_IN_FLIGHT")


def _request_key(metadata: Metadata) -> str:
    return hashlib.sha256(f"{metadata.actor}\0{metadata.request_id}".encode()).hexdigest()[:32]
