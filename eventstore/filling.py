"""Filling rows that nobody reads yet with what a log says, beside those that are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from eventstore.generations import Generations
from eventstore.rows import Rows
from eventstore.store import EventStore
from eventstore.tail import replay

NEARLY_THERE = 1000


async def fill(generations: Generations, rows: Rows, store: EventStore, after: int, until: int) -> AsyncGenerator[int]:
    """Applies the log to rows that are at a position, up to another; gives each that they come to."""
    async with aclosing(replay(store, after, until)) as past:
        async for batch in past:
            await asyncio.to_thread(generations.apply, rows, after, batch, live=False)
            after = batch[-1].position
            yield after


async def catch_up(
    generations: Generations, rows: Rows, store: EventStore, goal: Callable[[], int]
) -> AsyncGenerator[int]:
    """Applies the log to empty rows until they are nearly at a goal that moves on; gives each position."""
    done, before = 0, -1
    while before < done and goal() > done + NEARLY_THERE * (done > 0):
        before = done
        async for position in fill(generations, rows, store, done, goal()):
            done = position
            yield done
