"""Commands over several streams: planned, and appended whole or not at all."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack, suppress

from eventstore.commands.request_outcomes import RequestOutcomes, Written, in_flight
from eventstore.decider import Plan
from eventstore.errors import Conflict, DuplicateAppend, EventTooLarge, Rejected, TooManyEvents, WrongExpectedRevision
from eventstore.event import Metadata
from eventstore.store import EventStore

ATTEMPTS = 16

StreamLocks = weakref.WeakValueDictionary[str, asyncio.Lock]
"""The locks of streams that a command is under way on."""

REFUSALS = (Rejected, Conflict, EventTooLarge, TooManyEvents)
"""The errors that end a command, if the state that they rest on is the newest."""


class MultiStreamCommands:
    """Handles commands over several streams of a log.

    Args:
        store: The log.
        requests: Appends, and finds what requests wrote.
        locks: The streams' locks, which commands on one stream take too.
    """

    def __init__(self, store: EventStore, requests: RequestOutcomes, locks: StreamLocks) -> None:
        self._store = store
        self._requests = requests
        self._locks = locks

    async def handle(self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata) -> Written:
        """Plan and append, and retry while other writers are faster; see `CommandHandler.handle_across`."""
        streams: set[str] = set()
        for _ in range(ATTEMPTS):
            # The first time without locks: a plan may take long, and a command that no other one conflicts with need
            # not wait. Then with those of all streams that it writes to, in one order for all: so no two deadlock.
            async with AsyncExitStack() as stack:
                locked = frozenset(streams)
                for stream in sorted(locked):
                    await stack.enter_async_context(self._locks.setdefault(stream, asyncio.Lock()))
                with suppress(WrongExpectedRevision):
                    return await self._attempt(plan, metadata, streams, locked)
        busy = Conflict("STREAM_BUSY", f"too much contention: other writers were faster {ATTEMPTS} times. Retry")
        return await self._requests.written_or(busy, metadata)

    async def _attempt(
        self, plan: Callable[[], Awaitable[Plan]], metadata: Metadata, streams: set[str], locked: Collection[str]
    ) -> Written:
        """Plan and append once; add the streams that the plan writes to to `streams`."""
        try:
            planned = await plan()
            seen = max(planned.expected.values(), default=0)
            if written := await self._requests.written(metadata, at_least=seen):
                return written
            if planned.events:
                return await self._append(planned, metadata, streams, locked)
        except REFUSALS as refusal:
            # A repeated request may find that it is not possible any more, because it was done.
            return await self._requests.written_or(refusal, metadata, await self._store.head())
        if written := await self._requests.written(metadata):
            return written
        last = await self._store.event_at(seen)
        return (), last.append_end if last else seen

    async def _append(self, planned: Plan, metadata: Metadata, streams: set[str], locked: Collection[str]) -> Written:
        written_to = {stream for stream, _ in planned.events}
        streams |= written_to
        for stream in written_to.difference(locked):
            # The holder of a stream's lock is about to be faster.
            if (lock := self._locks.get(stream)) and lock.locked():
                raise WrongExpectedRevision(stream, planned.expected.get(stream, 0))
        expected = {stream: revision for stream, revision in planned.expected.items() if stream in written_to}
        try:
            recorded = await self._requests.append(planned.events, metadata, expected)
        except DuplicateAppend:
            return await self._requests.written_or(in_flight(), metadata)
        return recorded, recorded[-1].position
