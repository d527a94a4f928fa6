"""Rows are computed anew beside the live ones: a new version, a rebuild, and one that another process made."""

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


async def test_a_new_version_is_computed_from_the_beginning_and_the_old_dropped(
    log: JetStreamStore, location: str
) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        old = projector.fingerprint
    assert [mark for mark, _ in generations(location)] == [old]
    projection = Notes(version=2)
    async with running(log, location, projection) as projector:
        assert projection.applied == list(range(1, 11))
        assert await projector.query(all_notes) == await folded(log)
        assert [mark for mark, _ in generations(location)] == [projector.fingerprint] != [old]


async def test_the_old_version_answers_until_the_new_one_is_there(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as old:
        seen: list[list[tuple[str, int]]] = []
        hook: Hook = lambda event: seen.append(generations(location)) if event.position == 10 else None  # noqa: E731
        expected = await folded(log)
        async with running(log, location, Notes(2, hook)) as projector:
            assert await projector.query(all_notes) == expected
        assert len(seen[0]) == 2
        assert old.failure is None


async def test_rows_are_rebuilt_beside_the_live_ones(log: JetStreamStore, location: str) -> None:
    await write(log, 100, size=3)
    async with running(log, location) as projector:
        before = projector.generation
        asking = [asyncio.create_task(ask_on(projector)) for _ in range(3)]
        writing = asyncio.create_task(write(log, 200))
        progress = await rebuilt(projector)
        head = await writing
        assert progress.done
        assert progress.live_digest == progress.rebuilt_digest == progress.live_digest.lower()
        assert projector.generation is not before
        await projector.wait_for(head)
        await end_all(asking)
        assert await projector.query(all_notes) == await folded(log)
        assert len(generations(location)) == 1
        await projector.wait_for(await write(log, 1))
        assert (await rebuilt(projector)).live_digest != progress.live_digest
        number = projector.generation.number
    async with running(log, location) as projector:
        assert projector.generation.number == number
        assert await projector.query(all_notes) == await folded(log)


async def end_all(asking: Sequence[asyncio.Task[None]]) -> None:
    """Ends those who ask on, none of whom may have failed."""
    for task in asking:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def ask_on(projector: Projector) -> None:
    while True:
        await projector.query(all_notes)


async def test_an_empty_log_can_be_rebuilt(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        assert (await rebuilt(projector)).done


async def test_a_difference_is_found_and_the_live_rows_stay(log: JetStreamStore, location: str) -> None:
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


async def test_one_rebuild_at_a_time_and_one_that_is_given_up_leaves_nothing(
    log: JetStreamStore, location: str
) -> None:
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


async def test_a_rebuild_that_was_cut_off_by_a_crash_is_forgotten(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        Database(location).open("notes", projector.fingerprint, 2, tables).close()
        assert len(generations(location)) == 2
        assert (await rebuilt(projector)).done
        assert projector.generation.number == 3
    async with running(log, location) as projector:
        assert await projector.query(all_notes) == await folded(log)
        assert len(generations(location)) == 1


async def test_a_process_goes_over_to_the_rows_that_another_rebuilt(log: JetStreamStore, postgres_url: str) -> None:
    await write(log, 20)
    async with running(log, postgres_url) as one, running(log, postgres_url) as two:
        for projector, other in ((one, two), (two, one)):
            asking = [asyncio.create_task(ask_on(other)) for _ in range(3)]
            writing = asyncio.create_task(write(log, 60))
            assert (await rebuilt(projector)).done
            await writing
            head = await write(log, 1)
            await asyncio.gather(one.wait_for(head), two.wait_for(head))
            await end_all(asking)
            expected = await folded(log)
            assert await one.query(all_notes) == expected
            assert await two.query(all_notes) == expected
            assert one.generation.label == two.generation.label
            assert len(generations(postgres_url)) == 1


async def test_a_question_goes_over_to_rebuilt_rows_before_the_next_event(
    log: JetStreamStore, postgres_url: str
) -> None:
    await write(log, 20)
    expected = await folded(log)
    async with running(log, postgres_url) as one, running(log, postgres_url) as two:
        await rebuilt(one)
        assert await asyncio.gather(*(two.query(all_notes) for _ in range(5))) == [expected] * 5
        assert one.generation.label == two.generation.label


async def test_a_long_question_keeps_no_process_waiting(postgres_url: str) -> None:
    """Not even one about rows that another process has replaced, and would drop."""
    log = MemoryStore("long", TYPES)
    asked, go_on = threading.Event(), threading.Event()

    def ask_for_long(connection: sa.Connection) -> list[Row]:
        found = all_notes(connection)
        asked.set()
        assert go_on.wait(scaled(30))
        return found

    head = await write(log, 5)
    expected = await folded(log)
    async with running(log, postgres_url) as one, running(log, postgres_url) as two:
        asking = asyncio.create_task(two.query(ask_for_long))
        assert await asyncio.to_thread(asked.wait, 30)
        rebuilding = asyncio.create_task(rebuilt(one))
        await until(lambda: one.generation.number > two.generation.number)
        async with asyncio.timeout(scaled(10)):
            for _ in range(3):
                head = await write(log, 1)
                await asyncio.gather(one.wait_for(head), two.wait_for(head))
                assert await two.query(all_notes) == await one.query(all_notes) == await folded(log)
        assert not asking.done()
        go_on.set()
        assert await asking == expected
        assert (await rebuilding).done
        assert len(generations(postgres_url)) == 1
