"""Which runs are lost, and which never are: over a log in memory and rows in SQLite, with a short timeout."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from google.protobuf.message import Message

from eventstore.commands.handler import CommandHandler
from eventstore.commands.multi_stream import ATTEMPTS
from eventstore.errors import Rejected, StoreUnavailable, WrongExpectedRevision
from eventstore.event import Metadata, NewEvent
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import tracking
from services.actors import TRACKING
from services.tracking import run_stream
from services.tracking.deciders.run_state import RunState
from services.tracking.deciders.runs import RUNS
from services.tracking.liveness import Liveness
from services.tracking.projection.apply import TrackingProjection
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

F = TypeVar("F", bound=Message)

TIMEOUT = scaled(0.3)
ZOE = Metadata("Zoë")
RUNNING, LOST = v1.RUN_STATUS_RUNNING, v1.RUN_STATUS_LOST
POINT = v1.Series(key="loss", steps=bytes(8), timestamps=bytes(8), values=bytes(8))


class Log(MemoryStore):
    """A log that can be out of reach, and to which others write so often that a writer is too late so many times."""

    def __init__(self) -> None:
        super().__init__("tracking", tracking.EVENTS)
        self.away = False
        self.too_late = 0

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        for stream, revision in (expected or {}).items():
            if self.too_late:
                self.too_late -= 1
                raise WrongExpectedRevision(stream, revision)
        return await super().append(events, expected)

    async def head(self) -> int:
        if self.away:
            raise StoreUnavailable("the log does not answer")
        return await super().head()


class Clock:
    """The monotonic clock, which may jump."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Process:
    """What a process of tracking has."""

    def __init__(self, log: Log, home: Path) -> None:
        self.log = log
        self.clock = Clock()
        self.tail = Tail(log)
        self.rows = Projector(self.tail, TrackingProjection(), Database(str(home)))
        self.commands = CommandHandler(log, RUNS, self.rows)
        self.liveness = Liveness(self.commands, self.rows, self.tail, TIMEOUT, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """Runs it."""
        async with AsyncExitStack() as stack:
            for part in (self.tail, self.rows, self.liveness):
                await part.start()
                stack.push_async_callback(part.stop)
            yield self

    async def append(self, payload: Message) -> None:
        """Something that another process wrote."""
        event_id = uuid.uuid4().hex
        assert RUNS.stream_of
        await self.log.append([NewEvent(RUNS.stream_of(payload), payload, ZOE, event_id, event_id)])

    async def do(self, run_id: str, command: object) -> None:
        """Does a command here."""
        self.liveness.note_heartbeat(run_id)
        await self.commands.handle(run_stream(run_id), command, ZOE)

    async def start(self, *, heartbeat: bool = True, scheduled: bool = False) -> str:
        """A run; its id."""
        run_id = uuid.uuid4().hex
        await self.append(v1.RunStarted(run_id=run_id, experiment_id="1", heartbeat=heartbeat, scheduled=scheduled))
        return run_id

    async def state(self, run_id: str) -> RunState:
        """A run as the log says."""
        return (await CommandHandler(self.log, RUNS, self.rows).state(run_stream(run_id)))[0]

    async def life(self, run_id: str) -> list[str]:
        """What happened to a run, by the liveness check."""
        events = [event async for event in self.log.read(run_stream(run_id)) if event.metadata.actor == TRACKING]
        return [event.data.DESCRIPTOR.name for event in events]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    """A process over a log of its own."""
    async with Process(Log(), tmp_path / "rows").running() as one:
        yield one


async def until(condition: Callable[[], object], seconds: float = scaled(20.0)) -> None:
    """Returns once a condition holds that no event tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def lost(process: Process, run_id: str) -> v1.RunLost:
    """Waits until a run is lost; the event."""
    return await told(process, run_id, v1.RunLost)


async def told(process: Process, run_id: str, kind: type[F]) -> F:
    """Waits for the first event of a kind that the log has of a run."""
    async with asyncio.timeout(scaled(20)):
        async for events in process.log.subscribe():
            for event in events:
                if isinstance(event.data, kind) and event.stream == run_stream(run_id):
                    return event.data
    raise AssertionError


async def outlived(process: Process) -> None:
    """Waits until a run that begins now was lost: who was silent before could have been lost too."""
    for _ in range(2):
        await lost(process, await process.start())


async def test_silent_run_is_lost_with_the_time_of_its_last_heartbeat(process: Process) -> None:
    before = time.time_ns()
    run_id = await process.start()
    began = time.monotonic()
    await process.do(run_id, v1.RenameRunRequest(run_id=run_id, new_name="new"))
    after = time.time_ns()
    event = await lost(process, run_id)
    assert time.monotonic() - began >= TIMEOUT
    assert before <= event.last_heard.ToNanoseconds() <= after
    assert (await process.state(run_id)).status == LOST


async def test_only_running_runs_with_heartbeats_are_lost(process: Process) -> None:
    silent = [await process.start(heartbeat=False), await process.start(scheduled=True)]
    ended, deleted = await process.start(), await process.start()
    await process.do(ended, v1.FinishRunRequest(run_id=ended, status=v1.RUN_STATUS_FINISHED))
    await process.do(deleted, v1.DeleteRunRequest(run_id=deleted))
    await outlived(process)
    assert [await process.life(run_id) for run_id in (*silent, ended, deleted)] == [[], [], [], []]


async def test_resumed_run_is_watched_again(process: Process) -> None:
    scheduled, deleted = await process.start(scheduled=True), await process.start()
    await process.do(deleted, v1.DeleteRunRequest(run_id=deleted))
    await outlived(process)
    await process.do(scheduled, v1.ResumeRunRequest(run_id=scheduled))
    await process.do(deleted, v1.RestoreRunRequest(run_id=deleted))
    await lost(process, scheduled)
    await lost(process, deleted)


async def test_open_call_keeps_a_run_alive(process: Process) -> None:
    run_id = await process.start()
    async with process.liveness.attended(run_id, ZOE):
        await outlived(process)
        assert await process.life(run_id) == []
        closed = time.time_ns()
    assert (await lost(process, run_id)).last_heard.ToNanoseconds() >= closed


async def test_command_without_changes_keeps_a_run_alive(process: Process) -> None:
    run_id = await process.start()
    others = asyncio.create_task(outlived(process))
    while not others.done():
        await process.do(run_id, v1.RestoreRunRequest(run_id=run_id))
        await asyncio.wait([others], timeout=TIMEOUT / 8)
    assert await process.life(run_id) == []


async def test_points_received_by_another_process_keep_a_run_alive(process: Process) -> None:
    run_id = await process.start()
    others = asyncio.create_task(outlived(process))
    while not others.done():
        await process.append(v1.MetricsLogged(run_id=run_id, series=[POINT]))
        await asyncio.wait([others], timeout=TIMEOUT / 8)
    assert await process.life(run_id) == []


async def test_returning_job_resumes_its_run(process: Process) -> None:
    run_id = await process.start()
    await lost(process, run_id)
    async with process.liveness.attended(run_id, ZOE):
        assert (await process.state(run_id)).status == RUNNING
        await outlived(process)
    assert await process.life(run_id) == ["RunLost"]


async def test_late_points_resume_a_lost_run(process: Process) -> None:
    run_id = await process.start()
    await lost(process, run_id)
    await process.append(v1.MetricsLogged(run_id=run_id, series=[POINT]))
    await told(process, run_id, v1.RunResumed)
    assert (await process.life(run_id))[:2] == ["RunLost", "RunResumed"]


async def test_lost_run_is_resumed_despite_conflicts(process: Process) -> None:
    run_id = await process.start()
    await lost(process, run_id)
    process.log.too_late = ATTEMPTS
    await process.append(v1.MetricsLogged(run_id=run_id, series=[POINT]))
    await told(process, run_id, v1.RunResumed)
    assert not process.log.too_late


async def test_commands_see_a_loss_decided_by_another_process(process: Process) -> None:
    run_id = await process.start()
    await process.do(run_id, v1.RestoreRunRequest(run_id=run_id))
    await process.append(v1.RunLost(run_id=run_id))
    async with asyncio.timeout(scaled(20)):
        while (await process.commands.cached_state(run_stream(run_id))).status != LOST:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_silence_does_not_count_while_the_log_is_unavailable(process: Process) -> None:
    run_id, other = await process.start(), await process.start(heartbeat=False)
    process.log.away = True
    began = process.clock()
    await until(lambda: process.clock() - began > 3 * TIMEOUT)
    assert await process.life(run_id) == []
    process.log.away = False
    back = process.clock()
    await lost(process, run_id)
    assert process.clock() - back >= TIMEOUT
    assert await process.life(other) == []


async def test_silence_does_not_count_while_the_process_is_paused(process: Process) -> None:
    run_id = await process.start()
    await process.do(run_id, v1.RestoreRunRequest(run_id=run_id))
    process.clock.ahead += 100 * TIMEOUT
    jumped = time.monotonic()
    await lost(process, run_id)
    assert time.monotonic() - jumped >= TIMEOUT


async def test_new_process_starts_every_timeout_again(tmp_path: Path) -> None:
    log = Log()
    async with Process(log, tmp_path / "rows").running() as first:
        runs = [await first.start(), await first.start(heartbeat=False)]
    assert await first.life(runs[0]) == []
    began = time.monotonic()
    async with Process(log, tmp_path / "rows").running() as second:
        event = await lost(second, runs[0])
        assert time.monotonic() - began >= TIMEOUT
        assert not event.HasField("last_heard")
        await outlived(second)
        assert await second.life(runs[1]) == []


async def test_call_ends_with_its_run_not_with_an_earlier_end(process: Process) -> None:
    run_id = await process.start()
    finish = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
    await process.do(run_id, finish)
    async with process.liveness.attended(run_id, ZOE) as call:
        await asyncio.wait_for(call.ended(), scaled(20))
    await process.do(run_id, v1.ResumeRunRequest(run_id=run_id))
    async with process.liveness.attended(run_id, ZOE) as call:
        await process.tail.wait_for(await process.log.head())
        ending = asyncio.create_task(call.ended())
        await outlived(process)
        assert not ending.done()
        await process.do(run_id, finish)
        await asyncio.wait_for(ending, scaled(20))


async def test_call_ends_when_the_service_stops(process: Process) -> None:
    run_id = await process.start()
    async with process.liveness.attended(run_id, ZOE) as call:
        process.tail.dismiss(StoreUnavailable("the service stops", "SHUTTING_DOWN"))
        with pytest.raises(StoreUnavailable) as caught:
            await asyncio.wait_for(call.ended(), scaled(20))
    assert caught.value.reason == "SHUTTING_DOWN"


@pytest.mark.parametrize(("run_id", "reason"), [("x", "INVALID_RUN_ID"), ("f" * 32, "RUN_NOT_FOUND")])
async def test_heartbeats_of_unknown_runs_are_rejected(process: Process, run_id: str, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        async with process.liveness.attended(run_id, ZOE):
            pass
    assert caught.value.reason == reason


async def test_two_processes_watch_the_same_runs(tmp_path: Path) -> None:
    """One cannot know who is attended by the other: it is corrected, and is more patient then."""
    log = Log()
    async with (
        Process(log, tmp_path / "one").running() as one,
        Process(log, tmp_path / "two").running() as two,
    ):
        run_id = await one.start()
        async with one.liveness.attended(run_id, ZOE):
            for _ in range(4):
                await outlived(two)
            await until(lambda: not one.liveness._alive)
            assert (await one.state(run_id)).status == RUNNING
            losses = (await one.life(run_id)).count("RunLost")
            assert 1 <= losses <= 4
        await lost(one, await one.start())
