"""Turns: few work at a time, first come, first served, so that an event loop stays free for others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 4
MAX_SECONDS = 0.05


class Turns:
    """Gives out turns.

    Args:
        at_once: How many may have a turn at the same time.
        max_seconds: After so long the next may begin: whoever still works then waits for something, a slow reader
            perhaps.
    """

    def __init__(self, at_once: int = AT_ONCE, max_seconds: float = MAX_SECONDS) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._max_seconds = max_seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn and hold it."""
        await self._free.acquire()
        release = _Once(self._free)
        timer = asyncio.get_running_loop().call_later(self._max_seconds, release)
        try:
            yield
        finally:
            timer.cancel()
            release()


class _Once:
    """Releases a semaphore the first time that it is called."""

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore: asyncio.Semaphore | None = semaphore

    def __call__(self) -> None:
        semaphore, self._semaphore = self._semaphore, None
        if semaphore:
            semaphore.release()
