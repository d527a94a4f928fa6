"""Snapshots during writes and stops, with unavailable storage, and as the log grows."""

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
from tests.contract.projections.notes import Notes, all_notes, folded, lose_rows, running, write
from tests.contract.projections.snapshots import FOLDER, applied_at_start, keeper, positions, take, write_and_take
from tests.contract.store.events import TYPES, following
from tests.timeouts import scaled

pytestmark = pytest.mark.busy


class BlockedObjects:
    """Object storage that blocks in the middle of a snapshot until `proceed` is set."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects
        self.reached = threading.Event()
        self.proceed = threading.Event()

    def names(self, under: str) -> list[str]:
        return self.inner.names(under)

    def put(self, name: str, pieces: Iterator[bytes]) -> None:
        self.inner.put(name, self._blocked(pieces))

    def get(self, name: str) -> Iterator[bytes]:
        return self._blocked(self.inner.get(name))

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def _blocked(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            if number == 0:
                self.reached.set()
                assert self.proceed.wait(scaled(30))
            yield piece


async def test_snapshot_is_consistent_and_blocks_nothing(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    blocked = BlockedObjects(objects)
    at = await write(log, 20)
    async with running(log, location, objects=blocked) as projector:
        snapshot_keeper = keeper(projector)
        steps: list[SnapshotProgress] = []

        async def run() -> None:
            steps.extend([step async for step in snapshot_keeper.take()])

        run_task = asyncio.create_task(run())
        assert await asyncio.to_thread(blocked.reached.wait, 30)
        with pytest.raises(Rejected) as refused:
            await anext(snapshot_keeper.take())
        assert refused.value.reason == "SNAPSHOT_RUNNING"
        head = await write(log, 30)
        await asyncio.wait_for(projector.wait_for(head), scaled(10))
        assert await projector.query(all_notes) == await folded(log)
        assert not run_task.done()
        blocked.proceed.set()
        await run_task
        assert steps[-1].done
    lose_rows(location)
    assert positions(objects) == [steps[-1].position]
    assert at <= steps[-1].position <= head
    assert await applied_at_start(log, location, objects) == list(range(steps[-1].position + 1, head + 1))


async def test_slow_snapshot_keeps_newer_ones_of_others(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    blocked = BlockedObjects(objects)
    head = await write(log, 10)
    async with running(log, location, objects=blocked) as slow, running(log, location, objects=objects) as quick:
        taking = asyncio.create_task(take(slow))
        assert await asyncio.to_thread(blocked.reached.wait, 30)
        for _ in range(2):
            await quick.wait_for(await write(log, 5))
            await take(quick)
        blocked.proceed.set()
        assert (await taking).position == head
    assert positions(objects) == [head + 5, head + 10]


async def test_stop_ends_snapshot_in_progress(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    blocked = BlockedObjects(objects)
    await write(log, 20)
    async with running(log, location, objects=blocked) as projector:
        snapshot_keeper = keeper(projector)
        step = asyncio.create_task(anext(snapshot_keeper.take()))
        assert await asyncio.to_thread(blocked.reached.wait, 30)
        stopping = asyncio.create_task(snapshot_keeper.stop())
        await asyncio.wait([stopping], timeout=0.05)
        blocked.proceed.set()
        await stopping
        await asyncio.wait([step])
        step.exception()
    assert objects.names(FOLDER) == []


async def test_cancelled_start_ends_restore(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    await write_and_take(log, location, objects)
    lose_rows(location)
    blocked = BlockedObjects(objects)
    async with following(log) as tail:
        projector = Projector(tail, Notes(), Database(location), blocked)
        starting = asyncio.create_task(projector.start())
        assert await asyncio.to_thread(blocked.reached.wait, 30)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert projector.snapshots
        projector.snapshots.abandon()
        blocked.proceed.set()
        await projector.stop()
    assert Database(location).generations("notes") == []
    assert await applied_at_start(log, location, objects) == []


def _unavailable(*_: object) -> Never:
    raise StoreUnavailable("away", "BLOB_STORE_UNAVAILABLE")


class UnavailableObjects:
    """Object storage that is unavailable."""

    names = put = get = delete = staticmethod(_unavailable)


async def test_projector_starts_without_object_storage(log: JetStreamStore, location: str) -> None:
    await write(log, 5)
    async with running(log, location, objects=UnavailableObjects()) as projector:
        assert await projector.query(all_notes) == await folded(log)
        with pytest.raises(StoreUnavailable) as caught:
            await take(projector)
        assert caught.value.reason == "BLOB_STORE_UNAVAILABLE"


async def test_projector_starts_with_unusable_object_storage(log: JetStreamStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await write(log, 5)
    async with running(log, str(tmp_path / "rows"), objects=open_objects(str(tmp_path / "file"))) as projector:
        assert await projector.query(all_notes) == await folded(log)
        with pytest.raises(StoreUnavailable) as caught:
            await take(projector)
        assert caught.value.reason == "BLOB_STORE_UNAVAILABLE"


class CountedObjects:
    """Object storage that counts what is put."""

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


async def test_snapshots_are_taken_as_log_grows(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    counted = CountedObjects(objects)
    async with running(log, location, objects=counted) as projector:
        snapshot_keeper = keeper(projector, 0.01, events=20)
        await snapshot_keeper.start()
        await projector.wait_for(await write(log, 19))
        assert not snapshot_keeper._has_grown()
        for number in (1, 2, 3):
            await projector.wait_for(await write(log, 25))
            await asyncio.to_thread(counted.wait_for, number)
        await snapshot_keeper.stop()
    snapshot_positions = positions(objects)
    assert len(snapshot_positions) == 2
    assert snapshot_positions[1] - snapshot_positions[0] >= 20


async def test_long_log_must_grow_more_before_next_snapshot(
    log: JetStreamStore, tmp_path: Path, objects: ObjectPlace
) -> None:
    async with running(log, str(tmp_path / "rows"), objects=objects) as projector:
        snapshot_keeper = keeper(projector, events=2)
        await projector.wait_for(await write(log, 100))
        assert [step async for step in snapshot_keeper.take()][-1].position == 100
        await projector.wait_for(await write(log, 9))
        assert not await snapshot_keeper._is_due()
        await projector.wait_for(await write(log, 1))
        assert await snapshot_keeper._is_due()
        assert [step async for step in keeper(projector).take()][-1].position == 110  # as another process would
        assert snapshot_keeper._has_grown()
        assert not await snapshot_keeper._is_due()
