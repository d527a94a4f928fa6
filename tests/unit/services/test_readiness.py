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
    """A log that accepts writes but whose subscriptions receive nothing until they are repaired."""

    def __init__(self) -> None:
        super().__init__(LOG, TYPES)
        self.repaired = asyncio.Event()

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        await self.repaired.wait()
        async for batch in super().subscribe(after):
            yield batch


async def test_undelivered_events_are_a_problem_until_they_arrive() -> None:
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
        assert seen == [{"tail t": "the t log is not followed: received position 0 of 1"}]
        changed.clear()
        store.repaired.set()
        async with asyncio.timeout(scaled(30)):
            await changed.wait()
        assert seen[1:] == [{}]
    finally:
        await readiness.stop()
        await tail.stop()
