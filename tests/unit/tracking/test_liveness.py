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
from eventstore.event import Metadata, NewEvent, RecordedEvent
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
    """A log that can be unavailable, and whose next `conflicts` appends with expected revisions fail."""

    def __init__(self) -> None:
        super().__init__("tracking", tracking.EVENTS)
        self.unavailable = False
        self.conflicts = 0

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        for stream, revision in (expected or {}).items():
            if self.conflicts:
                self.conflicts -= 1
                raise WrongExpectedRevision(stream, revision)
        return await super().append(events, expected)

    async def head(self) -> int:
        if self.unavailable:
            raise StoreUnavailable("the log does not answer")
        return await super().head()


class Clock:
    """The monotonic clock, which may jump."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Process:
    """A process of the tracking service."""

    def __init__(self, log: Log, home: Path) -> None:
        self.log = log
        self.clock = Clock()
        self.tail = Tail(log)
        self.rows = Projector(self.tail, TrackingProjection(), Database(str(home)))
        self.commands = CommandHandler(log, RUNS, self.rows)
        self.liveness = Liveness(self.commands, self.rows, self.tail, TIMEOUT, self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """Run the process until the block ends."""
        async with AsyncExitStack() as stack:
            for part in (self.tail, self.rows, self.liveness):
                await part.start()
                stack.push_async_callback(part.stop)
            yield self

    async def append(self, payload: Message) -> None:
        """Append an event as another process would."""
        event_id = uuid.uuid4().hex
        assert RUNS.stream_of
        await self.log.append([NewEvent(RUNS.stream_of(payload), payload, ZOE, event_id, event_id)])

    async def do(self, run_id: str, command: object) -> None:
        """Handle a command in this process."""
        self.liveness.note_heartbeat(run_id)
        await self.commands.handle(run_stream(run_id), command, ZOE)

    async def start(self, *, heartbeat: bool = True, scheduled: bool = False) -> str:
        """Start a run and return its id."""
        run_id = uuid.uuid4().hex
        await self.append(v1.RunStarted(run_id=run_id, experiment_id="1", heartbeat=heartbeat, scheduled=scheduled))
        return run_id

    async def state(self, run_id: str) -> RunState:
        """Return the state of a run from the log."""
        return (await CommandHandler(self.log, RUNS, self.rows).state(run_stream(run_id)))[0]

    async def liveness_events(self, run_id: str) -> list[str]:
        """Return the names of the events that the liveness check appended for a run."""
        events = [event async for event in self.log.read(run_stream(run_id)) if event.metadata.actor == TRACKING]
        return [event.data.DESCRIPTOR.name for event in events]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    """Run a process with its own log."""
    async with Process(Log(), tmp_path / "rows").running() as process:
        yield process


async def until(condition: Callable[[], object], seconds: float = scaled(20.0)) -> None:
    """Wait until a condition holds, by polling."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def lost(process: Process, run_id: str) -> v1.RunLost:
    """Wait until a run is lost and return the event."""
    return await first_event(process, run_id, v1.RunLost)


async def first_event(process: Process, run_id: str, kind: type[F]) -> F:
    """Wait for the first event of a kind in a run's stream."""
    async with asyncio.timeout(scaled(20)):
        async for events in process.log.subscribe():
            for event in events:
                if isinstance(event.data, kind) and event.stream == run_stream(run_id):
                    return event.data
    raise AssertionError


async def outlast_timeout(process: Process) -> None:
    """Wait until two runs, one started after the other, were lost: all silent runs are lost by then."""
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
    await outlast_timeout(process)
    assert [await process.liveness_events(run_id) for run_id in (*silent, ended, deleted)] == [[], [], [], []]


async def test_resumed_run_is_watched_again(process: Process) -> None:
    scheduled, deleted = await process.start(scheduled=True), await process.start()
    await process.do(deleted, v1.DeleteRunRequest(run_id=deleted))
    await outlast_timeout(process)
    await process.do(scheduled, v1.ResumeRunRequest(run_id=scheduled))
    await process.do(deleted, v1.RestoreRunRequest(run_id=deleted))
    await lost(process, scheduled)
    await lost(process, deleted)


async def test_open_call_keeps_a_run_alive(process: Process) -> None:
    run_id = await process.start()
    async with process.liveness.attended(run_id, ZOE):
        await outlast_timeout(process)
        assert await process.liveness_events(run_id) == []
        closed = time.time_ns()
    assert (await lost(process, run_id)).last_heard.ToNanoseconds() >= closed


async def test_command_without_changes_keeps_a_run_alive(process: Process) -> None:
    run_id = await process.start()
    others = asyncio.create_task(outlast_timeout(process))
    while not others.done():
        await process.do(run_id, v1.RestoreRunRequest(run_id=run_id))
        await asyncio.wait([others], timeout=TIMEOUT / 8)
    assert await process.liveness_events(run_id) == []


async def test_points_received_by_another_process_keep_a_run_alive(process: Process) -> None:
    run_id = await process.start()
    others = asyncio.create_task(outlast_timeout(process))
    while not others.done():
        await process.append(v1.MetricsLogged(run_id=run_id, series=[POINT]))
        await asyncio.wait([others], timeout=TIMEOUT / 8)
    assert await process.liveness_events(run_id) == []


async def test_returning_job_resumes_its_run(process: Process) -> None:
    run_id = await process.start()
    await lost(process, run_id)
    async with process.liveness.attended(run_id, ZOE):
        assert (await process.state(run_id)).status == RUNNING
        await outlast_timeout(process)
    assert await process.liveness_events(run_id) == ["RunLost"]


async def test_late_points_resume_a_lost_run(process: Process) -> None:
    run_id = await process.start()
    await lost(process, run_id)
    await process.append(v1.MetricsLogged(run_id=run_id, series=[POINT]))
    await first_event(process, run_id, v1.RunResumed)
    assert (await process.liveness_events(run_id))[:2] == ["RunLost", "RunResumed"]


async def test_lost_run_is_resumed_despite_conflicts(process: Process) -> None:
    run_id = await process.start()
    await lost(process, run_id)
    process.log.conflicts = ATTEMPTS
    await process.append(v1.MetricsLogged(run_id=run_id, series=[POINT]))
    await first_event(process, run_id, v1.RunResumed)
    assert not process.log.conflicts


async def test_commands_see_a_loss_decided_by_another_process(process: Process) -> None:
    run_id = await process.start()
    await process.do(run_id, v1.RestoreRunRequest(run_id=run_id))
    await process.append(v1.RunLost(run_id=run_id))
    async with asyncio.timeout(scaled(20)):
        while (await process.commands.cached_state(run_stream(run_id))).status != LOST:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_silence_does_not_count_while_the_log_is_unavailable(process: Process) -> None:
    run_id, other = await process.start(), await process.start(heartbeat=False)
    process.log.unavailable = True
    began = process.clock()
    await until(lambda: process.clock() - began > 3 * TIMEOUT)
    assert await process.liveness_events(run_id) == []
    process.log.unavailable = False
    back = process.clock()
    await lost(process, run_id)
    assert process.clock() - back >= TIMEOUT
    assert await process.liveness_events(other) == []


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
    assert await first.liveness_events(runs[0]) == []
    began = time.monotonic()
    async with Process(log, tmp_path / "rows").running() as second:
        event = await lost(second, runs[0])
        assert time.monotonic() - began >= TIMEOUT
        assert not event.HasField("last_heard")
        await outlast_timeout(second)
        assert await second.liveness_events(runs[1]) == []


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
        await outlast_timeout(process)
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
    """A process cannot see the heartbeats sent to the other; corrected once, it waits longer."""
    log = Log()
    async with (
        Process(log, tmp_path / "first").running() as first,
        Process(log, tmp_path / "second").running() as second,
    ):
        run_id = await first.start()
        async with first.liveness.attended(run_id, ZOE):
            for _ in range(4):
                await outlast_timeout(second)
            await until(lambda: not first.liveness._alive)
            assert (await first.state(run_id)).status == RUNNING
            losses = (await first.liveness_events(run_id)).count("RunLost")
            assert 1 <= losses <= 4
        await lost(first, await first.start())


async def test_watch_continues_after_an_event_that_could_not_be_applied(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = process.liveness._apply
    failed: list[RecordedEvent] = []

    def failing_once(event: RecordedEvent) -> None:
        if not failed:
            failed.append(event)
            raise ArithmeticError("a bug")
        apply(event)

    monkeypatch.setattr(process.liveness, "_apply", failing_once)
    run_id = await process.start()
    await lost(process, run_id)
    assert failed
    await lost(process, await process.start())
