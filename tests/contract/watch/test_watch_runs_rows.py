"""What a watch of an experiment reads from rows, on SQLite and PostgreSQL: its snapshot and its runs."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore.errors import StoreUnavailable
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import tracking
from services.listings import pages
from services.tracking import watch
from services.tracking.projection.apply import TrackingProjection
from services.tracking.queries import runs as queries
from tests.timeouts import scaled

MINE = [f"{number:032x}" for number in range(1, 6)]
OTHERS = [f"{number:032x}" for number in range(11, 16)]
_ids = count()


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the location of the rows."""
    return str(tmp_path / "rows") if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def started(run_id: str) -> v1.RunStarted:
    """Return the start of a run, in the first or in the second experiment."""
    return v1.RunStarted(run_id=run_id, experiment_id="1" if run_id in MINE else "2")


def logged(run_id: str) -> v1.RunLogged:
    """Return a log event of a run."""
    return v1.RunLogged(run_id=run_id, params={str(next(_ids)): "x"})


async def append(log: MemoryStore, *payloads: Message) -> int:
    """Append events, each on its own; return the position of the last one."""
    position = 0
    for payload in payloads:
        run_id = getattr(payload, "run_id", "")
        stream = tracking.run_stream(run_id) if run_id else tracking.EXPERIMENTS_STREAM
        new = f"event-{next(_ids)}"
        (position,) = await log.append([NewEvent(stream, payload, Metadata("Zoë"), new, new)])
    return position


async def snapshot(projector: Projector) -> tuple[list[v1.Run], int]:
    """Return the snapshot of a watch of the first experiment, and its position."""
    runs: list[v1.Run] = []
    async with aclosing(watch.steps(projector, v1.WatchRunsRequest(experiment_id="1"))) as steps:
        async for step in steps:
            runs += step.snapshot.runs
            if not step.snapshot.continues:
                return runs, step.position
    raise AssertionError("no snapshot")


class DelayedProjection(TrackingProjection):
    """A projection that applies nothing until it is allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_apply = threading.Event()
        self.may_apply.set()

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Wait for permission, then apply."""
        assert self.may_apply.wait(scaled(20))
        super().apply(connection, events)


def watching(
    location: str,
    scenario: Callable[[MemoryStore, Projector], Awaitable[None]],
    projection: TrackingProjection | None = None,
) -> None:
    """Run a scenario over a log in memory with two experiments, with rows at a location."""

    async def run() -> None:
        log = MemoryStore("tracking", tracking.EVENTS)
        await append(log, *(v1.ExperimentCreated(experiment_id=number, name=number) for number in "12"))
        tail = Tail(log)
        await tail.start()
        projector = Projector(tail, projection or TrackingProjection(), Database(location))
        await projector.start()
        try:
            await scenario(log, projector)
        finally:
            await projector.stop()
            await tail.stop()

    asyncio.run(run())


async def changes_of(projector: Projector, request: v1.WatchRunsRequest, until: int) -> list[v1.RunChange]:
    """Return the changes of a watch up to a position."""
    changes: list[v1.RunChange] = []
    async with aclosing(watch.steps(projector, request)) as steps:
        async for step in steps:
            changes += step.changes.changes
            if step.position >= until:
                break
    return changes


@pytest.mark.parametrize("known", [1, 2, 3, 100])
def test_snapshot_has_exactly_the_runs_of_experiment(
    known: int, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "KNOWN_RUNS", known)
    monkeypatch.setattr(watch, "BOOKMARK_SECONDS", 0.1)

    async def scenario(log: MemoryStore, projector: Projector) -> None:
        # Some runs start before the watch, some during it, alternating between the experiments.
        begun = await append(log, *(started(run_id) for run_id in [*MINE[:3], *OTHERS[:3]]))
        request = v1.WatchRunsRequest(experiment_id="1", from_position=begun)
        watched = asyncio.create_task(changes_of(projector, request, until=begun + 44))
        payloads: list[v1.RunStarted | v1.RunLogged] = [started(run_id) for run_id in (*MINE[3:], *OTHERS[3:])]
        payloads += [logged(run_id) for _ in range(4) for pair in zip(MINE, OTHERS, strict=True) for run_id in pair]
        for payload in payloads:
            await append(log, payload)
        changes = await watched
        assert [change.run_id for change in changes] == [
            payload.run_id for payload in payloads if payload.run_id in MINE
        ]

    watching(location, scenario)


def test_run_not_yet_in_rows_is_delivered(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "KNOWN_RUNS", 1)
    late = DelayedProjection()

    async def scenario(log: MemoryStore, projector: Projector) -> None:
        request = v1.WatchRunsRequest(experiment_id="1", from_position=await log.head())
        async with aclosing(watch.steps(projector, request)) as steps:
            late.may_apply.clear()
            await append(log, started(MINE[0]))
            assert (await anext(steps)).changes.changes[0].HasField("started")
            await append(log, started(OTHERS[0]))  # it takes the place of the one run that is remembered
            coming = asyncio.create_task(anext(steps))
            await projector.tail.wait_for(await append(log, logged(MINE[0])))
            late.may_apply.set()
            assert (await coming).changes.changes[0].HasField("logged")

    watching(location, scenario, late)


def test_snapshot_has_one_position(location: str) -> None:
    async def scenario(log: MemoryStore, projector: Projector) -> None:
        begun = await log.head()

        async def write() -> None:
            for number in range(100, 160):
                run_id = f"{number:032x}"
                await append(log, v1.RunStarted(run_id=run_id, experiment_id="1"), logged(run_id))
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        seen = []
        while not writing.done():
            seen.append(await snapshot(projector))
        seen.append(await snapshot(projector))
        for runs, position in seen:
            # Each run has two events: its start and one parameter.
            whole, half = divmod(position - begun, 2)
            assert [len(run.params) for run in runs] == [1] * whole + [0] * half
        assert len({position for _, position in seen}) > 1
        assert len(seen[-1][0]) == 60

    watching(location, scenario)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make snapshots large: in many parts, and not in memory."""
    monkeypatch.setattr(pages, "LARGEST_BYTES", 1)
    monkeypatch.setattr(watch, "IN_MEMORY_BYTES", 1000)


async def many(log: MemoryStore, projector: Projector) -> list[str]:
    """Create many runs of the first experiment."""
    run_ids = [f"{number:032x}" for number in range(100, 200)]
    last = await append(log, *(v1.RunStarted(run_id=run_id, experiment_id="1", name=run_id) for run_id in run_ids))
    await projector.wait_for(last)
    return run_ids


@pytest.mark.usefixtures("large")
def test_large_snapshot_is_buffered_on_disk(location: str) -> None:
    async def scenario(log: MemoryStore, projector: Projector) -> None:
        run_ids = await many(log, projector)
        runs, position = await snapshot(projector)
        assert [run.run_id for run in runs] == [run.name for run in runs] == run_ids
        assert position == await log.head()

    watching(location, scenario)


@pytest.mark.usefixtures("large")
def test_snapshot_larger_than_disk_is_rejected(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(log: MemoryStore, projector: Projector) -> None:
        await many(log, projector)
        monkeypatch.setattr(tempfile, "tempdir", "/dev/null/nowhere")
        with pytest.raises(StoreUnavailable) as refused:
            await snapshot(projector)
        assert refused.value.reason == "SNAPSHOT_TOO_LARGE"

    watching(location, scenario)


@pytest.mark.usefixtures("large")
def test_snapshot_of_cancelled_watch_is_abandoned(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, proceed = threading.Semaphore(0), threading.Event()
    read = []

    def runs_of(connection: sa.Connection, numbers: Sequence[int]) -> list[v1.Run]:
        read.append(numbers)
        shown.release()
        assert proceed.wait(scaled(20))
        return queries.runs_of(connection, numbers)

    monkeypatch.setattr(watch, "runs_of", runs_of)

    async def scenario(log: MemoryStore, projector: Projector) -> None:
        await many(log, projector)
        coming = asyncio.create_task(snapshot(projector))
        assert await asyncio.to_thread(shown.acquire, timeout=scaled(20))
        coming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await coming
        proceed.set()

    watching(location, scenario)  # waits for all readers
    assert len(read) == 1
