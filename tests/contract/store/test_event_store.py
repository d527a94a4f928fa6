"""The contract of every event store: the reference store, one NATS server, and a cluster of three."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import replace

import pytest
from google.protobuf.wrappers_pb2 import BoolValue, BytesValue, FloatValue, StringValue

from eventstore.errors import DuplicateAppend, EventTooLarge, TooManyEvents, UnknownEventType, WrongExpectedRevision
from eventstore.event import MAX_APPEND_BYTES, MAX_APPEND_EVENTS, MAX_EVENT_BYTES, Metadata, RecordedEvent
from eventstore.store import NO_STREAM, EventStore
from tests.contract.store.events import TYPES, new
from tests.contract.store.stores import flat, read_all, take
from tests.servers.nats import open_log
from tests.timeouts import scaled


async def test_empty_log_has_no_events(store: EventStore) -> None:
    assert await store.head() == 0
    assert await store.event_at(0) is None
    assert await store.event_at(1) is None
    assert await read_all(store, "none") == []


async def test_events_are_read_unchanged_in_order(store: EventStore) -> None:
    appended = [new(stream, str(number)) for number, stream in enumerate(["a", "b", "a", "a", "b"])]
    before = time.time_ns()
    positions = [(await store.append([event]))[0] for event in appended]
    assert positions == sorted(set(positions))
    assert await store.head() == positions[-1]
    read = await read_all(store, "a")
    assert [event.position for event in read] == [positions[0], positions[2], positions[3]]
    for event in [*read, *await read_all(store, "b")]:
        original = appended[positions.index(event.position)]
        assert replace(event, time=0) == RecordedEvent(
            original.stream, event.position, 0, original.id, original.data, original.metadata, event.position
        )
        assert before - 10**9 < event.time < time.time_ns() + 10**9
        assert await store.event_at(event.position) == event
    assert await read_all(store, "a", after=positions[0]) == read[1:]
    assert await read_all(store, "a", after=positions[1]) == read[1:]
    assert await read_all(store, "a", after=positions[3]) == []
    assert await read_all(store, "a", after=positions[4] + 100) == []
    assert await store.event_at(positions[-1] + 1) is None


async def test_stream_longer_than_page_is_read_whole(store: EventStore) -> None:
    for _ in range(2):
        await store.append([new("long") for _ in range(700)])
    assert [event.position for event in await read_all(store, "long")] == list(range(1, 1401))


async def test_append_checks_expected_revision(store: EventStore) -> None:
    (first,) = await store.append([new("s")], {"s": NO_STREAM})
    await store.append([new("other")])
    (second,) = await store.append([new("s")], {"s": first})
    for wrong in (NO_STREAM, first, second + 1, second + 1000):
        with pytest.raises(WrongExpectedRevision) as caught:
            await store.append([new("s")], {"s": wrong})
        assert (caught.value.stream, caught.value.expected) == ("s", wrong)
    with pytest.raises(WrongExpectedRevision):
        await store.append([new("unborn")], {"unborn": second})
    assert len(await read_all(store, "s")) == 2
    assert await read_all(store, "unborn") == []


async def test_events_of_one_append_are_adjacent(store: EventStore) -> None:
    await store.append([new("a")])
    positions = await store.append([new("a"), new("b"), new("a"), new("c")], {"a": 1, "b": NO_STREAM})
    assert positions == (2, 3, 4, 5)
    events = flat(await take(store, 5))
    assert [event.stream for event in events] == ["a", "a", "b", "a", "c"]
    assert [event.closes_append for event in events] == [True, False, False, False, True]
    assert [event.append_end for event in events] == [1, 5, 5, 5, 5]
    assert await read_all(store, "a") == [events[0], events[1], events[3]]


async def test_conflict_rejects_whole_append(store: EventStore) -> None:
    await store.append([new("b")])
    with pytest.raises(WrongExpectedRevision) as caught:
        await store.append([new("a"), new("b"), new("c")], {"a": NO_STREAM, "b": NO_STREAM, "c": NO_STREAM})
    assert (caught.value.stream, caught.value.expected) == ("b", NO_STREAM)
    assert await store.head() == 1
    # The rejected events may be appended with the right expected revisions.
    assert await store.append([new("a"), new("b"), new("c")], {"a": 0, "b": 1, "c": 0}) == (2, 3, 4)


async def test_deduplication_key_is_used_once(store: EventStore) -> None:
    (position,) = await store.append([new("a", key="k")])
    with pytest.raises(DuplicateAppend) as caught:
        await store.append([new("b", key="k")])
    assert caught.value.position == position
    with pytest.raises(DuplicateAppend):
        await store.append([new("a"), new("b", key="k")])
    with pytest.raises(DuplicateAppend):
        await store.append([new("a", key="same"), new("a", key="same")])
    with pytest.raises((DuplicateAppend, WrongExpectedRevision)):
        await store.append([new("a", key="k")], {"a": NO_STREAM})
    assert await store.head() == position


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("expects", [True, False])
async def test_repeated_append_returns_first_positions(store: EventStore, count: int, expects: bool) -> None:
    events = [new(f"s{number % 2}") for number in range(count)]
    expected = {event.stream: NO_STREAM for event in events} if expects else None
    await store.append([new("before")])
    first = await store.append(events, expected)
    await store.append([new("s0"), new("s1")])
    assert await store.append(events, expected) == first
    assert await store.head() == 1 + count + 2


async def test_too_large_append_is_rejected_whole(store: EventStore) -> None:
    fits, over = (new("s", BytesValue(value=bytes(MAX_EVENT_BYTES - more))) for more in (4, 3))
    with pytest.raises(EventTooLarge) as caught:
        await store.append([new("s"), over])
    assert (caught.value.size, caught.value.limit) == (MAX_EVENT_BYTES + 1, MAX_EVENT_BYTES)
    with pytest.raises(EventTooLarge):
        await store.append([replace(new("s"), metadata=Metadata("alice", reason="é" * 10_001))])
    with pytest.raises(EventTooLarge):
        await store.append([replace(fits, metadata=Metadata("alice", reason="r" * 48_000))])
    with pytest.raises(TooManyEvents):
        await store.append([new("s") for _ in range(MAX_APPEND_EVENTS + 1)])
    with pytest.raises(EventTooLarge) as together:
        await store.append([new(f"s{number}", BytesValue(value=bytes(800_000))) for number in range(5)])
    assert together.value.size > together.value.limit == MAX_APPEND_BYTES
    assert await store.head() == 0
    await store.append([fits])
    await store.append([replace(new("s"), metadata=Metadata("alice", reason="🦆" * 4_000))])
    await store.append([new("s") for _ in range(MAX_APPEND_EVENTS)])
    await store.append([new(f"s{number}", BytesValue(value=bytes(799_000))) for number in range(5)])
    assert len(await read_all(store, "s")) == MAX_APPEND_EVENTS + 2


async def test_invalid_append_is_rejected(store: EventStore) -> None:
    with pytest.raises(ValueError):
        await store.append([])
    with pytest.raises(ValueError):
        await store.append([new("a")], {"a": 0, "b": 0})
    with pytest.raises(UnknownEventType):
        await store.append([new("a"), new("a", FloatValue(value=1))])
    assert await store.head() == 0


async def test_event_of_old_type_is_upcast(store: EventStore) -> None:
    await store.append([new("s", BoolValue(value=True))])
    expected = [StringValue(value="number 1")]
    assert [event.data for event in await read_all(store, "s")] == expected
    assert [event.data for event in flat(await take(store, 1))] == expected


async def test_subscription_starts_after_any_position(store: EventStore) -> None:
    for number in range(5):
        await store.append([new(f"s{number}")])
    for after in range(5):
        assert [event.position for event in flat(await take(store, 5 - after, after))] == list(range(after + 1, 6))


async def test_subscription_beyond_head_waits_for_events(store: EventStore) -> None:
    await store.append([new("s")])
    async with aclosing(store.subscribe(3)) as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        for _ in range(4):
            await store.append([new("s")])
        assert (await asyncio.wait_for(waiting, scaled(20)))[0].position == 4


async def test_subscription_continues_live(store: EventStore) -> None:
    await store.append([new("s", "0")])
    async with aclosing(store.subscribe()) as subscription:
        for number in range(20):
            (event,) = await asyncio.wait_for(anext(subscription), scaled(20))
            assert event.data == StringValue(value=str(number))
            await store.append([new("s", str(number + 1))])


async def test_batches_never_split_append(store: EventStore) -> None:
    random_sizes = random.Random(1)
    sizes = [random_sizes.choice([1, 2, 3, 400, 999]) for _ in range(12)]

    async def write() -> None:
        for size in sizes:
            await store.append([new("s") for _ in range(size)])

    writing = asyncio.create_task(write())
    batches = await take(store, sum(sizes))
    await writing
    assert [event.position for event in flat(batches)] == list(range(1, sum(sizes) + 1))
    assert all(batch[-1].closes_append for batch in batches)
    # Nor if the subscription starts in the middle of an append.
    largest = sizes.index(max(sizes))
    middle = sum(sizes[:largest]) + sizes[largest] // 2
    assert (await take(store, 1, middle))[0][0].position == middle + 1


async def test_concurrent_subscriptions_receive_all_events(store: EventStore) -> None:
    async def write() -> None:
        for number in range(100):
            await store.append([new(f"s{number % 7}", str(number))])

    *read, _ = await asyncio.gather(*(take(store, 100) for _ in range(5)), write())
    for batches in read:
        assert batches is not None
        assert [event.data for event in flat(batches)] == [StringValue(value=str(number)) for number in range(100)]


async def test_one_of_concurrent_writers_with_same_revision_wins(store: EventStore) -> None:
    revision = NO_STREAM
    for _ in range(10):
        appends = [store.append([new("s"), new(f"t{n}")][: 1 + n % 2], {"s": revision}) for n in range(8)]
        results = await asyncio.gather(*appends, return_exceptions=True)
        (winner,) = [result for result in results if isinstance(result, tuple)]
        assert all(isinstance(result, (tuple, WrongExpectedRevision)) for result in results)
        revision = winner[0]
    assert len(await read_all(store, "s")) == 10


@pytest.mark.parametrize(("servers", "replicas"), [("nats_address", 1), ("nats_cluster", 3)])
async def test_erased_event_is_not_read(request: pytest.FixtureRequest, servers: str, replicas: int) -> None:
    async with (
        open_log(request.getfixturevalue(servers), TYPES, replicas=replicas, erasable=True) as log,
        asyncio.timeout(scaled(20)),
    ):
        for number in range(5):
            await log.append([new(f"s{number % 2}")])
        for position in (2, 5):
            await log._js.delete_msg(log._name, position)
            assert await log.event_at(position) is None
        assert (await log.last(), await log.head()) == (4, 5)
        assert [event.position for event in flat(await take(log, 3))] == [1, 3, 4]
