"""Turns: few tasks work at a time, in order of arrival, so that the event loop stays free for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

MAX_SECONDS = 0.01
URGENT_PAUSE_FACTOR = 4
"""How many times as long the pause after a turn is while something urgent is under way."""


class Turns:
    """Gives out turns.

    Args:
        at_once: How many may have a turn at the same time.
        max_seconds: How long a turn lasts at most: whoever takes longer waits for something, a slow reader perhaps.
        rests: Whether a pause follows a turn, as long as the turn: the slower the loop is, the less is done in turns;
            longer while an urgent call is under way.
    """

    def __init__(self, at_once: int, max_seconds: float = MAX_SECONDS, *, rests: bool = False) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._max_seconds = max_seconds
        self._rests = rests
        self._urgent = 0

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Reduce turns while the context lasts: a caller is waiting for a response."""
        self._urgent += 1
        try:
            yield
        finally:
            self._urgent -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        begun, release = loop.time(), _Once(self._free)
        timer = loop.call_later(self._max_seconds, release)
        try:
            yield
        finally:
            timer.cancel()
            if self._rests:
                took = min(loop.time() - begun, self._max_seconds)
                loop.call_later(took * (URGENT_PAUSE_FACTOR if self._urgent else 1), release)
            else:
                release()


class _Once:
    """Releases a semaphore the first time that it is called."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore: asyncio.Semaphore | None = semaphore

    def __call__(self) -> None:
        semaphore, self._semaphore = self._semaphore, None
        if semaphore:
            semaphore.release()
