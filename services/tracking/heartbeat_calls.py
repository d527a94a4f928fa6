"""The open heartbeat calls: while its call is open, a job is alive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from eventstore import StoreUnavailable


class Call:
    """An open call. An end of the run at or before `position` does not end it: the run was resumed since."""

    def __init__(self) -> None:
        self.position = 0
        self._end = 0
        self._error: StoreUnavailable | None = None
        self._changed = asyncio.Event()

    async def ended(self) -> None:
        """Wait until the run ends after the call's position.

        Raises:
            StoreUnavailable: No more events of the run will be received.
        """
        while self._end <= self.position:
            if self._error:
                raise StoreUnavailable(str(self._error), self._error.reason)
            self._changed.clear()
            await self._changed.wait()

    def end(self, position: int) -> None:
        """End the call: its run ended at a position."""
        self._end = position
        self._changed.set()

    def refuse(self, error: StoreUnavailable) -> None:
        """Fail the call: no more events of the run will be received."""
        self._error = error
        self._changed.set()


class Calls:
    """All open calls, by run."""

    def __init__(self) -> None:
        self._open: dict[str, set[Call]] = {}
        self._error: StoreUnavailable | None = None

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._open

    @contextmanager
    def opened(self, run_id: str) -> Iterator[Call]:
        """Keep a call open while the context lasts."""
        call = Call()
        if self._error:
            call.refuse(self._error)
        self._open.setdefault(run_id, set()).add(call)
        try:
            yield call
        finally:
            self._open[run_id].remove(call)
            if not self._open[run_id]:
                del self._open[run_id]

    def end(self, run_id: str, position: int) -> None:
        """End the calls of a run that ended."""
        for call in self._open.get(run_id, ()):
            call.end(position)

    def refuse(self, error: StoreUnavailable) -> None:
        """Fail all calls: no more events will be received."""
        self._error = error
        for calls in self._open.values():
            for call in calls:
                call.refuse(error)
