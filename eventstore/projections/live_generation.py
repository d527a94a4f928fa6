"""The generation of a projection that is read: its checkpoint, its one writer, and the next one in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from eventstore.errors import StoreUnavailable
from eventstore.projections.damage import RowsDamaged
from eventstore.projections.database import is_refusal
from eventstore.projections.generation import Generation
from eventstore.projections.generations import Generations
from eventstore.projections.tables import Checkpoint

T = TypeVar("T")


class LiveGeneration:
    """The generation that answers queries; another process may replace it too.

    Args:
        name: The projection's name.
        generations: All its generations.

    Attributes:
        applying: Held while events are applied, or while the generation is replaced.
        checkpoint: The position of the generation as this process last saw it.
        read: Set whenever a query has ended.
    """

    def __init__(self, name: str, generations: Generations) -> None:
        self.name = name
        self.generations = generations
        self.applying = asyncio.Lock()
        self.checkpoint = 0
        self.read = asyncio.Event()
        self.writer = ThreadPoolExecutor(1, thread_name_prefix=f"projection-{name}")
        self._generation: Generation | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def generation(self) -> Generation:
        """The live generation.

        Raises:
            StoreUnavailable: PROJECTION_BEHIND before the first one is open.
        """
        if self._generation is None:
            raise StoreUnavailable(f"projection {self.name} is not started", "PROJECTION_BEHIND")
        return self._generation

    async def in_writer(self, job: Callable[[], T]) -> T:
        """Run a job in the thread of the only writer, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self.writer, job)

    async def set(self, generation: Generation) -> None:
        """Make a generation the live one, and read its checkpoint."""
        self._generation = generation
        self.checkpoint = (await self.in_writer(generation.checkpoint)).position

    def replace(self, generation: Generation) -> None:
        """Make a generation that has come to the same position the live one."""
        self._generation = generation

    def is_live(self, generation: Generation) -> bool:
        """Return whether a generation is the live one."""
        return generation is self._generation

    async def read_checkpoint(self) -> None:
        """Read the checkpoint; change to the generation with which another process has replaced this one.

        Raises:
            RowsDamaged: The generation was dropped, and there is none in its place.
        """
        checkpoint = await self.in_writer(lambda: _live_checkpoint(self.generation))
        if checkpoint is None:
            old = self.generation
            newer = await self.in_writer(lambda: self.generations.live(newer_than=old.number))
            if newer is None:
                raise RowsDamaged(f"{old.label} was dropped")
            self._generation = newer
            self.close_later(old)
            checkpoint = await self.in_writer(newer.checkpoint)
        self.checkpoint = checkpoint.position

    async def was_replaced(self, generation: Generation) -> bool:
        """Return whether a generation is not the live one any more, after a look at the database."""
        async with self.applying:
            if self.is_live(generation):
                await self.read_checkpoint()
        return not self.is_live(generation)

    async def close(self, generation: Generation) -> None:
        """Close a generation once no query reads it."""
        while generation.readers:
            self.read.clear()
            await self.read.wait()
        generation.close()

    def close_later(self, generation: Generation) -> None:
        """Close a generation in the background: a long query holds up nobody."""
        closing = asyncio.create_task(self.close(generation))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def stop(self) -> None:
        """End the writer and close all generations."""
        self.writer.shutdown(wait=True)
        await asyncio.gather(*self._closing)
        if self._generation:
            await self.close(self._generation)


def _live_checkpoint(generation: Generation) -> Checkpoint | None:
    """Return the checkpoint of a generation; None when it was replaced."""
    try:
        checkpoint = generation.checkpoint()
    except sa.exc.DBAPIError as error:
        if is_refusal(error):  # there is no such table
            return None
        raise
    return checkpoint if checkpoint.live else None
