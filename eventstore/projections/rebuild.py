"""Rebuilds: build a generation that nobody reads yet from the log, and compare it with the live one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from eventstore.errors import Kind, Rejected
from eventstore.event import RecordedEvent
from eventstore.projections.generation import Generation
from eventstore.projections.generations import Generations
from eventstore.projections.live_generation import LiveGeneration
from eventstore.projections.progress import Progress
from eventstore.projections.reader import Reader
from eventstore.store import EventStore
from eventstore.tail import replay

NEARLY_THERE = 1000
FILL_EVENTS = 8_000
"""How many events one transaction applies: what a transaction costs, and each series in it, is shared by more."""

FILL_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How far a rebuild is.

    Attributes:
        position: The position that the new generation has come to.
        head: The position of the live one.
        done: Whether the two were compared.
        live_digest: The sha256 over the rows of the live generation; empty before it is done.
        rebuilt_digest: The sha256 over the rows of the new one.
    """

    position: int
    head: int
    done: bool = False
    live_digest: str = ""
    rebuilt_digest: str = ""


class Rebuild:
    """Rebuilds a projection while it is read and written.

    Args:
        live: The generation to compare with, and to replace.
        reader: Tells whether its file is still there.
        store: The log.
        progress: How far the projection has come.
    """

    def __init__(self, live: LiveGeneration, reader: Reader, store: EventStore, progress: Progress) -> None:
        self._live = live
        self._reader = reader
        self._store = store
        self._progress = progress
        self._running = asyncio.Lock()

    async def run(self) -> AsyncGenerator[RebuildProgress]:
        """Build a new generation, compare it with the live one, and put it in its place when they are equal.

        Raises:
            Rejected: REBUILD_RUNNING when one is under way; REBUILD_DIFFERS when they differ: the live one stays.
        """
        name, generations = self._progress.name, self._live.generations
        if self._running.locked():
            message = f"a rebuild of {name} is already running. Wait for its end"
            raise Rejected(Kind.PRECONDITION, "REBUILD_RUNNING", message, projection=name)
        async with self._running:
            await self._reader.check_file()
            new = await self._live.in_writer(generations.unfinished)
            try:
                async for position in catch_up(generations, new, self._store, lambda: self._progress.position):
                    yield RebuildProgress(position, self._progress.position)
                new = await asyncio.to_thread(generations.finish, new)
                live, rebuilt = await self._switch(new)
            finally:
                if not self._live.is_live(new):
                    await asyncio.to_thread(generations.discard, new)
            if live != rebuilt:
                message = f"the rows of {name} differ from a rebuild: live {live}, rebuilt {rebuilt}"
                raise Rejected(Kind.PRECONDITION, "REBUILD_DIFFERS", message, live_digest=live, rebuilt_digest=rebuilt)
            yield RebuildProgress(self._progress.position, self._progress.position, True, live, rebuilt)

    async def _switch(self, new: Generation) -> tuple[str, str]:
        """Compare both at one position, while nothing is applied but queries are answered; return both digests."""
        live, generations = self._live, self._live.generations
        while True:
            async with live.applying:
                old = live.generation
                due = await live.in_writer(old.checkpoint)
                at = (await live.in_writer(new.checkpoint)).position
                async for position in fill(generations, new, self._store, at, due.position):
                    at = position
                if at < due.position:  # the event there was erased
                    return await live.in_writer(lambda old=old: (old.digest(), new.digest()))  # type: ignore[misc]
                digests = await live.in_writer(lambda old=old: generations.switch(old, new))  # type: ignore[misc]
                if digests and digests[0] == digests[1]:
                    live.replace(new)
            if digests:
                break
        if live.is_live(new):
            await live.close(old)
            # Not in the writer's thread: it waits for the readers of other processes.
            await asyncio.to_thread(generations.discard, old)
        return digests


async def fill(
    generations: Generations, generation: Generation, store: EventStore, after: int, until: int
) -> AsyncGenerator[int]:
    """Apply the log to a generation from a position until another; yield each position that it comes to.

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
    """Apply the log to an empty generation until it is nearly at a goal that moves; yield each position."""
    done, before = 0, -1
    while before < done and goal() > done + NEARLY_THERE * (done > 0):
        before = done
        async for position in fill(generations, generation, store, done, goal()):
            done = position
            yield done
