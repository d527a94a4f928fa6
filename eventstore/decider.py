"""The one path of a command: load the stream's state, decide, append, and decide again when someone else was faster."""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from eventstore.errors import Conflict, DuplicateAppend, Kind, Rejected, StoreUnavailable, WrongExpectedRevision
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.ids import new_id
from eventstore.store import EventStore

S = TypeVar("S")

ATTEMPTS = 16
CACHED_STREAMS = 1000


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
        self._across = asyncio.Lock()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def handle(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        """Does a command on a stream, once for each request id.

        Raises:
            Rejected: As the decider says; or REQUEST_ID_REUSED when the id came with another command before.
            Conflict: As the decider says; or STREAM_BUSY when others were faster again and again.
            EventTooLarge, TooManyEvents: The decider made more than the log takes.
            StoreUnavailable: The log or the index did not answer; the same request may be sent again.
        """
        lock = self._locks.setdefault(stream, asyncio.Lock())
        async with lock:
            for _ in range(ATTEMPTS):
                held = self._cache.get(stream) or await self._refresh(stream)
                try:
                    outcome = await self._attempt(stream, held, command, metadata)
                    break
                except (Rejected, Conflict) as refusal:
                    # Held state may be behind what other writers did: only a refusal by the newest state counts.
                    if (await self._refresh(stream)).revision == held.revision:
                        refusal.judged_at = self._store.log, held.end
                        raise
                except WrongExpectedRevision:
                    await self._refresh(stream)
            else:
                raise Conflict("STREAM_BUSY", f"others were faster {ATTEMPTS} times in a row", stream=stream)
        self._raise_refusal(outcome.events)
        return outcome

    async def handle_across(
        self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata
    ) -> tuple[tuple[RecordedEvent, ...], int]:
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

    async def _done_across(
        self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata
    ) -> tuple[tuple[RecordedEvent, ...], int]:
        written: set[str] = set()
        if not self._across.locked():
            # To plan may take long: as long as nobody is in the way, nobody waits for it.
            with suppress(WrongExpectedRevision):
                return await self._attempt_across(plan, metadata, written)
        async with self._across, AsyncExitStack() as held:
            locked: set[str] = set()
            for _ in range(ATTEMPTS):
                # Whoever writes to one of these streams only is quicker, and would be again and again.
                for stream in sorted(written - locked):
                    await held.enter_async_context(self._locks.setdefault(stream, asyncio.Lock()))
                locked |= written
                with suppress(WrongExpectedRevision):
                    return await self._attempt_across(plan, metadata, written)
        raise Conflict("STREAM_BUSY", f"others were faster {ATTEMPTS} times in a row")

    async def _attempt_across(
        self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata, written: set[str]
    ) -> tuple[tuple[RecordedEvent, ...], int]:
        """Plans and appends once; the streams that it writes to are put into `written`."""
        try:
            planned = await plan()
        except (Rejected, Conflict) as refusal:
            # A repetition finds that what it asks for is not possible any more, because it was done.
            head = await self._store.head()
            if repeated := await self._repeated_events(metadata, at_least=head):
                return repeated
            refusal.judged_at = self._store.log, head
            raise
        seen = max(planned.seen.values(), default=0)
        if repeated := await self._repeated_events(metadata, at_least=seen):
            return repeated
        if not planned.events:
            last = await self._store.event_at(seen)
            return (), last.append_end if last else seen
        streams = {stream for stream, _ in planned.events}
        written |= streams
        expected = {stream: revision for stream, revision in planned.seen.items() if stream in streams}
        try:
            recorded = await self._append(_numbered(planned.events, metadata), expected)
        except DuplicateAppend:
            return await self._first_events(metadata)
        return recorded, recorded[-1].position

    async def handle_concurrently(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        """Does a command whose events commute with all others of the stream and leave its state as it is.

        No expected revision is given, so that many may write at once. The command may be judged by a state that is
        behind what other processes did.

        Raises:
            Rejected, Conflict, EventTooLarge, StoreUnavailable: As `handle`.
        """
        held = self._cache.get(stream) or await self._refresh(stream)
        if repeated := await self._repeated(stream, metadata, at_least=0):
            return repeated
        try:
            events = self._new_events(stream, self._decider.decide(command, held.state), metadata)
        except (Rejected, Conflict):
            held = await self._refresh(stream)
            try:
                events = self._new_events(stream, self._decider.decide(command, held.state), metadata)
            except (Rejected, Conflict) as refusal:
                refusal.judged_at = self._store.log, held.end
                raise
        try:
            recorded = await self._append(events, None)
        except DuplicateAppend:
            return await self._first_outcome(stream, metadata)
        return Outcome(held.state, recorded, recorded[-1].position if recorded else held.end)

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
            held = _Held(self._decider.evolve(held.state, event), event.position, event.append_end)
        return held.state, held.revision

    async def _attempt(self, stream: str, held: _Held[S], command: object, metadata: Metadata) -> Outcome[S]:
        if repeated := await self._repeated(stream, metadata, at_least=held.revision):
            return repeated
        events = self._new_events(stream, self._decider.decide(command, held.state), metadata)
        if not events:
            newest = await self._refresh(stream)
            if newest.revision != held.revision:
                raise WrongExpectedRevision(stream, held.revision)
            return Outcome(held.state, (), held.end)
        try:
            # What commutes with all that others do may be all that is left of a command.
            judged = any(event.stream == stream for event in events)
            recorded = await self._append(events, {stream: held.revision} if judged else None)
        except DuplicateAppend:
            return await self._first_outcome(stream, metadata)
        for event in recorded:
            if event.stream == stream:
                held = _Held(self._decider.evolve(held.state, event), event.position, event.append_end)
        self._hold(stream, held)
        return Outcome(held.state, recorded, recorded[-1].position)

    async def _append(self, events: Sequence[NewEvent], expected: dict[str, int] | None) -> tuple[RecordedEvent, ...]:
        if not events:
            return ()
        positions = await self._store.append(events, expected)
        return tuple(
            RecordedEvent(event.stream, position, 0, event.id, event.data, event.metadata, positions[-1])
            for event, position in zip(events, positions, strict=True)
        )

    def _new_events(self, stream: str, events: Sequence[Message], metadata: Metadata) -> list[NewEvent]:
        stream_of = self._decider.stream_of
        return _numbered([(stream_of(event) if stream_of else stream, event) for event in events], metadata)

    def _raise_refusal(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if refusal := self._decider.refusal(event.data):
                refusal.judged_at = self._store.log, event.append_end
                raise refusal

    async def _repeated(self, stream: str, metadata: Metadata, at_least: int) -> Outcome[S] | None:
        repeated = await self._repeated_events(metadata, at_least)
        if repeated is None:
            return None
        events, position = repeated
        return Outcome((await self._refresh(stream)).state, events, position)

    async def _repeated_events(self, metadata: Metadata, at_least: int) -> tuple[tuple[RecordedEvent, ...], int] | None:
        if not metadata.request_id:
            return None
        request = await self._requests.find_request(metadata.actor, metadata.request_id, at_least)
        if request is None:
            return None
        if request.digest != metadata.request_digest:
            raise Rejected(
                Kind.INVALID,
                "REQUEST_ID_REUSED",
                f"request id {metadata.request_id!r} came with another command before",
                request_id=metadata.request_id,
                position=str(request.first),
            )
        found = [await self._store.event_at(position) for position in range(request.first, request.last + 1)]
        events = tuple(event for event in found if event is not None)
        self._raise_refusal(events)
        return events, request.last

    async def _first_outcome(self, stream: str, metadata: Metadata) -> Outcome[S]:
        events, position = await self._first_events(metadata)
        return Outcome((await self._refresh(stream)).state, events, position)

    async def _first_events(self, metadata: Metadata) -> tuple[tuple[RecordedEvent, ...], int]:
        repeated = await self._repeated_events(metadata, at_least=await self._store.head())
        if repeated is None:
            raise StoreUnavailable("the first outcome of this request is not known yet", "REQUEST_IN_FLIGHT")
        return repeated

    async def _refresh(self, stream: str) -> _Held[S]:
        held = self._cache.get(stream) or _Held(self._decider.initial, 0, 0)
        async for event in self._store.read(stream, held.revision):
            held = _Held(self._decider.evolve(held.state, event), event.position, event.append_end)
        self._hold(stream, held)
        return held

    def _hold(self, stream: str, held: _Held[S]) -> None:
        known = self._cache.get(stream)
        if held.revision and (known is None or known.revision <= held.revision):
            self._cache[stream] = held
            self._cache.move_to_end(stream)
            if len(self._cache) > CACHED_STREAMS:
                self._cache.popitem(last=False)


def _numbered(events: Sequence[tuple[str, Message]], metadata: Metadata) -> list[NewEvent]:
    ids = [new_id() for _ in events]
    request = _request_key(metadata)
    keys = [f"{request}.{number}" for number in range(len(events))] if metadata.request_id else ids
    return [
        NewEvent(stream, event, metadata, event_id, key)
        for (stream, event), event_id, key in zip(events, ids, keys, strict=True)
    ]


def _request_key(metadata: Metadata) -> str:
    return hashlib.sha256(f"{metadata.actor}\0{metadata.request_id}".encode()).hexdigest()[:32]
