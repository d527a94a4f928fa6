"""The calls that receive uploads: one at a time for each upload; a stalled call gives way to the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from eventstore import StoreUnavailable

STALLED_SECONDS = 5.0
"""How long a call may receive nothing before a waiting call takes over its upload."""


class Stall:
    """A detector of stalls: of a size that does not grow."""

    def __init__(self) -> None:
        self._size = -1
        self._since = time.monotonic()

    def left(self, size: int) -> float:
        """Return for how many more seconds it may stay at this size; 0 or less when it has stalled too long."""
        if size != self._size:
            self._size, self._since = size, time.monotonic()
        return self._since + STALLED_SECONDS - time.monotonic()


class Receiving:
    """A call that receives an upload, until a waiting call takes over.

    Attributes:
        over: Whether it has ended.
        steps: How often something has arrived.
    """

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.steps = 0
        self._scope: asyncio.Timeout | None = None
        self._unwanted = False

    async def outlast(self) -> None:
        """Wait until it is over; end it when nothing more arrives."""
        stall = Stall()
        while not self.over.is_set():
            left = stall.left(self.steps)
            if left <= 0:
                self._give_way()
                await self.over.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.over.wait()

    def _give_way(self) -> None:
        """End it, unless it has all bytes already."""
        if self._scope and not self._unwanted:
            self._scope.reschedule(0)
        self._unwanted = True

    @asynccontextmanager
    async def wanted(self) -> AsyncGenerator[None]:
        """Raise `StoreUnavailable` UPLOAD_TAKEN inside, at once, when another call takes over the upload."""
        if self._unwanted:
            raise taken_over()
        try:
            async with asyncio.timeout(None) as scope:
                self._scope = scope
                try:
                    yield
                finally:
                    self._scope = None
        except TimeoutError as error:
            raise taken_over() from error


def taken_over() -> StoreUnavailable:
    """Return the error of a call that another call replaced."""
    return StoreUnavailable("another call is writing this upload. Retry when it ends", "UPLOAD_TAKEN")
