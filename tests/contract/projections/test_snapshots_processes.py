"""Processes that take and restore snapshots concurrently, and are killed meanwhile."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from eventstore.jetstream import JetStreamStore
from eventstore.projections.database import Database
from eventstore.projections.snapshots import dump
from services.artifacts.objects import ObjectPlace
from services.nats.server import NatsAddress
from tests.contract.projections.notes import Notes, all_notes, folded, lose_rows, running, write
from tests.contract.projections.other_process import finish, process, started
from tests.contract.projections.snapshots import applied_at_start, positions, write_and_take

pytestmark = pytest.mark.busy


def left_behind(location: str) -> list[str]:
    """Return the names of files that are neither rows nor a lock."""
    if "://" in location:
        return []
    return [
        path.name for path in Path(location).iterdir() if not {".db", ".db-wal", ".db-shm", ".lock"} & {path.suffix}
    ]


@pytest.mark.parametrize("dies_at", [1, 3, 9])
async def test_process_killed_while_taking_snapshot_leaves_nothing(
    nats_address: NatsAddress, log: JetStreamStore, location: str, objects_url: str, objects: ObjectPlace, dies_at: int
) -> None:
    first = await write_and_take(log, location, objects, 100)
    head = await write(log, 5)
    async with process(nats_address, log, location, objects=objects_url, take=1, dies_at_piece=dies_at) as child:
        assert await child.wait() == -signal.SIGKILL
    assert positions(objects) == [first]
    assert left_behind(location) == []
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == list(range(first + 1, head + 1))


@pytest.mark.parametrize("dies_at", [1, 2, 3, 6, 9])
async def test_process_killed_while_restoring_leaves_nothing(
    nats_address: NatsAddress,
    log: JetStreamStore,
    location: str,
    objects_url: str,
    objects: ObjectPlace,
    dies_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dump, "BLOCK", 512)
    head = await write_and_take(log, location, objects, 100)
    lose_rows(location)
    async with process(nats_address, log, location, objects=objects_url, dies_at_piece=dies_at) as child:
        assert await child.wait() == -signal.SIGKILL
    assert await applied_at_start(log, location, objects) == []
    assert positions(objects) == [head]
    assert left_behind(location) == []


async def test_one_of_several_processes_restores(
    nats_address: NatsAddress, log: JetStreamStore, location: str, objects_url: str, objects: ObjectPlace
) -> None:
    at = await write_and_take(log, location, objects, 50)
    lose_rows(location)
    projection = Notes()
    async with (
        process(nats_address, log, location, objects=objects_url) as first,
        process(nats_address, log, location, objects=objects_url) as second,
        running(log, location, projection, objects) as projector,
    ):
        for child in (first, second):
            await started(child)
        head = await write(log, 50)
        await projector.wait_for(head)
        assert min(projection.applied, default=at + 1) > at
        assert len(Database(location).generations("notes")) == 1
        for child in (first, second):
            await finish(child)
        assert await projector.query(all_notes) == await folded(log)


async def test_processes_may_take_snapshots_concurrently(
    nats_address: NatsAddress, log: JetStreamStore, location: str, objects_url: str, objects: ObjectPlace
) -> None:
    head = await write(log, 50)
    async with (
        process(nats_address, log, location, objects=objects_url, take=1) as first,
        process(nats_address, log, location, objects=objects_url, take=1) as second,
    ):
        for child in (first, second):
            await started(child)
    assert positions(objects) == [head]
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == []
