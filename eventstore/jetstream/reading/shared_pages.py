"""Pages of a log's past, read once for all readers of about the same place and time."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from eventstore.concurrency.tasks import end
from eventstore.event import RecordedEvent

PAGE_EVENTS = 250
"""How many positions a page spans; a page ends with the first append that ends there or later."""

PAGE_BYTES = 1_000_000
"""A page ends early, with an append, once its events have so many bytes."""

CACHED_BYTES = 32_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Whole appends: all events after a position up to `end`.

    Attributes:
        after: The page begins after this position, at which an append ends.
        end: Everything up to this position is in it.
        events: In order.
        size: The memory that they take, in bytes, about.
    """

    after: int
    end: int
    events: Sequence[RecordedEvent]
    size: int

    def covers(self, position: int) -> bool:
        """Return whether who is at a position finds here what comes next."""
        return self.after <= position < self.end

    def events_after(self, position: int) -> Sequence[RecordedEvent]:
        """Return the events after a position; the same object for all who begin with the page."""
        if position == self.after:
            return self.events
        return self.events[bisect_right(self.events, position, key=lambda event: event.position) :]


PageKey = tuple[int, bool]
"""The position that a page is read from, and whether it is a mark: in the middle of an append, perhaps, after which the
page begins."""

Load = Callable[[int, bool, int], Awaitable[Page]]
"""Reads a page by the two parts of its key, and the position up to which the log can be read."""


class PagedLog:
    """Reads the past of one log in pages, one at a time, and keeps those that were used last.

    Args:
        load: Reads a page from the log.
        cached_bytes: How much of the past is kept in memory, about; one page always is.
    """

    def __init__(self, load: Load, cached_bytes: int = CACHED_BYTES) -> None:
        self._load = load
        self._cached_bytes = cached_bytes
        self._pages: OrderedDict[PageKey, Page] = OrderedDict()
        self._size = 0
        self._loading: dict[PageKey, asyncio.Task[Page]] = {}
        self._turn = asyncio.Semaphore(1)

    async def shared(self, after: int, until: int) -> AsyncGenerator[Sequence[RecordedEvent]]:
        """Yield the events after a position up to another, a page at a time, never a part of an append."""
        while after < until:
            page = await self._page(after, until)
            self._prefetch(page.end, until)  # while this one is dealt with
            if events := page.events_after(after):
                yield events
            after = page.end

    async def fresh(self, after: int, until: int) -> AsyncGenerator[Sequence[RecordedEvent]]:
        """Yield the same from the log itself as it is now, past the pages that are kept."""
        reading: asyncio.Task[Page] | None = None
        try:
            while after < until:
                page = await (reading or self._read(after, False, until))
                reading = None
                if page.end < until:
                    reading = asyncio.create_task(self._read(page.end, False, until), name="page")
                if page.events:
                    yield page.events
                after = page.end
        finally:
            await end(reading)

    async def _page(self, after: int, until: int) -> Page:
        if page := self._cached(after):
            return page
        mark = _mark(after)
        if mark not in self._pages:
            near = await asyncio.shield(self._start(mark, until))
            if near.covers(after):
                return near
            if page := self._cached(after):  # another has come meanwhile
                return page
        return await asyncio.shield(self._start((after, False), until))

    def _cached(self, after: int) -> Page | None:
        for key, page in self._pages.items():
            if page.covers(after):
                self._pages.move_to_end(key)
                return page
        return None

    def _prefetch(self, after: int, until: int) -> None:
        if after < until and not self._cached(after):
            mark = _mark(after)
            self._start((after, False) if mark in self._pages else mark, until)

    def _start(self, key: PageKey, until: int) -> asyncio.Task[Page]:
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._read_shared(key, until), name="page")
            task.add_done_callback(lambda done: self._forget(key, done))
        return task

    def _forget(self, key: PageKey, task: asyncio.Task[Page]) -> None:
        del self._loading[key]
        if not task.cancelled():
            task.exception()  # seen here, in case nobody waits for it any more

    async def _read_shared(self, key: PageKey, until: int) -> Page:
        page = await self._read(*key, until)
        if replaced := self._pages.pop(key, None):
            self._size -= replaced.size
        self._pages[key] = page
        self._size += page.size
        while self._size > self._cached_bytes and len(self._pages) > 1:
            self._size -= self._pages.popitem(last=False)[1].size
        return page

    async def _read(self, after: int, is_mark: bool, until: int) -> Page:
        async with self._turn:
            return await self._load(after, is_mark, until)


def _mark(after: int) -> PageKey:
    """Return the mark that pages around a position are read from."""
    return after - after % PAGE_EVENTS, True
