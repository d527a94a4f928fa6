"""The parts that all watches share: their start, and the bookmarks between their steps."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

from eventstore import Batch, EventStore

Step = TypeVar("Step")

Followed = AsyncGenerator[tuple[Batch, int]]
"""The batches and positions that `Tail.follow` yields."""


async def between_appends(store: EventStore, position: int) -> int:
    """Return the last position at or before `position` at which an append ends, so that appends are read whole."""
    while (event := await store.event_at(position)) and not event.closes_append:
        position -= 1
    return position


async def with_bookmarks(
    followed: Followed,
    seconds: float,
    steps: Callable[[Batch, int], Awaitable[Iterable[Step]]],
    bookmark: Callable[[int], Step],
) -> AsyncGenerator[Step]:
    """Yield the steps of a watch, and a bookmark after some seconds without a step.

    Args:
        followed: The log, with an empty batch after `seconds` without events.
        seconds: The maximum time without a step or a bookmark.
        steps: Returns the steps of a batch and its position.
        bookmark: Returns the step that says that everything up to a position was sent.
    """
    sent = time.monotonic()
    async with aclosing(followed) as batches:
        async for events, position in batches:
            for step in await steps(events, position):
                yield step
                sent = time.monotonic()
            # Events without steps must not leave a watcher without a bookmark.
            if not events or time.monotonic() - sent > seconds:
                yield bookmark(position)
                sent = time.monotonic()
