"""How far a projection has come: its position, who waits for it, and why it cannot continue."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from eventstore.concurrency.watermark import Watermark
from eventstore.errors import CannotApply, StoreUnavailable


class Progress:
    """The position that a projection has applied; all calls are made on one event loop.

    Args:
        name: The projection's name.

    Attributes:
        failure: The error that stopped the projection; None while it follows its log.
        filled: The position that a generation has come to which is not read yet.
        complete_from: Queries are refused until the projection has come to this position again.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self.filled = 0
        self.complete_from = 0
        self._watermark = Watermark(f"projection {name}")
        self._wanted = asyncio.Event()

    @property
    def position(self) -> int:
        """The last position applied."""
        return self._watermark.position

    @property
    def why_failed(self) -> str:
        """What an operator must know of a failure, without the text of unforeseen errors; empty without a failure."""
        if isinstance(self.failure, CannotApply):
            return str(self.failure)
        return f"projection {self.name} failed" if self.failure else ""

    async def wait_for(self, position: int, seconds: float | None = None) -> None:
        """Wait until a position is applied, for so many seconds at most.

        Raises:
            StoreUnavailable: The projection failed or stopped before it, or the time is over.
        """
        if self.position < position:
            self.check()
            self._wanted.set()
            await self._watermark.wait_for(position, seconds)

    async def wait_until_wanted(self, seconds: float) -> None:
        """Wait so many seconds for more events to come, or until somebody waits for a position."""
        if not self._watermark.awaited:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wanted.wait()

    def expect(self) -> None:
        """Forget who wanted earlier positions."""
        self._wanted.clear()

    def advance(self, position: int) -> None:
        """Set the position, if it is a later one, and wake who waits for it."""
        self._watermark.advance(position)

    def return_to(self, position: int) -> None:
        """Set the position to an earlier one: events after it are applied again."""
        self._watermark.position = min(self.position, position)

    def begin_again(self) -> None:
        """Set the position to 0; queries are refused until the projection is back at its present position."""
        self.complete_from = max(self.complete_from, self.position)
        self._watermark.position = 0

    def fail(self, error: BaseException, checkpoint: int) -> None:
        """Record that the projection cannot apply more than its checkpoint, and fail all waiters."""
        self.failure = error
        self.advance(checkpoint)
        self._watermark.fail(StoreUnavailable(self.why_failed, "PROJECTION_FAILED"))

    def stop(self) -> None:
        """Fail all waiters: no later position is reached."""
        self._watermark.fail(StoreUnavailable(f"projection {self.name} is stopped", "PROJECTION_BEHIND"))

    def check(self) -> None:
        """Raise `StoreUnavailable` PROJECTION_FAILED if the projection has failed."""
        if self.failure:
            raise StoreUnavailable(self.why_failed, "PROJECTION_FAILED") from self.failure

    def check_readable(self) -> None:
        """Check that rows may be read: those being computed again would read as if nothing had ever happened.

        Raises:
            StoreUnavailable: PROJECTION_FAILED or PROJECTION_BEHIND.
        """
        self.check()
        if self.position < self.complete_from:
            message = f"projection {self.name} is being recomputed: at position {self.position} of {self.complete_from}"
            raise StoreUnavailable(message, "PROJECTION_BEHIND")
