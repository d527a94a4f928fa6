"""The JetStream store: killed servers, lost connections, and damaged logs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from nats.aio.msg import Msg
from nats.js import api

from eventstore.errors import LogRewritten, StoreUnavailable, UnsafeStore, WrongExpectedRevision
from eventstore.event import RecordedEvent
from eventstore.jetstream import JetStreamStore, connect
from eventstore.jetstream.appending.group_commit import EVENTS_BEHIND
from eventstore.jetstream.connection import check_server
from eventstore.jetstream.reading.delivery import Delivery
from eventstore.store import NO_STREAM, EventStore
from services.nats.server import EmbeddedNats, NatsAddress
from tests.contract.store.events import TYPES, new
from tests.contract.store.stores import flat, read_all, take
from tests.servers.nats import kill, open_log, until
from tests.timeouts import scaled

pytestmark = pytest.mark.busy


@dataclass
class Load:
    """Writers that run until `stop` is set, and their acknowledged events."""

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


async def test_killed_server_loses_nothing_and_subscription_continues(tmp_path: Path) -> None:
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
    # Each event once, without a gap; an append retried after a kill is one append.
    assert [event.position for event in followed] == list(range(1, head + 1))
    assert {event.id: (event.position,) for event in followed} == load.acknowledged
    assert len({event.id for event in followed}) == head


async def test_reads_wait_for_restarted_server(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server, open_log(server.address, TYPES, "t") as log:
        await log.append([new("s"), new("s")])
        killing = asyncio.create_task(kill(server))
        await until(lambda: server.pid is None or killing.done())
        assert len(await read_all(log, "s")) == 2
        assert await log.event_at(2)
        assert await log.head() == 2
        await killing


async def test_one_of_writers_on_many_connections_wins_each_round(
    nats_address: NatsAddress, log: JetStreamStore
) -> None:
    clients = [await connect(nats_address.url, nats_address.user, nats_address.password) for _ in range(4)]
    stores = [JetStreamStore(client, log.log, TYPES) for client in clients]
    revision = NO_STREAM
    for _ in range(20):
        appends = [store.append([new("s")], {"s": revision}) for store in stores for _ in range(3)]
        results = await asyncio.gather(*appends, return_exceptions=True)
        (winner,) = [result for result in results if isinstance(result, tuple)]
        assert sum(isinstance(result, WrongExpectedRevision) for result in results) == len(results) - 1
        revision = winner[0]
    assert [event.position for event in await read_all(log, "s")][-1] == revision
    assert await log.head() == 20
    for client in clients:
        await client.close()


async def test_many_concurrent_batches_are_all_written(log: JetStreamStore) -> None:
    # The server allows 50 open batches per stream.
    results = await asyncio.gather(*(log.append([new(f"s{number}"), new("t")]) for number in range(120)))
    assert sorted(itertools.chain.from_iterable(results)) == list(range(1, 241))


async def test_interrupted_append_is_retried(log: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = log._js.publish
    calls = 0

    async def lose_first(*arguments: Any, **options: Any) -> api.PubAck:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise TimeoutError
        return await real(*arguments, **options)

    monkeypatch.setattr(log._js, "publish", lose_first)
    assert await log.append([new("a"), new("b"), new("a")], {"a": NO_STREAM}) == (1, 2, 3)
    assert calls == 2
    assert await log.head() == 3


async def test_append_whose_first_message_was_lost_is_retried(
    log: JetStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = log._client.publish
    lost: list[str] = []

    async def lose_first(subject: str, *arguments: Any, **options: Any) -> None:
        if lost or (options.get("headers") or {}).get("Nats-Batch-Sequence") != "1":
            await real(subject, *arguments, **options)
        else:
            lost.append(subject)

    monkeypatch.setattr(log._client, "publish", lose_first)
    assert await log.append([new("a"), new("b")], {"a": NO_STREAM}) == (1, 2)
    assert len(lost) == 1
    assert await log.head() == 2


@pytest.mark.parametrize("streams", ["a", "ab"], ids=["one event", "several"])
async def test_append_with_lost_acknowledgement_is_not_a_conflict(
    nats_address: NatsAddress, log: JetStreamStore, monkeypatch: pytest.MonkeyPatch, streams: str
) -> None:
    real = log._js.publish
    calls = 0

    async def lose_first(*arguments: Any, **options: Any) -> api.PubAck:
        nonlocal calls
        calls += 1
        ack = await real(*arguments, **options)
        if calls == 1:
            async with open_log(nats_address, TYPES, log.log) as other:
                await other.append([new("a")])
            raise TimeoutError
        return ack

    monkeypatch.setattr(log._js, "publish", lose_first)
    events = [new(stream) for stream in streams]
    assert await log.append(events, dict.fromkeys(streams, NO_STREAM)) == tuple(range(1, len(streams) + 1))
    assert calls == 2
    assert await log.head() == len(streams) + 1


@pytest.mark.parametrize("streams", ["a", "ab"], ids=["one event", "several"])
async def test_cancelled_appends_are_settled(log: JetStreamStore, streams: str) -> None:
    for steps in range(2, 22):  # some are cancelled after they are sent, others before
        names = [f"{steps}-{number}" for number in range(50)]
        appends = [asyncio.create_task(log.append([new(stream + name) for stream in streams])) for name in names]
        for _ in range(steps):
            await asyncio.sleep(0)
        for append in appends:
            append.cancel()
        await asyncio.gather(*appends, return_exceptions=True)
        await log.settle()
        head = await log.head()
        await asyncio.sleep(0.05)
        assert await log.head() == head


async def test_subscription_ends_when_log_lost_its_tail(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        for number in range(3):
            await log.append([new("s", str(number))])
        async with aclosing(log.subscribe()) as subscription:
            while (await asyncio.wait_for(anext(subscription), scaled(20)))[-1].position < 3:
                continue
            client = await connect(nats_address.url, nats_address.user, nats_address.password)
            await client.jetstream().delete_stream(f"rf-{log.log}")
            await JetStreamStore(client, log.log, TYPES).open()
            for number in range(4):
                await log.append([new("s", f"other {number}")])
            with pytest.raises(LogRewritten):
                await asyncio.wait_for(anext(subscription), scaled(20))
            await client.close()


ENVELOPE = {"ce-id": "1", "ce-subject": "s", "ce-type": "google.protobuf.StringValue"}
UNREADABLE: list[tuple[dict[str, str] | None, bytes]] = [
    (None, b"not an event"),
    (ENVELOPE | {"ce-type": "rollforward.v9.FromTheFuture"}, b""),
    (ENVELOPE, b"\xff\xff\xff"),
    (ENVELOPE | {"ce-subject": "another"}, b""),
    (ENVELOPE | {"ce-id": ""}, b""),
    (ENVELOPE | {"ce-actor": "%00"}, b""),
    (ENVELOPE | {"ce-requestid": "r" * 5_000}, b""),
    (ENVELOPE | {"ce-type": ""}, b"\x00"),
]


@pytest.mark.parametrize(("headers", "payload"), UNREADABLE)
async def test_unreadable_event_is_delivered_as_unreadable(
    nats_address: NatsAddress, log: JetStreamStore, headers: dict[str, str] | None, payload: bytes
) -> None:
    await log.append([new("s")])
    client = await connect(nats_address.url, nats_address.user, nats_address.password)
    await client.jetstream().publish(f"rf.{log.log}.s", payload, headers=headers)
    await client.close()
    await log.append([new("s")])
    for events in (await read_all(log, "s"), flat(await take(log, 3))):
        assert [event.position for event in events] == [1, 2, 3]
        assert [bool(event.unreadable) for event in events] == [False, True, False]
        assert isinstance(events[1].data, AnyMessage)
        assert events[1].data.value == payload
        assert events[1].stream == "s"
        assert events[1].id
    assert await log.event_at(2) == events[1]


@pytest.mark.parametrize("following_events", ["x", "-1", "99999999999999999999", "1000", "", "²"])
async def test_invalid_count_of_following_events_is_ignored(
    nats_address: NatsAddress, log: JetStreamStore, following_events: str
) -> None:
    client = await connect(nats_address.url, nats_address.user, nats_address.password)
    await client.jetstream().publish(f"rf.{log.log}.s", b"", headers=ENVELOPE | {EVENTS_BEHIND: following_events})
    await client.close()
    ((event,),) = await take(log, 1)
    assert event.closes_append


async def test_closed_connection_ends_subscription(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        await log.append([new("s")])
        subscription = log.subscribe()
        await asyncio.wait_for(anext(subscription), scaled(20))
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(anext(subscription), scaled(20))
    with pytest.raises(StoreUnavailable):
        await log.append([new("s")])
    with pytest.raises(StoreUnavailable):
        await log.head()


async def test_connection_without_password_is_refused(nats_address: NatsAddress) -> None:
    with pytest.raises(StoreUnavailable):
        await connect(nats_address.url, nats_address.user, "wrong")
    with pytest.raises(StoreUnavailable):
        await connect("nats://127.0.0.1:1", timeout_seconds=0.3)


def test_unsuitable_server_is_refused() -> None:
    check_server("2.12.0", 1 << 20)
    check_server("3.0.1", 1 << 20)
    for version, payload in (("2.9.10", 1 << 20), ("2.11.9", 1 << 20), ("2.15.1", 1_000_000)):
        with pytest.raises(UnsafeStore):
            check_server(version, payload)


async def test_existing_log_keeps_its_settings(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        await log.append([new("s")])
        await log.open(erasable=True)
        config = (await log._js.stream_info(f"rf-{log.log}")).config
        assert config.deny_delete
        assert config.deny_purge
        assert config.storage == api.StorageType.FILE
        assert await log.head() == 1


async def test_delivery_cancelled_as_message_arrives_is_cancelled(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log, Delivery(log._client, log._name, 0) as delivery:
        waiting = asyncio.create_task(anext(delivery))
        await asyncio.sleep(0)
        delivery._queue.put_nowait(Msg(log._client, headers={"Status": "100"}))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(waiting, scaled(5))
