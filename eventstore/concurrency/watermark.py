"""Watermarks: positions in a log that only grow, and can be waited for."""

from __future__ import annotations

import asyncio
import heapq
import itertools

from eventstore.errors import StoreUnavailable

Waiter = tuple[int, int, "asyncio.Future[None]"]
"""The position waited for, a number that tells equals apart, and what is done when it is reached."""


class Watermark:
    """A position that only grows, and its waiters; all calls are made on one event loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.position = 0
        self._waiters: list[Waiter] = []
        self._numbers = itertools.count()
        self._end: StoreUnavailable | None = None

    @property
    def awaited(self) -> bool:
        """Whether anyone waits for a later position."""
        return bool(self._waiters)

    def advance(self, position: int) -> None:
        """Advance to `position`, and wake who waits for it."""
        self.position = max(self.position, position)
        while self._waiters and self._waiters[0][0] <= self.position:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    async def wait_for(self, position: int, seconds: float | None = None) -> None:
        """Wait until a position is reached.

        Args:
            position: What is waited for.
            seconds: For how long, at most; None for as long as it takes.

        Raises:
            StoreUnavailable: PROJECTION_BEHIND after that time; or the error that `fail` was called with.
        """
        if self.position >= position:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._wait_for(position)
        except TimeoutError as error:
            message = f"{self.name} is at {self.position}, not yet at {position}"
            raise StoreUnavailable(message, "PROJECTION_BEHIND") from error

    async def _wait_for(self, position: int) -> None:
        if self._end:
            raise _again(self._end)
        waiter = (position, next(self._numbers), asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiters, waiter)
        try:
            await waiter[2]
        except asyncio.CancelledError:
            # A waiter for a position that never comes must not be kept forever.
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                heapq.heapify(self._waiters)
            raise

    def fail(self, error: StoreUnavailable) -> None:
        """Fail all waiters, and those to come: no later position is reached."""
        self._end = error
        for _, _, future in self._waiters:
            if not future.done():
                future.set_exception(_again(error))
        self._waiters.clear()


def _again(error: StoreUnavailable) -> StoreUnavailable:
    """Return a new error of the same kind: a traceback grows with every call that raises the same one."""
    new = StoreUnavailable(str(error), error.reason)
    new.__cause__ = error.__cause__
    return new
