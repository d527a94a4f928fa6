"""A signal that something has happened, or that nothing has for so long."""

from __future__ import annotations

import asyncio


class ActivitySignal:
    """Wakes its waiters once: when it is set, or after a quiet time; all of them share one timer.

    Args:
        quiet_seconds: After how many seconds without activity it wakes them; None for never.

    Attributes:
        quiet: Whether that time has passed.
    """

    def __init__(self, quiet_seconds: float | None) -> None:
        self.quiet = False
        self._event = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._timer = None if quiet_seconds is None else loop.call_later(quiet_seconds, self._set_quiet)

    def set(self) -> None:
        """Wake the waiters."""
        if self._timer:
            self._timer.cancel()
        self._event.set()

    async def wait(self) -> bool:
        """Wait, and return whether it was set rather than quiet."""
        await self._event.wait()
        return not self.quiet

    def _set_quiet(self) -> None:
        self.quiet = True
        self._event.set()
