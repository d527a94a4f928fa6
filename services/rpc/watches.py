"""What all watches have in common: where one begins, and the bookmarks between its steps."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

from eventstore import Batch, EventStore

Step = TypeVar("Step")

Heard = AsyncGenerator[tuple[Batch, int]]
"""What `Tail.follow` gives."""


async def between_appends(store: EventStore, position: int) -> int:
    """Return the last position at or before `position` at which an append ends, so that appends are read whole."""
    while (event := await store.event_at(position)) and not event.closes_append:
        position -= 1
    return position


async def with_bookmarks(
    heard: Heard,
    seconds: float,
    steps: Callable[[Batch, int], Awaitable[Iterable[Step]]],
    bookmark: Callable[[int], Step],
) -> AsyncGenerator[Step]:
    """Yield the steps of a watch, and a bookmark whenever none was sent for so many seconds.

    Args:
        heard: The log, with a step without events after so many quiet seconds.
        seconds: For how long a watcher may be left without a sign of life.
        steps: What events, and the position they bring to, mean to the watcher.
        bookmark: The step that says that all is told up to a position.
    """
    told = time.monotonic()
    async with aclosing(heard) as news:
        async for events, position in news:
            for step in await steps(events, position):
                yield step
                told = time.monotonic()
            # Others' changes alone must not leave a watcher without a sign of life.
            if not events or time.monotonic() - told > seconds:
                yield bookmark(position)
                told = time.monotonic()
