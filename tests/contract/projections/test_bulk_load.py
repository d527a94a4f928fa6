"""Rows of a long log are loaded in large steps, without most of their indexes, before they are served."""

from __future__ import annotations

import asyncio
import math

import pytest
import sqlalchemy as sa

from eventstore.jetstream import JetStreamStore
from eventstore.projections import rebuild, startup
from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from eventstore.store import EventStore
from tests.contract.projections.notes import (
    Notes,
    all_notes,
    fails_at,
    folded,
    generations,
    lose_rows,
    running,
    unfinished,
    write,
)

STEP = 250
SIZE = 500


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "FILL_FROM", 2 * SIZE)
    monkeypatch.setattr(rebuild, "FILL_EVENTS", STEP)


def indexes(connection: sa.Connection) -> set[str | None]:
    inspector = sa.inspect(connection)
    return {index["name"] for name in inspector.get_table_names() for index in inspector.get_indexes(name)}


async def write_long_log(log: EventStore) -> int:
    return await write(log, 3, size=SIZE)


async def test_loaded_rows_equal_rows_applied_event_by_event(
    log: JetStreamStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await write_long_log(log)
    async with running(log, location) as projector:
        assert projector.position == head
        assert not unfinished(location)
        digest, names = await asyncio.to_thread(projector.generation.digest), await projector.query(indexes)
    lose_rows(location)
    monkeypatch.setattr(startup, "FILL_FROM", math.inf)
    async with running(log, location) as projector:
        assert await asyncio.to_thread(projector.generation.digest) == digest
        assert await projector.query(indexes) == names
    assert {"rf_events_by_request", "rf_events_by_time"} <= names


async def test_loaded_rows_follow_log(log: JetStreamStore, location: str) -> None:
    await write_long_log(log)
    async with running(log, location) as projector:
        head = await write(log, 3)
        await projector.wait_for(head)
        assert await projector.query(all_notes) == await folded(log)
    async with running(log, location, again := Notes()) as projector:
        assert await projector.query(all_notes) == await folded(log)
        assert not again.applied


async def test_load_interrupted_by_crash_is_discarded(log: JetStreamStore, location: str) -> None:
    head = await write_long_log(log)
    generation = Generations(Notes(), Database(location)).unfinished()
    with generation.writing() as rows:
        rows.execute(sa.text("INSERT INTO notes VALUES ('s0', 'half', 1, 1)"))
    generation.close()
    async with running(log, location) as projector:
        assert projector.position == head
        assert await projector.query(all_notes) == await folded(log)
        assert len(generations(location)) == 1
    Generations(Notes(), Database(location)).unfinished().close()
    async with running(log, location):
        assert "://" in location or not unfinished(location)


async def test_load_stops_before_event_that_cannot_be_applied(log: JetStreamStore, location: str) -> None:
    head = await write(log, 3 * SIZE)
    with pytest.raises(Exception, match="cannot apply"):
        async with running(log, location, Notes(hook=fails_at(head - 10))):
            pass
    assert not unfinished(location)
    async with running(log, location, repaired := Notes()) as projector:
        assert repaired.applied == list(range(head - 10, head + 1))
        assert await projector.query(all_notes) == await folded(log)
