"""Rebuilds beside the live rows: of a new version, on demand, and by another process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import aclosing

import pytest
import sqlalchemy as sa

from eventstore.errors import Rejected
from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from tests.contract.projections.notes import (
    Hook,
    Notes,
    Row,
    all_notes,
    folded,
    generations,
    notes,
    rebuilt,
    running,
    tables,
    unfinished,
    write,
)
from tests.contract.store.events import TYPES
from tests.servers.nats import until
from tests.timeouts import scaled


async def test_new_version_is_built_from_start_and_old_dropped(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        old = projector.fingerprint
    assert [mark for mark, _ in generations(location)] == [old]
    projection = Notes(version=2)
    async with running(log, location, projection) as projector:
        assert projection.applied == list(range(1, 11))
        assert await projector.query(all_notes) == await folded(log)
        assert [mark for mark, _ in generations(location)] == [projector.fingerprint] != [old]


async def test_old_version_answers_until_new_one_is_built(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as old:
        seen: list[list[tuple[str, int]]] = []
        hook: Hook = lambda event: seen.append(generations(location)) if event.position == 10 else None  # noqa: E731
        expected = await folded(log)
        async with running(log, location, Notes(2, hook)) as projector:
            assert await projector.query(all_notes) == expected
        assert len(seen[0]) == 2
        assert old.failure is None


async def test_rebuild_does_not_interrupt_live_rows(log: JetStreamStore, location: str) -> None:
    await write(log, 100, size=3)
    async with running(log, location) as projector:
        before = projector.generation
        querying = [asyncio.create_task(query_repeatedly(projector)) for _ in range(3)]
        writing = asyncio.create_task(write(log, 200))
        progress = await rebuilt(projector)
        head = await writing
        assert progress.done
        assert progress.live_digest == progress.rebuilt_digest == progress.live_digest.lower()
        assert projector.generation is not before
        await projector.wait_for(head)
        await stop_queries(querying)
        assert await projector.query(all_notes) == await folded(log)
        assert len(generations(location)) == 1
        await projector.wait_for(await write(log, 1))
        assert (await rebuilt(projector)).live_digest != progress.live_digest
        number = projector.generation.number
    async with running(log, location) as projector:
        assert projector.generation.number == number
        assert await projector.query(all_notes) == await folded(log)


async def stop_queries(querying: Sequence[asyncio.Task[None]]) -> None:
    """Cancel the query loops, none of which may have failed."""
    for task in querying:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def query_repeatedly(projector: Projector) -> None:
    while True:
        await projector.query(all_notes)


async def test_empty_log_can_be_rebuilt(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        assert (await rebuilt(projector)).done


async def test_rebuild_reports_difference_and_keeps_live_rows(log: JetStreamStore, location: str) -> None:
    head = await write(log, 10)
    async with running(log, location) as projector:
        with projector.generation.writing() as rows:
            rows.execute(sa.update(notes).where(notes.c.stream == "s1").values(text="tampered"))
        before = projector.generation
        with pytest.raises(Rejected) as caught:
            await rebuilt(projector)
        assert caught.value.reason == "REBUILD_DIFFERS"
        assert caught.value.metadata["live_digest"] != caught.value.metadata["rebuilt_digest"]
        assert projector.generation is before
        assert len(generations(location)) == 1
        assert "tampered" in {row[1] for row in await projector.query(all_notes)}
        await write(log, 1)
        await projector.wait_for(head + 1)


async def test_rebuilds_do_not_overlap_and_cancelled_one_leaves_nothing(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        async with aclosing(projector.rebuild()) as rebuilding:
            await anext(rebuilding)
            assert len(unfinished(location)) == 1
            with pytest.raises(Rejected) as caught:
                await rebuilt(projector)
            assert caught.value.reason == "REBUILD_RUNNING"
        assert len(generations(location)) == 1
        assert not unfinished(location)
        assert (await rebuilt(projector)).done


async def test_rebuild_interrupted_by_crash_is_discarded(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        Database(location).open("notes", projector.fingerprint, 2, tables).close()
        assert len(generations(location)) == 2
        assert (await rebuilt(projector)).done
        assert projector.generation.number == 3
    async with running(log, location) as projector:
        assert await projector.query(all_notes) == await folded(log)
        assert len(generations(location)) == 1


async def test_process_switches_to_rows_rebuilt_by_other(log: JetStreamStore, postgres_url: str) -> None:
    await write(log, 20)
    async with running(log, postgres_url) as first, running(log, postgres_url) as second:
        for projector, other in ((first, second), (second, first)):
            querying = [asyncio.create_task(query_repeatedly(other)) for _ in range(3)]
            writing = asyncio.create_task(write(log, 60))
            assert (await rebuilt(projector)).done
            await writing
            head = await write(log, 1)
            await asyncio.gather(first.wait_for(head), second.wait_for(head))
            await stop_queries(querying)
            expected = await folded(log)
            assert await first.query(all_notes) == expected
            assert await second.query(all_notes) == expected
            assert first.generation.label == second.generation.label
            assert len(generations(postgres_url)) == 1


async def test_query_switches_to_rebuilt_rows_before_next_event(log: JetStreamStore, postgres_url: str) -> None:
    await write(log, 20)
    expected = await folded(log)
    async with running(log, postgres_url) as first, running(log, postgres_url) as second:
        await rebuilt(first)
        assert await asyncio.gather(*(second.query(all_notes) for _ in range(5))) == [expected] * 5
        assert first.generation.label == second.generation.label


async def test_long_query_does_not_block_processes(postgres_url: str) -> None:
    """Not even a query of rows that another process has replaced and is about to drop."""
    log = MemoryStore("long", TYPES)
    query_started, proceed = threading.Event(), threading.Event()

    def query_slowly(connection: sa.Connection) -> list[Row]:
        rows_read = all_notes(connection)
        query_started.set()
        assert proceed.wait(scaled(30))
        return rows_read

    head = await write(log, 5)
    expected = await folded(log)
    async with running(log, postgres_url) as first, running(log, postgres_url) as second:
        querying = asyncio.create_task(second.query(query_slowly))
        assert await asyncio.to_thread(query_started.wait, 30)
        rebuilding = asyncio.create_task(rebuilt(first))
        await until(lambda: first.generation.number > second.generation.number)
        async with asyncio.timeout(scaled(10)):
            for _ in range(3):
                head = await write(log, 1)
                await asyncio.gather(first.wait_for(head), second.wait_for(head))
                assert await second.query(all_notes) == await first.query(all_notes) == await folded(log)
        assert not querying.done()
        proceed.set()
        assert await querying == expected
        assert (await rebuilding).done
        assert len(generations(postgres_url)) == 1
