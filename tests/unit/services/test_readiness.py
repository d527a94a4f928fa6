"""Readiness of a process whose logs are in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence

from eventstore import Tail
from eventstore.event import RecordedEvent
from eventstore.memory import MemoryStore
from services.operations.readiness import Readiness
from tests.contract.store.events import TYPES, new
from tests.timeouts import scaled

LOG = "t"


class CutOffStore(MemoryStore):
    """A log that takes writes and answers, and whose subscriptions receive nothing until they are mended."""

    def __init__(self) -> None:
        super().__init__(LOG, TYPES)
        self.mended = asyncio.Event()

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        await self.mended.wait()
        async for batch in super().subscribe(after):
            yield batch


async def test_log_whose_events_do_not_arrive_is_a_problem_until_they_do() -> None:
    store = CutOffStore()
    seen: list[Mapping[str, str]] = []
    changed = asyncio.Event()

    async def note(problems: Mapping[str, str]) -> None:
        seen.append(problems)
        changed.set()

    tail = Tail(store)
    readiness = Readiness([], {LOG: tail}, {})
    await tail.start()
    await readiness.start(note)
    try:
        await store.append([new("s")])
        async with asyncio.timeout(scaled(30)):
            await changed.wait()
        assert seen == [{"tail t": "the t log is not followed: events up to 0 came, it was at 1"}]
        changed.clear()
        store.mended.set()
        async with asyncio.timeout(scaled(30)):
            await changed.wait()
        assert seen[1:] == [{}]
    finally:
        await readiness.stop()
        await tail.stop()
