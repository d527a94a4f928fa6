"""What is sent while an answer is awaited waits too, and goes out together: many messages cost little more than one.

Source: J. Nagle, "Congestion Control in IP/TCP Internetworks", RFC 896, which does so with what one connection sends.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

TIMEOUT_SECONDS = 0.05
"""For how long a request waits at most: an answer that is late, or lost, must not hold up the others."""


class Coalescer:
    """A gate that requests pass: at once if none is under way, else with the next answer, all that wait at a time.

    Whoever is alone never waits. Under load, the writes and reads of the connection, and the times that both ends are
    woken, become fewer than the requests.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._next: asyncio.Event | None = None

    async def __aenter__(self) -> None:
        if self._under_way:
            if self._next is None:
                self._next = asyncio.Event()
                asyncio.get_running_loop().call_later(TIMEOUT_SECONDS, self._next.set)
            await self._next.wait()
        self._under_way += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._under_way -= 1
        if self._next:
            self._next.set()
            self._next = None
