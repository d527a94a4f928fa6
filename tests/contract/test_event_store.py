"""What every event store promises, asked of the reference store, of one NATS server and of a cluster of three."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, BytesValue, FloatValue, Int64Value, StringValue
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.js import api

from eventstore.codec import EventTypes
from eventstore.errors import (
    DuplicateAppend,
    EventTooLarge,
    LogRewritten,
    StoreUnavailable,
    TooManyEvents,
    UnknownEventType,
    UnsafeStore,
    WrongExpectedRevision,
)
from eventstore.event import MAX_APPEND_BYTES, MAX_APPEND_EVENTS, MAX_EVENT_BYTES, Metadata, NewEvent, RecordedEvent
from eventstore.jetstream import JetStreamStore, connect, subject_of
from eventstore.jetstream.connection import check_server
from eventstore.jetstream.delivery import Delivery
from eventstore.memory import MemoryStore
from eventstore.store import NO_STREAM, EventStore
from services.nats_server import EmbeddedNats, NatsAddress
from tests.servers.nats import kill, open_log, until


def _as_number(old: Message) -> Message:
    assert isinstance(old, BoolValue)
    return Int64Value(value=int(old.value))


def _as_string(old: Message) -> Message:
    assert isinstance(old, Int64Value)
    return StringValue(value=f"number {old.value}")


TYPES = EventTypes(
    [StringValue, Int64Value, BytesValue, BoolValue],
    {BoolValue: _as_number, Int64Value: _as_string},
)
ALICE = Metadata("alice", reason="because", request_id="r", request_digest="d")

many = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
names = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./*>% \0\n\r\t$~"), max_size=40)


def new(stream: str, data: Message | str = "x", key: str = "") -> NewEvent:
    event_id = uuid.uuid4().hex
    return NewEvent(
        stream, StringValue(value=data) if isinstance(data, str) else data, ALICE, event_id, key or event_id
    )


async def everything(store: EventStore, stream: str, after: int = 0) -> list[RecordedEvent]:
    return [event async for event in store.read(stream, after)]


async def take(store: EventStore, count: int, after: int = 0) -> list[Sequence[RecordedEvent]]:
    """The first batches of a subscription, with at least `count` events."""
    batches: list[Sequence[RecordedEvent]] = []
    async with asyncio.timeout(20), aclosing(store.subscribe(after)) as subscription:
        async for batch in subscription:
            batches.append(batch)
            if sum(map(len, batches)) >= count:
                return batches
    raise AssertionError("a subscription has no end")


def flat(batches: Sequence[Sequence[RecordedEvent]]) -> list[RecordedEvent]:
    return list(itertools.chain.from_iterable(batches))


@pytest.fixture(params=["memory", "jetstream", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        yield MemoryStore("test", TYPES)
        return
    servers, replicas = {"jetstream": ("nats_address", 1), "cluster": ("nats_cluster", 3)}[request.param]
    async with open_log(request.getfixturevalue(servers), TYPES, replicas=replicas) as log:
        yield log


async def test_an_empty_log(store: EventStore) -> None:
    assert await store.head() == 0
    assert await store.event_at(0) is None
    assert await store.event_at(1) is None
    assert await everything(store, "none") == []


async def test_events_are_read_back_as_they_were_appended_in_order(store: EventStore) -> None:
    appended = [new(stream, str(number)) for number, stream in enumerate(["a", "b", "a", "a", "b"])]
    before = time.time_ns()
    positions = [(await store.append([event]))[0] for event in appended]
    assert positions == sorted(set(positions))
    assert await store.head() == positions[-1]
    read = await everything(store, "a")
    assert [event.position for event in read] == [positions[0], positions[2], positions[3]]
    for event in [*read, *await everything(store, "b")]:
        original = appended[positions.index(event.position)]
        assert replace(event, time=0) == RecordedEvent(
            original.stream, event.position, 0, original.id, original.data, original.metadata, event.position
        )
        assert before - 10**9 < event.time < time.time_ns() + 10**9
        assert await store.event_at(event.position) == event
    assert await everything(store, "a", after=positions[0]) == read[1:]
    assert await everything(store, "a", after=positions[1]) == read[1:]
    assert await everything(store, "a", after=positions[3]) == []
    assert await everything(store, "a", after=positions[4] + 100) == []
    assert await store.event_at(positions[-1] + 1) is None


async def test_a_stream_longer_than_a_page_is_read_whole(store: EventStore) -> None:
    for _ in range(2):
        await store.append([new("long") for _ in range(700)])
    assert [event.position for event in await everything(store, "long")] == list(range(1, 1401))


async def test_the_expected_revision(store: EventStore) -> None:
    (first,) = await store.append([new("s")], {"s": NO_STREAM})
    await store.append([new("other")])
    (second,) = await store.append([new("s")], {"s": first})
    for wrong in (NO_STREAM, first, second + 1, second + 1000):
        with pytest.raises(WrongExpectedRevision) as caught:
            await store.append([new("s")], {"s": wrong})
        assert (caught.value.stream, caught.value.expected) == ("s", wrong)
    with pytest.raises(WrongExpectedRevision):
        await store.append([new("unborn")], {"unborn": second})
    assert len(await everything(store, "s")) == 2
    assert await everything(store, "unborn") == []


async def test_several_events_of_one_append_are_neighbours(store: EventStore) -> None:
    await store.append([new("a")])
    positions = await store.append([new("a"), new("b"), new("a"), new("c")], {"a": 1, "b": NO_STREAM})
    assert positions == (2, 3, 4, 5)
    events = flat(await take(store, 5))
    assert [event.stream for event in events] == ["a", "a", "b", "a", "c"]
    assert [event.closes_append for event in events] == [True, False, False, False, True]
    assert [event.append_end for event in events] == [1, 5, 5, 5, 5]
    assert await everything(store, "a") == [events[0], events[1], events[3]]


async def test_a_conflict_in_the_middle_leaves_nothing(store: EventStore) -> None:
    await store.append([new("b")])
    with pytest.raises(WrongExpectedRevision) as caught:
        await store.append([new("a"), new("b"), new("c")], {"a": NO_STREAM, "b": NO_STREAM, "c": NO_STREAM})
    assert (caught.value.stream, caught.value.expected) == ("b", NO_STREAM)
    assert await store.head() == 1
    # What was refused may be appended with the right expectation.
    assert await store.append([new("a"), new("b"), new("c")], {"a": 0, "b": 1, "c": 0}) == (2, 3, 4)


async def test_a_deduplication_key_is_taken_once(store: EventStore) -> None:
    (position,) = await store.append([new("a", key="k")])
    with pytest.raises(DuplicateAppend) as caught:
        await store.append([new("b", key="k")])
    assert caught.value.position == position
    with pytest.raises(DuplicateAppend):
        await store.append([new("a"), new("b", key="k")])
    with pytest.raises(DuplicateAppend):
        await store.append([new("a", key="twice"), new("a", key="twice")])
    with pytest.raises((DuplicateAppend, WrongExpectedRevision)):
        await store.append([new("a", key="k")], {"a": NO_STREAM})
    assert await store.head() == position


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("expects", [True, False])
async def test_the_same_events_again_have_their_first_positions(store: EventStore, count: int, expects: bool) -> None:
    events = [new(f"s{number % 2}") for number in range(count)]
    expected = {event.stream: NO_STREAM for event in events} if expects else None
    await store.append([new("before")])
    first = await store.append(events, expected)
    await store.append([new("s0"), new("s1")])
    assert await store.append(events, expected) == first
    assert await store.head() == 1 + count + 2


async def test_what_is_too_large_is_refused_and_nothing_appended(store: EventStore) -> None:
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
    assert len(await everything(store, "s")) == MAX_APPEND_EVENTS + 2


async def test_an_append_that_makes_no_sense_is_refused(store: EventStore) -> None:
    with pytest.raises(ValueError):
        await store.append([])
    with pytest.raises(ValueError):
        await store.append([new("a")], {"a": 0, "b": 0})
    with pytest.raises(UnknownEventType):
        await store.append([new("a"), new("a", FloatValue(value=1))])
    assert await store.head() == 0


async def test_an_event_of_an_old_type_is_read_as_one_of_todays(store: EventStore) -> None:
    await store.append([new("s", BoolValue(value=True))])
    expected = [StringValue(value="number 1")]
    assert [event.data for event in await everything(store, "s")] == expected
    assert [event.data for event in flat(await take(store, 1))] == expected


async def test_a_subscription_begins_behind_any_position(store: EventStore) -> None:
    for number in range(5):
        await store.append([new(f"s{number}")])
    for after in range(5):
        assert [event.position for event in flat(await take(store, 5 - after, after))] == list(range(after + 1, 6))


async def test_a_subscription_behind_the_head_waits_for_what_comes_there(store: EventStore) -> None:
    await store.append([new("s")])
    async with aclosing(store.subscribe(3)) as subscription:
        waiting = asyncio.ensure_future(anext(subscription))
        for _ in range(4):
            await store.append([new("s")])
        assert (await asyncio.wait_for(waiting, 20))[0].position == 4


async def test_a_subscription_goes_on_live(store: EventStore) -> None:
    await store.append([new("s", "0")])
    async with aclosing(store.subscribe()) as subscription:
        for number in range(20):
            (event,) = await asyncio.wait_for(anext(subscription), 20)
            assert event.data == StringValue(value=str(number))
            await store.append([new("s", str(number + 1))])


async def test_batches_never_split_an_append(store: EventStore) -> None:
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
    # Not from the middle of an append either.
    largest = sizes.index(max(sizes))
    middle = sum(sizes[:largest]) + sizes[largest] // 2
    assert (await take(store, 1, middle))[0][0].position == middle + 1


async def test_many_subscribe_at_once(store: EventStore) -> None:
    async def write() -> None:
        for number in range(100):
            await store.append([new(f"s{number % 7}", str(number))])

    *read, _ = await asyncio.gather(*(take(store, 100) for _ in range(5)), write())
    for batches in read:
        assert batches is not None
        assert [event.data for event in flat(batches)] == [StringValue(value=str(number)) for number in range(100)]


async def test_writers_at_once_with_one_expectation_have_one_winner(store: EventStore) -> None:
    revision = NO_STREAM
    for _ in range(10):
        appends = [store.append([new("s"), new(f"t{n}")][: 1 + n % 2], {"s": revision}) for n in range(8)]
        results = await asyncio.gather(*appends, return_exceptions=True)
        (won,) = [result for result in results if isinstance(result, tuple)]
        assert all(isinstance(result, (tuple, WrongExpectedRevision)) for result in results)
        revision = won[0]
    assert len(await everything(store, "s")) == 10


@many
@given(stream=names, other=names)
@example("a/b", "a.b")
@example("a//b", "a/b")
@example("", "/")
@example("a/%", "a/")
@example("*", "x")
@example(">", "*/>")
async def test_no_stream_name_collides_or_escapes(store: EventStore, stream: str, other: str) -> None:
    (position,) = await store.append([new(stream, "mine")])
    if other != stream:
        await store.append([new(other, "theirs")])
    last = (await everything(store, stream))[-1]
    assert (last.position, last.stream) == (position, stream)
    await store.append([new(stream)], {stream: position})


@given(names, names)
def test_subjects_are_as_different_as_streams(one: str, other: str) -> None:
    subject, tokens = subject_of("log", one), subject_of("log", one).split(".")
    assert (subject == subject_of("log", other)) == (one == other)
    assert tokens[:2] == ["rf", "log"]
    assert len(tokens) == 3 + one.count("/")
    assert subject.isascii()
    assert subject.isprintable()
    assert all(token and not set(token) & set("*> \t") for token in tokens)


@pytest.mark.parametrize("name", ["models/" + "🦆" * 255, "x" * 3_000])
async def test_a_long_stream_name(store: EventStore, name: str) -> None:
    await store.append([new(name)])
    await store.append([new(name)], {name: 1})
    assert [event.stream for event in await everything(store, name)] == [name, name]
    assert [event.stream for event in flat(await take(store, 2))] == [name, name]


@many
@given(st.builds(Metadata, **{field.name: names for field in fields(Metadata)}), names, names)
async def test_metadata_and_ids_come_back_as_they_went(
    store: EventStore, metadata: Metadata, event_id: str, key: str
) -> None:
    unique = uuid.uuid4().hex
    event = NewEvent("s", StringValue(), metadata, unique + event_id, unique + key)
    (position,) = await store.append([event])
    read = await store.event_at(position)
    assert read
    assert (read.metadata, read.id) == (metadata, unique + event_id)
    with pytest.raises(DuplicateAppend):
        await store.append([replace(event, id="other")])


# JetStream alone.


@pytest.fixture
async def log(nats_address: NatsAddress) -> AsyncIterator[JetStreamStore]:
    async with open_log(nats_address, TYPES) as store:
        yield store


@dataclass
class Load:
    """Writers that go on until they are told to stop, and what was acknowledged to them."""

    stores: Sequence[EventStore]
    acknowledged: Mapping[str, tuple[int, ...]]
    stop: asyncio.Event

    async def write(self, number: int) -> None:
        store = self.stores[number % len(self.stores)]
        while not self.stop.is_set():
            events = [new(f"s{number}") for _ in range(1 + 2 * (number % 2))]
            positions = await store.append(events)
            assert isinstance(self.acknowledged, dict)
            self.acknowledged |= dict(zip([event.id for event in events], [(p,) for p in positions], strict=True))


async def test_a_killed_server_loses_nothing_and_a_subscription_goes_on(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, open_log(server.address, TYPES, "t") as log:
        load = Load([log], {}, asyncio.Event())
        followed: list[RecordedEvent] = []

        async def follow(subscription: AsyncGenerator[Sequence[RecordedEvent], None]) -> None:
            async for batch in subscription:
                assert batch[-1].closes_append
                followed.extend(batch)

        async with aclosing(log.subscribe()) as subscription:
            following = asyncio.create_task(follow(subscription))
            writing = [asyncio.create_task(load.write(number)) for number in range(8)]
            for _ in range(2):
                before = len(load.acknowledged)
                await until(lambda: len(load.acknowledged) > before + 50)  # noqa: B023 - awaited at once
                await kill(server)
            before = len(load.acknowledged)
            await until(lambda: len(load.acknowledged) > before + 50)
            load.stop.set()
            await asyncio.gather(*writing)
            head = await log.head()
            await until(lambda: bool(followed) and followed[-1].position == head)
            following.cancel()
            await asyncio.wait({following})
    # Each once, without a gap; an append that was tried again after a kill is one append.
    assert [event.position for event in followed] == list(range(1, head + 1))
    assert {event.id: (event.position,) for event in followed} == load.acknowledged
    assert len({event.id for event in followed}) == head


async def test_reads_wait_for_a_server_that_comes_back(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, open_log(server.address, TYPES, "t") as log:
        await log.append([new("s"), new("s")])
        killing = asyncio.create_task(kill(server))
        await until(lambda: server.pid is None or killing.done())
        assert len(await everything(log, "s")) == 2
        assert await log.event_at(2)
        assert await log.head() == 2
        await killing


async def test_writers_on_many_connections_have_one_winner_a_round(
    nats_address: NatsAddress, log: JetStreamStore
) -> None:
    clients = [await connect(nats_address.url, nats_address.user, nats_address.password) for _ in range(4)]
    stores = [JetStreamStore(client, log.log, TYPES) for client in clients]
    revision = NO_STREAM
    for _ in range(20):
        appends = [store.append([new("s")], {"s": revision}) for store in stores for _ in range(3)]
        results = await asyncio.gather(*appends, return_exceptions=True)
        (won,) = [result for result in results if isinstance(result, tuple)]
        assert sum(isinstance(result, WrongExpectedRevision) for result in results) == len(results) - 1
        revision = won[0]
    assert [event.position for event in await everything(log, "s")][-1] == revision
    assert await log.head() == 20
    for client in clients:
        await client.close()


async def test_many_batches_at_once_all_get_in(log: JetStreamStore) -> None:
    # The server has room for 50 open batches of a stream.
    results = await asyncio.gather(*(log.append([new(f"s{number}"), new("t")]) for number in range(120)))
    assert sorted(itertools.chain.from_iterable(results)) == list(range(1, 241))


async def test_an_append_that_broke_off_in_the_middle_is_made_anew(
    log: JetStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = log._js.publish
    calls = 0

    async def lose_the_first(*arguments: Any, **options: Any) -> api.PubAck:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise TimeoutError
        return await real(*arguments, **options)

    monkeypatch.setattr(log._js, "publish", lose_the_first)
    assert await log.append([new("a"), new("b"), new("a")], {"a": NO_STREAM}) == (1, 2, 3)
    assert calls == 2
    assert await log.head() == 3


async def test_a_log_that_lost_its_tail_is_not_followed(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        for number in range(3):
            await log.append([new("s", str(number))])
        async with aclosing(log.subscribe()) as subscription:
            while (await asyncio.wait_for(anext(subscription), 20))[-1].position < 3:
                continue
            client = await connect(nats_address.url, nats_address.user, nats_address.password)
            await client.jetstream().delete_stream(f"rf-{log.log}")
            await JetStreamStore(client, log.log, TYPES).open()
            for number in range(4):
                await log.append([new("s", f"other {number}")])
            with pytest.raises(LogRewritten):
                await asyncio.wait_for(anext(subscription), 20)
            await client.close()


async def test_what_is_not_an_event_is_refused(nats_address: NatsAddress, log: JetStreamStore) -> None:
    client = await connect(nats_address.url, nats_address.user, nats_address.password)
    await client.jetstream().publish(f"rf.{log.log}.s", b"not an event")
    await client.close()
    with pytest.raises(UnknownEventType):
        await everything(log, "s")
    with pytest.raises(UnknownEventType):
        await take(log, 1)


async def test_a_closed_connection_ends_a_subscription(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        await log.append([new("s")])
        subscription = log.subscribe()
        await asyncio.wait_for(anext(subscription), 20)
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(anext(subscription), 20)
    with pytest.raises(StoreUnavailable):
        await log.append([new("s")])
    with pytest.raises(StoreUnavailable):
        await log.head()


async def test_nobody_can_connect_without_the_password(nats_address: NatsAddress) -> None:
    with pytest.raises(StoreUnavailable):
        await connect(nats_address.url, nats_address.user, "wrong")
    with pytest.raises(StoreUnavailable):
        await connect("nats://127.0.0.1:1", patience=0.3)


def test_servers_that_cannot_keep_the_promises_are_refused() -> None:
    check_server("2.12.0", 1 << 20)
    check_server("3.0.1", 1 << 20)
    for version, payload in (("2.9.10", 1 << 20), ("2.11.9", 1 << 20), ("2.15.1", 1_000_000)):
        with pytest.raises(UnsafeStore):
            check_server(version, payload)


async def test_an_existing_log_stays_as_it_is(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        await log.append([new("s")])
        await log.open(erasable=True)
        config = (await log._js.stream_info(f"rf-{log.log}")).config
        assert config.deny_delete
        assert config.deny_purge
        assert config.storage == api.StorageType.FILE
        assert await log.head() == 1


async def test_a_delivery_that_is_cancelled_as_a_message_comes_is_cancelled(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log, Delivery(log._client, log._name, 0) as delivery:
        waiting = asyncio.create_task(anext(delivery))
        await asyncio.sleep(0)
        delivery._queue.put_nowait(Msg(log._client, headers={"Status": "100"}))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, 5)
