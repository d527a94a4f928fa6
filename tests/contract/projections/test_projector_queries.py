"""Queries of a projector: requests by actor and id, positions by time, and consistent reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest
import sqlalchemy as sa

from eventstore.decider import Request
from eventstore.event import Metadata, RecordedEvent
from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.projections import projector as projection
from eventstore.projections import request_index
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.projections.tables import checkpoint
from tests.contract.projections.notes import Notes, Row, all_notes, running, write
from tests.contract.store.events import TYPES, following, new
from tests.servers.nats import until

LONG = 60.0  # seconds, so that no batch is due in between


async def test_request_is_found_by_actor_and_id(log: JetStreamStore, location: str) -> None:
    metadata = Metadata("alice", request_id="r1", request_digest="d1")
    async with running(log, location) as projector:
        await write(log, 2)
        await log.append([new("a", metadata=metadata), new("b", metadata=metadata)])
        await log.append([new("a", metadata=replace(metadata, actor="bob", request_digest="d2"))])
        assert await projector.find_request("alice", "r1", at_least=4) == Request("d1", 3, 4)
        assert await projector.find_request("bob", "r1", at_least=5) == Request("d2", 5, 5)
        assert await projector.find_request("alice", "r2", at_least=0) is None
        search = asyncio.create_task(projector.find_request("carol", "r1", at_least=6))
        await log.append([new("a", metadata=replace(metadata, actor="carol"))])
        assert await search == Request("d1", 6, 6)


async def test_request_is_found_before_it_is_in_rows(
    log: JetStreamStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "BATCH_WINDOW_SECONDS", LONG)
    async with running(log, location) as projector:
        await projector.wait_for(await write(log, 1))
        metadata = Metadata("alice", request_id="r1", request_digest="d1")
        await log.append([new("a", metadata=metadata), new("b", metadata=metadata)])
        assert await projector.find_request("alice", "r1", at_least=3) == Request("d1", 2, 3)
        assert await projector.find_request("alice", "r2", at_least=3) is None
        assert projector.position == 1


async def test_request_that_is_not_cached_is_found_in_rows(log: JetStreamStore, location: str) -> None:
    async with following(log, kept_bytes=1) as tail:
        projector = Projector(tail, Notes(), Database(location))
        await projector.start()
        for number in range(20):
            metadata = Metadata("alice", request_id=f"r{number}", request_digest=f"d{number}")
            await log.append([new("a", metadata=metadata)])
            for known in range(number + 1):
                found = await projector.find_request("alice", f"r{known}", at_least=number + 1)
                assert found == Request(f"d{known}", known + 1, known + 1)
            assert await projector.find_request("alice", "r20", at_least=number + 1) is None
        assert len(tail.requests) == 1
        await projector.stop()


async def test_new_request_is_not_looked_up_after_warm_up(
    log: JetStreamStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_index, "PAGE_REQUESTS", 3)
    for number in range(10):
        await log.append([new("a", metadata=Metadata("alice", request_id=f"r{number}", request_digest=f"d{number}"))])
    async with running(log, location) as projector:
        requests = projector.tail.requests
        for number in range(10):
            assert await projector.find_request("alice", f"r{number}", at_least=0) == Request(
                f"d{number}", number + 1, number + 1
            )
        await until(lambda: requests.complete)
        assert not any(requests.is_new("alice", f"r{number}") for number in range(10))
        assert requests.is_new("bob", "r1")
        assert requests.is_new("alice", "r10")
        await log.append([new("a", metadata=Metadata("alice", request_id="r10", request_digest="d10"))])
        assert await projector.find_request("alice", "r10", at_least=11) == Request("d10", 11, 11)
        assert await projector.find_request("alice", "r9", at_least=11) == Request("d9", 10, 10)
        assert await projector.find_request("bob", "r1", at_least=11) is None


class ManualClockStore(MemoryStore):
    """A log whose events have the given times."""

    def __init__(self, times: list[int]) -> None:
        super().__init__("clock", TYPES)
        self._times = times

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        async for batch in super().subscribe(after):
            yield self._timed(batch)

    async def past(
        self, after: int, until: int, *, shared: bool = False
    ) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        async for batch in super().past(after, until, shared=shared):
            yield self._timed(batch)

    def _timed(self, batch: Sequence[RecordedEvent]) -> Sequence[RecordedEvent]:
        return [replace(event, time=self._times[event.position - 1]) for event in batch]


async def test_time_maps_to_position_despite_clock_jumps(location: str) -> None:
    log = ManualClockStore([10, 20, 20, 15, 30, 31, 33, 40])
    for _ in range(4):
        await log.append([new("s")])
    await log.append([new("s"), new("s"), new("s")])
    await log.append([new("s")])
    async with running(log, location) as projector:
        found = [(await projector.position_at(time)) for time in (9, 10, 19, 20, 29, 30, 31, 39, 40, 10**18)]
        assert found == [
            *((0, 0), (1, 10), (1, 10), (4, 20), (4, 20)),
            *((7, 30), (7, 30), (7, 30), (8, 40), (8, 40)),  # an append is visible as a whole
        ]


@pytest.mark.parametrize("small", [False, True])
async def test_query_reads_consistent_snapshot(log: JetStreamStore, location: str, small: bool) -> None:
    def read_two_times(connection: sa.Connection) -> tuple[list[Row], list[Row], int]:
        first = all_notes(connection)
        at = connection.scalar(sa.select(checkpoint.c.position))
        return first, all_notes(connection), at or 0

    async with running(log, location) as projector:
        writing = asyncio.create_task(write(log, 100, size=2))
        while not writing.done():
            first, second, at = await projector.query(read_two_times, small=small)
            await asyncio.sleep(0)
            assert first == second
            assert sum(row[2] for row in first) == at
        await writing
