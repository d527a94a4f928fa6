"""Filling rows that nobody reads yet with the events of a log, beside those that are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from eventstore.event import RecordedEvent
from eventstore.projections.generation import Generation
from eventstore.projections.generations import Generations
from eventstore.store import EventStore
from eventstore.tail import replay

NEARLY_THERE = 1000
FILL_EVENTS = 8_000
"""How many events one transaction applies: what a transaction costs, and each series in it, is shared by more."""

FILL_BYTES = 16_000_000


async def fill(
    generations: Generations, generation: Generation, store: EventStore, after: int, until: int
) -> AsyncGenerator[int]:
    """Apply the log to rows at a position, up to another; yield each position that they come to.

    The next events are read while the last ones are applied.
    """
    applying: asyncio.Task[int] | None = None
    try:
        async with aclosing(_portions(store, after, until)) as portions:
            async for portion in portions:
                if applying:
                    after = await applying
                    yield after
                applying = asyncio.create_task(_apply(generations, generation, after, portion))
        if applying:
            yield await applying
    finally:
        if applying:
            await asyncio.wait({applying})


async def _apply(generations: Generations, generation: Generation, after: int, portion: list[RecordedEvent]) -> int:
    await asyncio.to_thread(generations.apply, generation, after, portion, live=False)
    return portion[-1].position


async def _portions(store: EventStore, after: int, until: int) -> AsyncGenerator[list[RecordedEvent]]:
    portion: list[RecordedEvent] = []
    size = 0
    async with aclosing(replay(store, after, until)) as past:
        async for batch in past:
            portion += batch
            size += sum(event.data.ByteSize() for event in batch)
            if len(portion) >= FILL_EVENTS or size >= FILL_BYTES:
                yield portion
                portion, size = [], 0
    if portion:
        yield portion


async def catch_up(
    generations: Generations, generation: Generation, store: EventStore, goal: Callable[[], int]
) -> AsyncGenerator[int]:
    """Apply the log to empty rows until they are nearly at a goal that moves on; yield each position."""
    done, before = 0, -1
    while before < done and goal() > done + NEARLY_THERE * (done > 0):
        before = done
        async for position in fill(generations, generation, store, done, goal()):
            done = position
            yield done
