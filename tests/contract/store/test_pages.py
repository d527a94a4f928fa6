"""The past of a log, read in pages: complete, in order, shared between readers, and without a trace on the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from eventstore.concurrency.turns import Turns
from eventstore.event import RecordedEvent
from eventstore.jetstream import JetStreamStore
from eventstore.jetstream.reading.shared_pages import CACHED_BYTES, PAGE_BYTES, PAGE_EVENTS, PagedLog
from eventstore.store import EventStore
from services.nats.server import NatsAddress
from tests.contract.store.events import TYPES, following, new
from tests.contract.store.stores import flat, take
from tests.servers.nats import open_log, until

LONG = 60.0  # seconds, so that no bookmark arrives


async def write(log: EventStore, sizes: Sequence[int]) -> list[int]:
    """Append events, `sizes` at a time; return the positions at which appends begin and end."""
    return [0, *[(await log.append([new(f"s{size}") for _ in range(size)]))[-1] for size in sizes]]


async def past(log: EventStore, after: int, until: int, *, shared: bool = True) -> list[Sequence[RecordedEvent]]:
    async with aclosing(log.past(after, until, shared=shared)) as batches:
        return [batch async for batch in batches]


class PageCounter:
    """Counts pages that are read from the server."""

    def __init__(self, log: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = self.in_progress = self.max_in_progress = 0
        self._read = log._history.read
        monkeypatch.setattr(log._history, "read", self.read)

    async def read(self, *arguments: Any) -> Any:
        self.loads += 1
        self.in_progress += 1
        self.max_in_progress = max(self.max_in_progress, self.in_progress)
        try:
            return await self._read(*arguments)
        finally:
            self.in_progress -= 1


@pytest.mark.parametrize("shared", [True, False])
async def test_any_part_of_past_is_complete_and_in_order(store: EventStore, shared: bool) -> None:
    rng = random.Random(7)
    sizes = [rng.choice([1, 1, 2, 3, 40, PAGE_EVENTS, 2 * PAGE_EVENTS + 7]) for _ in range(30)]
    boundaries = await write(store, sizes)
    head = boundaries[-1]
    expected = flat(await take(store, head))
    for after in [0, *rng.sample(boundaries, 12)]:
        end = rng.choice([head, *[position for position in boundaries if position >= after]])
        batches = await past(store, after, end, shared=shared)
        assert [event for event in flat(batches) if event.position <= end] == [
            event for event in expected if after < event.position <= end
        ]
        assert all(batch[-1].closes_append for batch in batches)


async def test_past_skips_erased_events(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES, erasable=True) as log:
        for stream in ("kept", "erased") * 200:
            await log.append([new(stream), new(stream)])
        await log._js.purge_stream(log._name, subject=f"rf.{log.log}.erased")
        kept = [position for position in range(1, 801) if (position - 1) // 2 % 2 == 0]
        for shared in (True, False):
            assert [event.position for event in flat(await past(log, 0, 800, shared=shared))] == kept
        assert [event.position for event in flat(await past(log, 400, 800))] == kept[200:]


async def test_concurrent_readers_share_pages(log: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(log, [4] * 500)
    counted = PageCounter(log, monkeypatch)
    head = await log.head()
    afters = [4 * (number % 37) for number in range(100)]
    read = await asyncio.gather(*(past(log, after, head) for after in afters))
    for after, batches in zip(afters, read, strict=True):
        assert [event.position for event in flat(batches)] == list(range(after + 1, head + 1))
    assert counted.loads <= 2 * head // PAGE_EVENTS
    assert counted.max_in_progress == 1
    # Once they meet, they get the same objects.
    assert all(batches[-1] is read[0][-1] for batches in read)


async def test_large_events_are_read_in_small_pages_and_cache_is_bounded(log: JetStreamStore) -> None:
    for _ in range(12):
        await log.append([new("s", BytesValue(value=bytes(900_000))) for _ in range(3)])
    pages = await past(log, 0, 36)
    assert max(map(len, pages)) <= 6
    paged_log = PagedLog(log._load, cached_bytes=10 * PAGE_BYTES)
    async with aclosing(paged_log.shared(0, 36)) as batches:
        assert sum([len(batch) async for batch in batches]) == 36
    assert paged_log._size <= 10 * PAGE_BYTES < CACHED_BYTES


async def test_readers_leave_no_consumers_on_server(log: JetStreamStore) -> None:
    await write(log, [1] * 300)
    async with following(log, kept_bytes=1) as tail:
        await tail.wait_for(await log.head())
        readers = [tail.follow(0, LONG) for _ in range(20)]
        for reader in readers:
            await anext(reader)
        consumers = await log._js.consumers_info(log._name)
        assert len(consumers) == 1  # the tail's own
        for reader in readers:
            await reader.aclose()
    names: list[str] = [""]

    async def wait_until_deleted() -> None:
        while names:
            names[:] = [consumer.name for consumer in await log._js.consumers_info(log._name)]

    async with asyncio.timeout(20):
        await wait_until_deleted()


async def test_stuck_reader_does_not_block_others() -> None:
    turns, gone = Turns(at_once=2, max_seconds=0.01), asyncio.Event()

    async def stuck() -> None:
        async with turns.turn():
            await gone.wait()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(10):
            tasks.create_task(stuck())
        for _ in range(10):
            async with asyncio.timeout(20), turns.turn():
                pass
        gone.set()
    # A reader that ended late did not release its turn again.
    acquired = [turns.turn() for _ in range(2)]
    for turn in acquired:
        await turn.__aenter__()
    assert turns._free.locked()
    for turn in acquired:
        await turn.__aexit__(None, None, None)
    assert turns._free._value == 2


async def test_watchers_of_past_take_turns(log: JetStreamStore) -> None:
    await write(log, [1] * (3 * PAGE_EVENTS))
    async with following(log, kept_bytes=1) as tail:
        head = await log.head()
        await tail.wait_for(head)
        working = max_working = 0

        async def watch() -> int:
            nonlocal working, max_working
            async with aclosing(tail.follow(0, LONG)) as steps:
                async for _, position in steps:
                    working += 1
                    max_working = max(max_working, working)
                    await asyncio.sleep(0)
                    working -= 1
                    if position >= head:
                        return position
            raise AssertionError("a watch has no end")

        assert await asyncio.gather(*(watch() for _ in range(50))) == [head] * 50
        assert max_working <= 8


async def test_cancelled_reader_does_not_disturb_others(log: JetStreamStore) -> None:
    await write(log, [1] * 600)
    cancelled = [asyncio.create_task(past(log, 0, 600)) for _ in range(5)]
    remaining = asyncio.create_task(past(log, 0, 600))
    await until(lambda: bool(log._pages._loading))
    for task in cancelled:
        task.cancel()
    assert len(flat(await remaining)) == 600
