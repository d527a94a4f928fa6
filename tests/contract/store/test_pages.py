"""The past of a log, read in pages: whole, in order, once for all who read it, and without a trace on the server."""

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
from eventstore.shared_pages import CACHED_BYTES, PAGE_BYTES, PAGE_EVENTS, PagedLog
from eventstore.store import EventStore
from services.nats.server import NatsAddress
from tests.contract.store.events import TYPES, following, new
from tests.contract.store.stores import flat, take
from tests.servers.nats import open_log, until

LONG = 60.0  # seconds: no bookmark in between


async def write(log: EventStore, sizes: Sequence[int]) -> list[int]:
    """Appends of so many events each; the positions between them."""
    return [0, *[(await log.append([new(f"s{size}") for _ in range(size)]))[-1] for size in sizes]]


async def past(log: EventStore, after: int, until: int, *, shared: bool = True) -> list[Sequence[RecordedEvent]]:
    async with aclosing(log.past(after, until, shared=shared)) as batches:
        return [batch async for batch in batches]


class Counted:
    """Pages that are read from the server."""

    def __init__(self, log: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = self.under_way = self.most = 0
        self._read = log._history.read
        monkeypatch.setattr(log._history, "read", self.read)

    async def read(self, *arguments: Any) -> Any:
        self.loads += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            return await self._read(*arguments)
        finally:
            self.under_way -= 1


@pytest.mark.parametrize("shared", [True, False])
async def test_every_part_of_the_past_is_whole_and_in_order(store: EventStore, shared: bool) -> None:
    dice = random.Random(7)
    sizes = [dice.choice([1, 1, 2, 3, 40, PAGE_EVENTS, 2 * PAGE_EVENTS + 7]) for _ in range(30)]
    between = await write(store, sizes)
    head = between[-1]
    truth = flat(await take(store, head))
    for after in [0, *dice.sample(between, 12)]:
        end = dice.choice([head, *[position for position in between if position >= after]])
        batches = await past(store, after, end, shared=shared)
        assert [event for event in flat(batches) if event.position <= end] == [
            event for event in truth if after < event.position <= end
        ]
        assert all(batch[-1].closes_append for batch in batches)


async def test_the_past_ends_where_the_log_was_erased(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES, erasable=True) as log:
        for stream in ("kept", "erased") * 200:
            await log.append([new(stream), new(stream)])
        await log._js.purge_stream(log._name, subject=f"rf.{log.log}.erased")
        kept = [position for position in range(1, 801) if (position - 1) // 2 % 2 == 0]
        for shared in (True, False):
            assert [event.position for event in flat(await past(log, 0, 800, shared=shared))] == kept
        assert [event.position for event in flat(await past(log, 400, 800))] == kept[200:]


async def test_many_who_read_the_same_read_it_once(log: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(log, [4] * 500)
    counted = Counted(log, monkeypatch)
    head = await log.head()
    afters = [4 * (number % 37) for number in range(100)]
    read = await asyncio.gather(*(past(log, after, head) for after in afters))
    for after, batches in zip(afters, read, strict=True):
        assert [event.position for event in flat(batches)] == list(range(after + 1, head + 1))
    assert counted.loads <= 2 * head // PAGE_EVENTS
    assert counted.most == 1
    # From where they meet on, they are given the same objects.
    assert all(batches[-1] is read[0][-1] for batches in read)


async def test_large_events_come_in_small_pages_and_are_not_all_kept(log: JetStreamStore) -> None:
    for _ in range(12):
        await log.append([new("s", BytesValue(value=bytes(900_000))) for _ in range(3)])
    pages = await past(log, 0, 36)
    assert max(map(len, pages)) <= 6
    pages_kept = PagedLog(log._load, cached_bytes=10 * PAGE_BYTES)
    async with aclosing(pages_kept.shared(0, 36)) as batches:
        assert sum([len(batch) async for batch in batches]) == 36
    assert pages_kept._size <= 10 * PAGE_BYTES < CACHED_BYTES


async def test_who_reads_the_past_leaves_nothing_on_the_server(log: JetStreamStore) -> None:
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

    async def look() -> None:
        while names:
            names[:] = [consumer.name for consumer in await log._js.consumers_info(log._name)]

    async with asyncio.timeout(20):
        await look()


async def test_who_does_not_take_a_page_keeps_nobody_waiting() -> None:
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
    # Whoever ended late has not given back a turn twice.
    held = [turns.turn() for _ in range(2)]
    for turn in held:
        await turn.__aenter__()
    assert turns._free.locked()
    for turn in held:
        await turn.__aexit__(None, None, None)
    assert turns._free._value == 2


async def test_watchers_of_the_past_take_turns(log: JetStreamStore) -> None:
    await write(log, [1] * (3 * PAGE_EVENTS))
    async with following(log, kept_bytes=1) as tail:
        head = await log.head()
        await tail.wait_for(head)
        working = most = 0

        async def watch() -> int:
            nonlocal working, most
            async with aclosing(tail.follow(0, LONG)) as steps:
                async for _, position in steps:
                    working += 1
                    most = max(most, working)
                    await asyncio.sleep(0)
                    working -= 1
                    if position >= head:
                        return position
            raise AssertionError("a watch has no end")

        assert await asyncio.gather(*(watch() for _ in range(50))) == [head] * 50
        assert most <= 8


async def test_a_reader_that_leaves_takes_nobody_along(log: JetStreamStore) -> None:
    await write(log, [1] * 600)
    leaving = [asyncio.create_task(past(log, 0, 600)) for _ in range(5)]
    staying = asyncio.create_task(past(log, 0, 600))
    await until(lambda: bool(log._pages._loading))
    for task in leaving:
        task.cancel()
    assert len(flat(await staying)) == 600
