"""A log with an incomplete append, at its end or inside: the append is treated as if it had never begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.client import Client

from eventstore.commands.handler import CommandHandler
from eventstore.decider import Decider
from eventstore.errors import WrongExpectedRevision
from eventstore.event import Metadata
from eventstore.jetstream import JetStreamStore, connect
from eventstore.jetstream.appending.group_commit import EVENTS_BEHIND
from eventstore.tail import replay
from services.nats.server import NatsAddress
from tests.contract.projections.notes import all_notes, rebuilt, running, write
from tests.contract.store.events import TYPES, new
from tests.contract.store.stores import flat, read_all, take
from tests.servers.nats import open_log
from tests.timeouts import scaled

SECONDS = scaled(20)


@pytest.fixture
async def client(nats_address: NatsAddress) -> AsyncIterator[Client]:
    client = await connect(nats_address.url, nats_address.user, nats_address.password)
    yield client
    await client.close()


async def publish(client: Client, log: JetStreamStore, stream: str, behind: int) -> None:
    """Write an event by hand whose header claims that `behind` more events of its append follow."""
    headers = {"ce-id": f"torn-{behind}", "ce-subject": stream, "ce-type": "google.protobuf.StringValue"}
    headers |= {EVENTS_BEHIND: str(behind), "ce-actor": "eve"}
    payload = StringValue(value="torn").SerializeToString()
    await client.jetstream().publish(f"rf.{log.log}.{stream}", payload, headers=headers)


COUNTER: Decider[int] = Decider(
    0, lambda _command, count: [StringValue(value=str(count))], lambda count, _event: count + 1
)


async def test_log_with_torn_append_ends_before_it(client: Client, log: JetStreamStore) -> None:
    head = await write(log, 3)
    await publish(client, log, "s1", 5)
    async with asyncio.timeout(SECONDS):
        assert await log.head() == await log.last() == head
        assert await log.event_at(head + 1) is None
        assert [event.position for event in await read_all(log, "s1")] == [2]
        assert [batch[-1].position async for batch in replay(log, 0, head + 1)][-1] == head
        assert any(f"position {head + 1}" in warning for warning in (await log.condition()).warnings)


async def test_next_append_does_not_continue_torn_one(client: Client, log: JetStreamStore) -> None:
    await publish(client, log, "s1", 2)
    (single,) = await log.append([new("s2")])
    several = await log.append([new("s1"), new("s2"), new("s3")])
    await publish(client, log, "s1", 1)
    (last,) = await log.append([new("s3")])
    async with asyncio.timeout(SECONDS):
        expected = [single, *several, last]
        assert [event.position for event in flat(await take(log, len(expected)))] == expected
        assert [event.position for event in await read_all(log, "s1")] == [several[0]]
        assert await log.head() == last
        assert await log.event_at(1) is None
        assert len((await log.condition()).warnings) >= 2


@pytest.mark.parametrize("follows", [True, False])
async def test_stream_with_torn_end_accepts_commands(
    client: Client, log: JetStreamStore, location: str, follows: bool
) -> None:
    async with asyncio.timeout(SECONDS), running(log, location) as projector:
        handler = CommandHandler(log, COUNTER, projector)
        assert (await handler.handle("s", "add", Metadata("alice", request_id="1"))).state == 1
        await publish(client, log, "s", 3)
        if follows:
            await log.append([new("other")])
        done = await handler.handle("s", "add", Metadata("alice", request_id="2"))
        assert done.state == 2
        assert (await CommandHandler(log, COUNTER, projector).handle("s", "add", Metadata("alice"))).state == 3
        await projector.wait_for(await log.head())
        counts = {stream: count for stream, _, count, _ in await projector.query(all_notes)}
        assert counts["s"] == 3
        assert (await rebuilt(projector)).done


async def test_new_process_starts_on_log_with_torn_append(
    nats_address: NatsAddress, client: Client, log: JetStreamStore, location: str
) -> None:
    head = await write(log, 3)
    await publish(client, log, "s1", 5)
    async with asyncio.timeout(SECONDS), open_log(nats_address, TYPES, log.log) as again:
        async with running(again, location) as projector:
            assert projector.position == head
            position = await write(again, 1)
            await projector.wait_for(position)
        async with running(again, location) as projector:
            assert projector.position == position


async def test_append_in_progress_is_awaited(client: Client, log: JetStreamStore) -> None:
    """The first events of an append may be visible before its last."""
    await publish(client, log, "s1", 2)
    async with asyncio.timeout(SECONDS):
        reading = asyncio.create_task(read_all(log, "s1"))
        following_log = asyncio.create_task(take(log, 3))
        await publish(client, log, "s2", 1)
        await publish(client, log, "s3", 0)
        assert [event.position for event in await reading] == [1]
        assert [event.position for event in flat(await following_log)] == [1, 2, 3]
        assert await log.head() == 3


async def test_append_whose_end_was_erased_is_complete(nats_address: NatsAddress, location: str) -> None:
    async with open_log(nats_address, TYPES, erasable=True) as log, asyncio.timeout(SECONDS):
        await log.append([new("s1"), new("s2")])
        await log._js.purge_stream(log._name, subject=f"rf.{log.log}.s2")
        assert [event.position for event in await read_all(log, "s1")] == [1]
        async with running(log, location) as projector:
            assert projector.position == 2
            assert [row[0] for row in await projector.query(all_notes)] == ["s1"]


async def test_decision_on_incomplete_append_is_a_conflict(client: Client, log: JetStreamStore) -> None:
    """An append that was left out by a reader may be completed later: the reader's own append is then rejected."""
    await log.append([new("s")])
    await publish(client, log, "s", 1)
    assert [event.position for event in await read_all(log, "s")] == [1]
    await publish(client, log, "s2", 0)
    with pytest.raises(WrongExpectedRevision):
        await log.append([new("s")], {"s": 1})
    assert [event.position for event in await read_all(log, "s")] == [1, 2]
    assert await log.append([new("s")], {"s": 2}) == (4,)
