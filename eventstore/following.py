"""Following what a projection applies: first from the log, then live, without a gap or a repetition between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from eventstore.errors import Kind, Rejected, StoreUnavailable
from eventstore.event import RecordedEvent
from eventstore.store import EventStore

Batch = Sequence[RecordedEvent]

FOLLOWER_BATCHES = 1000


class FollowerTooSlow(Exception):
    """A follower did not take its events in time; it may start again from where it was."""


class Followers:
    """Those who follow a projection; all calls are made on one event loop.

    Args:
        store: The log.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._queues: set[asyncio.Queue[Batch | Exception]] = set()
        self._end: Exception | None = None

    def tell(self, batch: Batch) -> None:
        """Hands on what was applied."""
        for queue in list(self._queues):
            if queue.qsize() < FOLLOWER_BATCHES:
                queue.put_nowait(batch)
            else:
                # What it has not taken yet is whole; it is told that nothing comes behind that.
                self._queues.discard(queue)
                queue.put_nowait(FollowerTooSlow())

    def end(self, error: StoreUnavailable) -> None:
        """Tells all, those to come too, that nothing more will be applied."""
        self._end = error
        for queue in self._queues:
            queue.put_nowait(error)

    async def follow(
        self, after: int, applied: Callable[[], int], quiet_seconds: float
    ) -> AsyncGenerator[tuple[Batch, int]]:
        """See `Projector.follow`; `applied` tells the last position that was handed on."""
        queue: asyncio.Queue[Batch | Exception] = asyncio.Queue()
        self._queues.add(queue)
        joined = applied()
        try:
            await self._check_not_ahead(after, joined)
            async with aclosing(replay(self._store, after, joined)) as past:
                async for batch in past:
                    after = batch[-1].position
                    yield batch, after
            while True:
                batch = await self._live(queue, quiet_seconds)
                news = [event for event in batch if event.position > after]
                if news or not batch:
                    # Without an event: all that was applied has been handed on.
                    after = news[-1].position if news else max(after, applied())
                    yield news, after
        finally:
            self._queues.discard(queue)

    async def _live(self, queue: asyncio.Queue[Batch | Exception], quiet_seconds: float) -> Batch:
        if self._end and queue.empty():
            raise self._end
        try:
            async with asyncio.timeout(quiet_seconds):
                told = await queue.get()
        except TimeoutError:
            return () if queue.empty() else await self._live(queue, quiet_seconds)
        if isinstance(told, Exception):
            raise told
        return told

    async def _check_not_ahead(self, after: int, joined: int) -> None:
        if after > joined and after > await self._store.head():
            words = f"the log has not come to position {after}"
            raise Rejected(Kind.INVALID, "POSITION_AHEAD", words, position=str(after))


async def replay(store: EventStore, after: int, until: int) -> AsyncGenerator[Batch]:
    """The log's events behind a position, up to another; it must have come there."""
    if after >= until:
        return
    async with aclosing(store.subscribe(after)) as subscription:
        async for batch in subscription:
            if due := [event for event in batch if event.position <= until]:
                yield due
            if batch[-1].position >= until:
                return
