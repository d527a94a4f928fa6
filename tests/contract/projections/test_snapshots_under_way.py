"""Snapshots while others write, when the process stops, where they are out of reach, and as the log grows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Never

import pytest

from eventstore.errors import Rejected, StoreUnavailable
from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.projections.snapshots.schedule import SnapshotProgress
from eventstore.projections.snapshots.store import Objects
from services.artifacts.objects import ObjectPlace, open_objects
from tests.contract.projections.kept import FOLDER, applied_at_start, keeper, positions, take, taken
from tests.contract.projections.notes import Notes, all_notes, folded, lose_rows, running, write
from tests.contract.store.events import TYPES, following
from tests.timeouts import scaled

pytestmark = pytest.mark.busy


class Gate:
    """Objects that wait in the middle of a snapshot, and say when they are there."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def names(self, under: str) -> list[str]:
        return self.inner.names(under)

    def put(self, name: str, pieces: Iterator[bytes]) -> None:
        self.inner.put(name, self._held(pieces))

    def get(self, name: str) -> Iterator[bytes]:
        return self._held(self.inner.get(name))

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def _held(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            if number == 0:
                self.reached.set()
                assert self.go_on.wait(scaled(30))
            yield piece


async def test_nobody_waits_for_a_snapshot_and_it_is_of_one_moment(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    gate = Gate(objects)
    at = await write(log, 20)
    async with running(log, location, objects=gate) as projector:
        one = keeper(projector)
        steps: list[SnapshotProgress] = []

        async def run() -> None:
            steps.extend([step async for step in one.take()])

        job = asyncio.create_task(run())
        assert await asyncio.to_thread(gate.reached.wait, 30)
        with pytest.raises(Rejected) as refused:
            await anext(one.take())
        assert refused.value.reason == "SNAPSHOT_RUNNING"
        head = await write(log, 30)
        await asyncio.wait_for(projector.wait_for(head), scaled(10))
        assert await projector.query(all_notes) == await folded(log)
        assert not job.done()
        gate.go_on.set()
        await job
        assert steps[-1].done
    lose_rows(location)
    assert positions(objects) == [steps[-1].position]
    assert at <= steps[-1].position <= head
    assert await applied_at_start(log, location, objects) == list(range(steps[-1].position + 1, head + 1))


async def test_who_is_slow_leaves_the_newer_snapshots_of_others(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    gate = Gate(objects)
    head = await write(log, 10)
    async with running(log, location, objects=gate) as slow, running(log, location, objects=objects) as quick:
        taking = asyncio.create_task(take(slow))
        assert await asyncio.to_thread(gate.reached.wait, 30)
        for _ in range(2):
            await quick.wait_for(await write(log, 5))
            await take(quick)
        gate.go_on.set()
        assert (await taking).position == head
    assert positions(objects) == [head + 5, head + 10]


async def test_a_stop_ends_what_is_under_way(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    gate = Gate(objects)
    await write(log, 20)
    async with running(log, location, objects=gate) as projector:
        one = keeper(projector)
        step = asyncio.create_task(anext(one.take()))
        assert await asyncio.to_thread(gate.reached.wait, 30)
        stopping = asyncio.create_task(one.stop())
        await asyncio.wait([stopping], timeout=0.05)
        gate.go_on.set()
        await stopping
        await asyncio.wait([step])
        step.exception()
    assert objects.names(FOLDER) == []


async def test_a_start_that_is_given_up_leaves_a_restore(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    await taken(log, location, objects)
    lose_rows(location)
    gate = Gate(objects)
    async with following(log) as tail:
        projector = Projector(tail, Notes(), Database(location), gate)
        starting = asyncio.create_task(projector.start())
        assert await asyncio.to_thread(gate.reached.wait, 30)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert projector.snapshots
        projector.snapshots.abandon()
        gate.go_on.set()
        await projector.stop()
    assert Database(location).generations("notes") == []
    assert await applied_at_start(log, location, objects) == []


def _away(*_: object) -> Never:
    raise StoreUnavailable("away", "BLOB_STORE_UNAVAILABLE")


class Away:
    """Objects that are out of reach."""

    names = put = get = delete = staticmethod(_away)


async def test_objects_out_of_reach_keep_nobody_from_starting(log: JetStreamStore, location: str) -> None:
    await write(log, 5)
    async with running(log, location, objects=Away()) as projector:
        assert await projector.query(all_notes) == await folded(log)
        with pytest.raises(StoreUnavailable) as caught:
            await take(projector)
        assert caught.value.reason == "BLOB_STORE_UNAVAILABLE"


async def test_a_place_that_cannot_be_used_keeps_nobody_from_starting(log: JetStreamStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await write(log, 5)
    async with running(log, str(tmp_path / "rows"), objects=open_objects(str(tmp_path / "file"))) as projector:
        assert await projector.query(all_notes) == await folded(log)
        with pytest.raises(StoreUnavailable) as caught:
            await take(projector)
        assert caught.value.reason == "BLOB_STORE_UNAVAILABLE"


class Told:
    """Objects that say what was put."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects
        self.names, self.get, self.delete = objects.names, objects.get, objects.delete
        self.count = 0
        self.more = threading.Condition()

    def put(self, name: str, pieces: Iterator[bytes]) -> None:
        self.inner.put(name, pieces)
        with self.more:
            self.count += 1
            self.more.notify_all()

    def wait_for(self, count: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: self.count >= count, 30)


async def test_snapshots_are_taken_as_the_log_grows(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    told = Told(objects)
    async with running(log, location, objects=told) as projector:
        one = keeper(projector, 0.01, events=20)
        await one.start()
        await projector.wait_for(await write(log, 19))
        assert not one._has_grown()
        for number in (1, 2, 3):
            await projector.wait_for(await write(log, 25))
            await asyncio.to_thread(told.wait_for, number)
        await one.stop()
    found = positions(objects)
    assert len(found) == 2
    assert found[1] - found[0] >= 20


async def test_a_log_that_is_long_must_grow_more(log: JetStreamStore, tmp_path: Path, objects: ObjectPlace) -> None:
    async with running(log, str(tmp_path / "rows"), objects=objects) as projector:
        one = keeper(projector, events=2)
        await projector.wait_for(await write(log, 100))
        assert [step async for step in one.take()][-1].position == 100
        await projector.wait_for(await write(log, 9))
        assert not await one._is_due()
        await projector.wait_for(await write(log, 1))
        assert await one._is_due()
        assert [step async for step in keeper(projector).take()][-1].position == 110  # as another process would
        assert one._has_grown()
        assert not await one._is_due()
