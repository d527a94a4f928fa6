"""The contract of a projector, on SQLite and on PostgreSQL, over a real NATS log."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventstore.errors import StoreUnavailable
from eventstore.event import RecordedEvent
from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.projections import projector as projection
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.projections.tables import checkpoint, events
from eventstore.tail import Tail
from tests.contract.projections.notes import Notes, all_notes, folded, generations, notes, running, tables, write
from tests.contract.store.events import TYPES, following
from tests.servers.postgres import PostgresServer
from tests.timeouts import scaled

LONG = 60.0  # seconds, so that no batch is due in between


async def test_projector_catches_up_and_continues_live(log: JetStreamStore, location: str) -> None:
    head = await write(log, 30)
    async with running(log, location) as projector:
        assert projector.position == head
        assert await projector.query(all_notes) == await folded(log)
        waiting = asyncio.create_task(projector.wait_for(head + 3))
        await write(log, 2)
        await projector.wait_for(head + 2)
        assert not waiting.done()
        await write(log, 1)
        await waiting
        assert await projector.query(all_notes) == await folded(log)


async def test_empty_log_has_no_rows(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        assert projector.position == 0
        assert await projector.query(all_notes) == []
        assert await projector.position_at(2**62) == (0, 0)


async def test_query_before_start_is_rejected(log: JetStreamStore, tmp_path: Path) -> None:
    projector = Projector(Tail(log), Notes(), Database(str(tmp_path)))
    with pytest.raises(StoreUnavailable) as caught:
        await projector.query(all_notes)
    assert caught.value.reason == "PROJECTION_BEHIND"
    await projector.stop()


async def test_restart_continues_from_checkpoint(log: JetStreamStore, location: str) -> None:
    first, second = Notes(), Notes()
    head = await write(log, 10)
    async with running(log, location, first):
        pass
    await write(log, 5)
    async with running(log, location, second) as projector:
        assert await projector.query(all_notes) == await folded(log)
    assert first.applied == list(range(1, head + 1))
    assert second.applied == list(range(head + 1, head + 6))
    assert len(generations(location)) == 1


async def test_stop_fails_waiters(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        waiting = asyncio.create_task(projector.wait_for(1))
        await asyncio.wait({waiting}, timeout=0.05)
    with pytest.raises(StoreUnavailable) as caught:
        await waiting
    assert caught.value.reason == "PROJECTION_BEHIND"


async def test_cancelled_waiter_is_removed(tmp_path: Path) -> None:
    async with running(MemoryStore("words", TYPES), str(tmp_path)) as projector:
        for waited_for, watermark in (
            (projector, projector._progress._watermark),
            (projector.tail, projector.tail._reached),
        ):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waited_for.wait_for(1_000_000), 0.01)
            assert 1_000_000 not in {position for position, *_ in watermark._waiters}


async def test_commits_lost_by_database_are_repeated(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        head = await write(log, 10, streams=10)
        await projector.wait_for(head)
        event = await log.event_at(head - 4)
        assert event
        with projector.generation.writing() as rows:
            rows.execute(sa.delete(notes).where(notes.c.position > event.position))
            rows.execute(sa.delete(events).where(events.c.position > event.position))
            rows.execute(sa.update(checkpoint).values(position=event.position, event_id=event.id))
        head = await write(log, 1)
        await projector.wait_for(head)
        assert await projector.query(all_notes) == await folded(log)


async def test_projector_survives_database_outage(
    postgres: PostgresServer, postgres_url: str, log: JetStreamStore
) -> None:
    if not postgres.ours:
        pytest.skip("ROLLFORWARD_TEST_PG_URL names a server that is not ours to kill")
    async with running(log, postgres_url) as projector:
        for number in (signal.SIGQUIT, signal.SIGINT):
            head = await write(log, 50)
            await projector.wait_for(head)
            await asyncio.to_thread(postgres.end, number)
            try:
                with pytest.raises(StoreUnavailable) as caught:
                    await projector.query(all_notes)
                assert caught.value.reason == "DATABASE_UNAVAILABLE"
                assert str(caught.value).isprintable()
                head = await write(log, 5)
                waiting = asyncio.create_task(projector.wait_for(head))
                await asyncio.wait({waiting}, timeout=0.05)
                assert not waiting.done()
            finally:
                await asyncio.to_thread(postgres.start)
            await asyncio.wait_for(waiting, scaled(30))
            assert projector.failure is None
            assert await projector.query(all_notes) == await folded(log)


# Batching.


@contextmanager
def record_commits(projector: Projector) -> Iterator[list[object]]:
    """Yield a list that gets one entry for each transaction that writes the live rows, including a start's."""
    recorded_commits: list[object] = []

    def note(connection: sa.Connection) -> None:
        if {"rf_begin", "isolation_level"} & connection.get_execution_options().keys():
            recorded_commits.append(connection)

    sa.event.listen(projector.generation._engine, "commit", note)
    yield recorded_commits
    sa.event.remove(projector.generation._engine, "commit", note)


async def test_waiting_query_ends_batch_early(
    log: JetStreamStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "BATCH_WINDOW_SECONDS", LONG)
    async with running(log, location) as projector:
        head = await write(log, 1)
        await projector.wait_for(head)
        with record_commits(projector) as recorded_commits:
            head = await write(log, 30)
            await projector.tail.wait_for(head)
            assert recorded_commits == []
            await projector.wait_for(head)
            assert len(recorded_commits) == 1
        assert await projector.query(all_notes) == await folded(log)


async def test_events_received_during_write_are_one_batch(log: JetStreamStore, location: str) -> None:
    proceed, begun = threading.Event(), threading.Event()

    def hold(event: RecordedEvent) -> None:
        begun.set()
        assert proceed.wait(scaled(20))

    async with running(log, location, Notes(hook=hold)) as projector:
        with record_commits(projector) as recorded_commits:
            await write(log, 1)
            waiting = asyncio.create_task(projector.wait_for(31))
            await asyncio.to_thread(begun.wait, 20)
            head = await write(log, 30)
            await projector.tail.wait_for(head)
            proceed.set()
            await waiting
            assert len(recorded_commits) == 2
        assert await projector.query(all_notes) == await folded(log)


async def test_slow_projection_continues_from_checkpoint(log: JetStreamStore, location: str) -> None:
    begun, proceed = threading.Event(), threading.Event()

    def hold(event: RecordedEvent) -> None:
        begun.set()
        assert proceed.wait(scaled(20))

    async with following(log, kept_bytes=1) as tail:
        notes = Notes(hook=hold)
        projector = Projector(tail, notes, Database(location))
        await projector.start()
        await write(log, 1)
        await asyncio.to_thread(begun.wait, 20)
        for _ in range(20):
            await tail.wait_for(await write(log, 1))
        proceed.set()
        await projector.wait_for(21)
        assert notes.applied == list(range(1, 22))
        assert await projector.query(all_notes) == await folded(log)
        await projector.stop()


def test_database_is_directory_or_postgresql(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Database("mysql://localhost/rows")
    odd_path = tmp_path / "a dir? with #odd%20 letters"
    rows = Database(str(odd_path)).open("notes", "0123456789", 1, tables)
    rows.set_live()
    rows.close()
    assert Database(str(odd_path)).generations("notes") == [("0123456789", 1)]
