"""A projector meets an event that it cannot apply, or another log than the one it followed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence

import pytest
import sqlalchemy as sa

from eventstore.errors import CannotApply, LogRewritten, Rejected, StoreUnavailable
from eventstore.event import RecordedEvent
from eventstore.jetstream import JetStreamStore, connect
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.projections.tables import checkpoint
from services.nats.server import NatsAddress
from tests.contract.projections.notes import (
    Notes,
    all_notes,
    fails_at,
    folded,
    lose_rows,
    notes,
    rebuilt,
    running,
    write,
)
from tests.contract.store.events import TYPES, following, new
from tests.servers.nats import open_log
from tests.timeouts import scaled

pytestmark = pytest.mark.busy


async def test_append_is_applied_whole_or_not_at_all(log: JetStreamStore, location: str) -> None:
    """The rows advance up to the append that fails, and the error names it."""
    await write(log, 1)
    await log.append([new(f"s{number}") for number in range(5)])
    await write(log, 1)
    async with following(log) as tail:
        projector = Projector(tail, Notes(hook=fails_at(4)), Database(location))
        with pytest.raises(StoreUnavailable) as caught:
            await projector.start()
        assert caught.value.reason == "PROJECTION_FAILED"
        assert isinstance(projector.failure, CannotApply)
        assert (projector.failure.first, projector.failure.last) == (2, 6)
        assert isinstance(projector.failure.__cause__, ArithmeticError)
        with projector.generation.transaction() as rows:
            assert rows.execute(sa.select(checkpoint)).one().position == 1
            assert sum(row[2] for row in all_notes(rows)) == 1
        await projector.stop()
    async with running(log, location) as repaired:
        assert await repaired.query(all_notes) == await folded(log)


async def test_failure_fails_all_waiters(log: JetStreamStore, location: str) -> None:
    async with running(log, location, Notes(hook=fails_at(2))) as projector:
        await write(log, 1)
        await projector.wait_for(1)
        waiting = asyncio.create_task(projector.wait_for(3))
        await write(log, 2)
        with pytest.raises(StoreUnavailable) as raised:
            await waiting
        assert raised.value.reason == "PROJECTION_FAILED"
        for outcome in (projector.wait_for(2), projector.query(all_notes)):
            with pytest.raises(StoreUnavailable) as caught:
                await outcome
            assert caught.value.reason == "PROJECTION_FAILED"
        assert isinstance(projector.failure, CannotApply)
        assert isinstance(projector.failure.__cause__, ArithmeticError)
        assert projector.position == 1
        await projector.wait_for(1)


class RewrittenLog(MemoryStore):
    """A log that turns out to be another than the one followed."""

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        async for batch in super().subscribe(after):
            if batch[-1].position > 1:
                raise LogRewritten("another log")
            yield batch


async def test_rows_of_rewritten_log_are_not_served(location: str) -> None:
    log = RewrittenLog("rewritten", TYPES)
    async with running(log, location) as projector:
        await write(log, 1)
        await projector.wait_for(1)
        waiting = asyncio.create_task(projector.wait_for(2))
        await write(log, 1)
        with pytest.raises(LogRewritten):
            await projector.tail.failed()
        for outcome in (waiting, projector.wait_for(2), projector.query(all_notes)):
            with pytest.raises(StoreUnavailable) as caught:
                await outcome
            assert caught.value.reason == "PROJECTION_FAILED"


class InvalidQueryProjection(Notes):
    """A projection that executes an invalid statement at one event."""

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        super().apply(connection, events)
        if any(event.position == 2 for event in events):
            connection.execute(sa.text("SELECT nothing"))


async def test_event_refused_by_database_is_named(location: str) -> None:
    log = MemoryStore("refused", TYPES)
    async with running(log, location, InvalidQueryProjection()) as projector:
        head = await write(log, 3)
        with pytest.raises(StoreUnavailable) as caught:
            await projector.wait_for(head)
        assert caught.value.reason == "PROJECTION_FAILED"
        assert isinstance(projector.failure, CannotApply)
        assert (projector.failure.first, projector.failure.last) == (2, 2)
        assert projector.position == 1


async def test_event_too_large_for_index_is_named(postgres_url: str) -> None:
    log = MemoryStore("large", TYPES)
    unpackable = "".join(map(chr, random.Random(1).choices(range(0x20000, 0x2A000), k=1_000)))
    async with running(log, postgres_url) as projector:
        (head,) = await log.append([new(unpackable)])
        with pytest.raises(StoreUnavailable) as caught:
            await projector.wait_for(head)
        assert caught.value.reason == "PROJECTION_FAILED"
        assert isinstance(projector.failure, CannotApply)


async def test_query_refused_by_database_is_not_retried(location: str) -> None:
    async with running(MemoryStore("asked", TYPES), location) as projector:
        with pytest.raises(sa.exc.DBAPIError):
            await projector.query(lambda connection: connection.execute(sa.text("SELECT nothing")))


async def test_unreadable_event_is_named(nats_address: NatsAddress, log: JetStreamStore, location: str) -> None:
    await write(log, 2)
    client = await connect(nats_address.url, nats_address.user, nats_address.password)
    async with running(log, location) as projector:
        await client.jetstream().publish(f"rf.{log.log}.s", b"not an event")
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as caught:
                await projector.wait_for(3)
            assert caught.value.reason == "PROJECTION_FAILED"
            assert "position 3" in str(caught.value)
        assert isinstance(projector.failure, CannotApply)
    await client.close()


async def test_rebuild_of_failed_projection_compares_rows(location: str) -> None:
    log = MemoryStore("blamed", TYPES)
    head = await write(log, 5)
    async with running(log, location, Notes(hook=fails_at(head + 1))) as projector:
        await write(log, 1)
        with pytest.raises(StoreUnavailable):
            await projector.wait_for(head + 1)
        assert (await rebuilt(projector)).position == head
        with projector.generation.writing() as rows:
            rows.execute(sa.delete(notes).where(notes.c.stream == "s1"))
        with pytest.raises(Rejected) as refused:
            await rebuilt(projector)
        assert refused.value.reason == "REBUILD_DIFFERS"
        assert projector.failure


# Erased events.


async def test_projector_passes_erased_events(nats_address: NatsAddress, location: str) -> None:
    async with open_log(nats_address, TYPES, erasable=True) as log, asyncio.timeout(scaled(20)):
        head = await write(log, 12, streams=3)
        async with running(log, location) as projector:
            await erase(log, "s2")
            with pytest.raises(Rejected) as refused:
                await rebuilt(projector)
            assert refused.value.reason == "REBUILD_DIFFERS"
        lose_rows(location)
        async with running(log, location) as projector:
            assert {row[0] for row in await projector.query(all_notes)} == {"s0", "s1"}
            assert projector.position == head
            assert (await rebuilt(projector)).done
            await projector.wait_for(await write(log, 1))
            assert await projector.query(all_notes) == await folded(log)


async def test_log_may_be_erased_completely(nats_address: NatsAddress, location: str) -> None:
    async with open_log(nats_address, TYPES, erasable=True) as log, asyncio.timeout(scaled(20)):
        head = await write(log, 3, streams=1)
        await erase(log, "s0")
        async with running(log, location) as projector:
            assert projector.position == head
            assert await projector.query(all_notes) == []


async def erase(log: JetStreamStore, stream: str) -> None:
    await log._js.purge_stream(log._name, subject=f"rf.{log.log}.{stream}")
