"""The path of a command: load the stream's state, decide, append, and decide again when another writer was faster."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from google.protobuf.message import Message

from eventstore.commands.multi_stream import ATTEMPTS, REFUSALS, MultiStreamCommands, StreamLocks
from eventstore.commands.request_outcomes import RequestOutcomes, Written, in_flight
from eventstore.commands.stream_states import StreamState, StreamStates
from eventstore.decider import Decider, Outcome, Plan, RequestIndex
from eventstore.errors import Conflict, DuplicateAppend, WrongExpectedRevision
from eventstore.event import Metadata, RecordedEvent
from eventstore.store import EventStore

S = TypeVar("S")


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
        self._states = StreamStates(store, decider)
        self._requests = RequestOutcomes(store, requests)
        self._locks: StreamLocks = weakref.WeakValueDictionary()
        self._across = MultiStreamCommands(store, self._requests, self._locks)

    async def handle(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        """Handle a command on a stream, once for each request id.

        Raises:
            Rejected: By the decider; or REQUEST_ID_REUSED when the id was used for another command.
            Conflict: By the decider; or STREAM_BUSY when others were faster again and again.
            EventTooLarge, TooManyEvents: The decider made more than the log takes.
            StoreUnavailable: The log or the index did not answer; the same request may be sent again.
            StreamUnreadable: The stream holds an event that this program cannot read.
        """
        async with self._locks.setdefault(stream, asyncio.Lock()):
            outcome = await self._handle(stream, command, metadata)
        self._raise_refusal(outcome.events)
        return outcome

    async def handle_across(self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata) -> Written:
        """Handle a command over several streams, all of it or nothing, once for each request id.

        Args:
            plan: Reads the newest state and decides; called again when another writer was faster.
            metadata: Who asks, and why.

        Returns:
            The events, none if there was nothing to do, and the position to read from to see them.

        Raises:
            Rejected, Conflict, TooManyEvents, StoreUnavailable: As `handle`.
        """
        recorded, position = await self._across.handle(plan, metadata)
        self._raise_refusal(recorded)
        return recorded, position

    async def handle_concurrently(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        """Handle a command whose events commute with all others of the stream and leave its state as it is.

        No expected revision is given, so that many may write at once. The command may be decided on a state that does
        not include what other processes wrote last.

        Raises:
            Rejected, Conflict, EventTooLarge, StoreUnavailable: As `handle`.
        """
        outcome = await self._handle_concurrently(stream, command, metadata)
        self._raise_refusal(outcome.events)
        return outcome

    async def cached_state(self, stream: str) -> S:
        """Return the last known state of a stream; other processes may have written since."""
        return (await self._states.cached(stream)).state

    async def state(self, stream: str, until: int | None = None) -> tuple[S, int]:
        """Return a stream's state and revision, now or as of a position, folded from its events."""
        if until is None:
            newest = await self._states.newest(stream)
            return newest.state, newest.revision
        past = await self._states.at(stream, until)
        return past.state, past.revision

    async def _handle(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        for _ in range(ATTEMPTS):
            state = await self._states.cached(stream)
            try:
                return await self._attempt(stream, state, command, metadata)
            except REFUSALS as refusal:
                # The cached state may lack what other writers did: only a refusal by the newest one counts.
                if (await self._states.newest(stream)).revision == state.revision:
                    return await self._first_outcome(stream, metadata, refusal, state.end)
            except WrongExpectedRevision:
                await self._states.newest(stream)
        busy = Conflict(
            "STREAM_BUSY", f"too much contention: other writers were faster {ATTEMPTS} times. Retry", stream=stream
        )
        return await self._first_outcome(stream, metadata, busy)

    async def _attempt(self, stream: str, state: StreamState[S], command: object, metadata: Metadata) -> Outcome[S]:
        if written := await self._requests.written(metadata, at_least=state.revision):
            return await self._outcome(stream, written)
        events = self._decide(stream, command, state.state)
        if not events:
            newest = await self._states.newest(stream)
            if newest.revision != state.revision:
                raise WrongExpectedRevision(stream, state.revision)
            return await self._unchanged(stream, state, metadata)
        try:
            # Events that commute with all others may be all that is left of a command.
            conditional = any(event_stream == stream for event_stream, _ in events)
            recorded = await self._requests.append(events, metadata, {stream: state.revision} if conditional else None)
        except DuplicateAppend:
            return await self._first_outcome(stream, metadata, in_flight())
        for event in recorded:
            if event.stream == stream:
                state = self._states.after(state, event)
        self._states.keep(stream, state)
        return Outcome(state.state, recorded, recorded[-1].position)

    async def _handle_concurrently(self, stream: str, command: object, metadata: Metadata) -> Outcome[S]:
        state = await self._states.cached(stream)
        if written := await self._requests.written(metadata, at_least=0):
            return await self._outcome(stream, written)
        try:
            return await self._attempt_concurrently(stream, state, command, metadata)
        except REFUSALS:
            state = await self._states.newest(stream)
        try:
            return await self._attempt_concurrently(stream, state, command, metadata)
        except REFUSALS as refusal:
            return await self._first_outcome(stream, metadata, refusal, state.end)

    async def _attempt_concurrently(
        self, stream: str, state: StreamState[S], command: object, metadata: Metadata
    ) -> Outcome[S]:
        events = self._decide(stream, command, state.state)
        if not events:
            return await self._unchanged(stream, state, metadata)
        try:
            recorded = await self._requests.append(events, metadata, None)
        except DuplicateAppend:
            return await self._first_outcome(stream, metadata, in_flight())
        return Outcome(state.state, recorded, recorded[-1].position)

    def _decide(self, stream: str, command: object, state: S) -> list[tuple[str, Message]]:
        stream_of = self._decider.stream_of
        decided = self._decider.decide(command, state)
        return [(stream_of(event) if stream_of else stream, event) for event in decided]

    def _raise_refusal(self, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if refusal := self._decider.refusal(event.data):
                refusal.evaluated_at = self._store.log, event.append_end
                raise refusal

    async def _unchanged(self, stream: str, state: StreamState[S], metadata: Metadata) -> Outcome[S]:
        """Return the outcome of a command that has nothing to do, unless that is because it was done before."""
        if written := await self._requests.written(metadata):
            return await self._outcome(stream, written)
        return Outcome(state.state, (), state.end)

    async def _first_outcome(
        self, stream: str, metadata: Metadata, error: Exception, evaluated_at: int | None = None
    ) -> Outcome[S]:
        """Return what the request wrote before; raise the error if it wrote nothing."""
        return await self._outcome(stream, await self._requests.written_or(error, metadata, evaluated_at))

    async def _outcome(self, stream: str, written: Written) -> Outcome[S]:
        return Outcome((await self._states.newest(stream)).state, *written)
