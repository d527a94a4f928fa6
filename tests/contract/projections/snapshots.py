"""Helpers of the snapshot tests: take snapshots, and restart after the rows are lost."""

from __future__ import annotations

from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.projections.snapshots.schedule import SnapshotKeeper, SnapshotProgress
from eventstore.projections.snapshots.store import Objects
from eventstore.store import EventStore
from tests.contract.projections.notes import Notes, all_notes, folded, running, write

FOLDER = "snapshots/notes"


def keeper(projector: Projector, interval: float = 0, events: int = 1) -> SnapshotKeeper:
    return SnapshotKeeper(projector, interval, events)


async def take(projector: Projector) -> SnapshotProgress:
    steps = [step async for step in keeper(projector).take()]
    assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].size
    return steps[-1]


async def write_and_take(log: EventStore, location: str, objects: Objects, count: int = 10) -> int:
    """Append `count` events, take a snapshot and return its position."""
    await write(log, count)
    head = await log.head()
    async with running(log, location, objects=objects) as projector:
        assert (await take(projector)).position == head
    return head


async def applied_at_start(log: EventStore, location: str, objects: Objects, version: int = 1) -> list[int]:
    """Start, check the rows against the log and a rebuild, and return the positions that the start applied."""
    projection = Notes(version)
    async with running(log, location, projection, objects) as projector:
        applied = list(projection.applied)
        assert await projector.query(all_notes) == await folded(log)
        assert [step async for step in projector.rebuild()][-1].done
        assert len(Database(location).generations("notes")) == 1
    return applied


def positions(objects: Objects) -> list[int]:
    return sorted(int(name.rpartition("/")[2][:20]) for name in objects.names(FOLDER))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
