"""Attendance: whether the jobs of runs live; the run of a job that is silent for too long is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import sqlalchemy as sa
import structlog

from eventstore import (
    CommandHandler,
    Conflict,
    FollowerTooSlow,
    Metadata,
    Projector,
    RecordedEvent,
    Rejected,
    StoreUnavailable,
    Tail,
    Watermark,
    end,
    error_text,
    position_of,
)
from rollforward import v1
from services import actors
from services.timestamps import timestamp
from services.tracking import run_stream
from services.tracking.deciders.run_commands import Lose
from services.tracking.deciders.run_state import RunState
from services.tracking.deciders.runs import ENDINGS
from services.tracking.heartbeat_calls import Call, Calls
from services.tracking.projection.tables import WATCHED_OVER, runs
from services.validation import check_id

MAX_ROUND_SECONDS = 2.0
QUIET_SECONDS = 60.0
KEPT_LOST = 10_000
MAX_GRACE_FACTOR = 64

_logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Watched:
    """A run whose job has promised to stay in touch.

    Attributes:
        since: When its silence began, or was last excused, by the monotonic clock.
        patience: For how many times the usual patience it may be silent.
        heard: When it was last in touch, in nanoseconds since 1970; 0 when that is not known.
    """

    since: float
    patience: int
    heard: int = 0


class Liveness:
    """Watches over the runs that are RUNNING and whose jobs have promised to stay in touch.

    Silence counts only while this process could have heard something: after it was started or stopped for a while, and
    while the log does not answer, every run is given the whole patience anew. Several processes may watch over the
    same runs: one that lost a run whose job is attended by another is corrected by it, and is more patient then.

    Args:
        commands: The commands of runs.
        rows: The rows of tracking.
        tail: The tracking log's.
        patience: For how many seconds a job may be silent.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        commands: CommandHandler[RunState],
        projector: Projector,
        tail: Tail,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.patience = patience
        self._commands = commands
        self._projector = projector
        self._tail = tail
        self._clock = clock
        self._round = min(patience / 4, MAX_ROUND_SECONDS)
        self._watched: dict[str, _Watched] = {}
        self._calls = Calls()
        self._lost: OrderedDict[str, int] = OrderedDict()
        self._to_look_at: dict[str, int] = {}
        self._alive: set[str] = set()
        self._hurry = asyncio.Event()
        self._reached = Watermark("attendance")
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start, with the runs that the rows list; the projection must be started."""
        found, position = await self._projector.query(_watched_over)
        for run_id in found:
            self._watch(run_id)
        self._reached.advance(position)
        self._tasks = [
            asyncio.create_task(self._listen(), name="attendance-listens"),
            asyncio.create_task(self._keep(), name="attendance"),
        ]

    async def stop(self) -> None:
        """Stop."""
        for task in self._tasks:
            await end(task)

    def heard(self, run_id: str) -> None:
        """Note a heartbeat of a run, now."""
        self._note(run_id, time.time_ns())

    @asynccontextmanager
    async def attended(self, run_id: str, because: Metadata) -> AsyncIterator[Call]:
        """Count a run as alive while the context lasts; a lost run is resumed.

        Raises:
            Rejected: RUN_NOT_FOUND or RUN_DELETED.
            Conflict, StoreUnavailable: As `CommandHandler.handle`.
        """
        check_id(run_id, "INVALID_RUN_ID")
        with self._calls.opened(run_id) as call:
            try:
                done = await self._commands.handle(run_stream(run_id), v1.AttendRunRequest(run_id=run_id), because)
                call.position = done.position
                if done.state.status in ENDINGS:
                    call.end(done.position + 1)
                if watched := self._watched.get(run_id):
                    watched.patience = 1
                yield call
            finally:
                self.heard(run_id)

    def _note(self, run_id: str, time_ns: int) -> None:
        if watched := self._watched.get(run_id):
            watched.since = self._clock()
            watched.heard = max(watched.heard, time_ns)

    def _watch(self, run_id: str, patience: int = 1) -> None:
        self._watched[run_id] = _Watched(self._clock(), patience)

    async def _listen(self) -> None:
        while True:
            try:
                async with aclosing(self._tail.follow(self._reached.position, QUIET_SECONDS)) as news:
                    async for events, position in news:
                        for event in events:
                            self._hear(event)
                        self._reached.advance(position)
            except FollowerTooSlow:
                _logger.info("attendance goes on from where it was")
            except StoreUnavailable as error:
                self._reached.fail(error)
                self._calls.refuse(error)
                return

    def _hear(self, event: RecordedEvent) -> None:
        run_id = getattr(event.data, "run_id", "")
        match event.data:
            case v1.MetricsLogged():
                if run_id in self._lost:
                    self._is_alive(run_id)
            case v1.RunStarted() as payload:
                if payload.heartbeat and not payload.scheduled:
                    self._watch(run_id)
            case v1.RunResumed() | v1.RunRestored():
                self._back(run_id)
            case v1.RunLost():
                self._is_lost(run_id)
            case v1.RunFinished() | v1.RunDeleted():
                self._is_over(run_id, event)
            case _:
                pass
        self._note(run_id, event.time)

    def _is_lost(self, run_id: str) -> None:
        watched = self._watched.pop(run_id, None)
        self._lost[run_id] = watched.patience if watched else 1
        if len(self._lost) > KEPT_LOST:
            self._lost.popitem(last=False)
        if run_id in self._calls:
            self._is_alive(run_id)
        else:
            self._to_look_at[run_id] = 1  # so that the state which commands are decided on knows it

    def _is_alive(self, run_id: str) -> None:
        self._alive.add(run_id)
        self._hurry.set()

    def _back(self, run_id: str) -> None:
        patience = self._lost.pop(run_id, 0)
        # It may be attended by another process, which this one cannot know.
        elsewhere = patience and run_id not in self._calls
        self._to_look_at[run_id] = min(2 * patience, MAX_GRACE_FACTOR) if elsewhere else 1

    def _is_over(self, run_id: str, event: RecordedEvent) -> None:
        for found in (self._watched, self._lost, self._to_look_at):
            found.pop(run_id, None)
        if isinstance(event.data, v1.RunFinished):
            self._calls.end(run_id, event.position)

    async def _keep(self) -> None:
        away = False
        while True:
            began = self._clock()
            try:
                await self._pause()
                await self._revive()
                await self._look()
                await self._hear_all()
                now = self._clock()
                if away or now - began > 2 * self._round:
                    self._excuse()  # this process, or the log, was not there all the time
                away = False
                await self._lose_silent(now)
            except (StoreUnavailable, TimeoutError) as error:
                if not away:
                    _logger.warning("attendance waits for the log", error=error_text(error))
                away = True
            except Exception:
                _logger.exception("attendance met a defect and goes on")
                away = True

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._round):
                await self._hurry.wait()
        self._hurry.clear()

    async def _hear_all(self) -> None:
        """Receive everything that the log has now; this also finds out whether it answers."""
        head = await self._tail.store.head()
        async with asyncio.timeout(MAX_ROUND_SECONDS):
            await self._reached.wait_for(head)

    def _excuse(self) -> None:
        for watched in self._watched.values():
            watched.since = self._clock()

    async def _revive(self) -> None:
        """Resume lost runs whose jobs are alive."""
        for run_id in list(self._alive):
            self._alive.discard(run_id)  # first: it may be lost again meanwhile
            command = v1.AttendRunRequest(run_id=run_id)
            try:
                await self._commands.handle(run_stream(run_id), command, Metadata(actors.TRACKING, "its job lives"))
            except Rejected as refusal:
                _logger.info("a lost run is not resumed", run_id=run_id, why=refusal.reason)
            except Conflict:
                self._alive.add(run_id)  # much happens to it: its turn comes again in the next round
            except StoreUnavailable:
                self._alive.add(run_id)
                raise

    async def _look(self) -> None:
        """Read the state of runs whose events alone do not say whether they must send heartbeats."""
        while self._to_look_at:
            run_id, patience = self._to_look_at.popitem()
            try:
                state, _ = await self._commands.state(run_stream(run_id))
            except StoreUnavailable:
                self._to_look_at.setdefault(run_id, patience)
                raise
            if state.watched_over:
                self._watch(run_id, patience)

    async def _lose_silent(self, now: float) -> None:
        for run_id in [run_id for run_id in self._watched if self._silent(run_id, now)]:
            if self._clock() - now > self._round:
                return  # what was heard meanwhile comes first
            if self._silent(run_id, now):
                await self._lose(run_id)

    def _silent(self, run_id: str, now: float) -> bool:
        watched = self._watched.get(run_id)
        if watched is None or run_id in self._calls:
            return False
        return now - watched.since > watched.patience * self.patience

    async def _lose(self, run_id: str) -> None:
        heard = self._watched[run_id].heard
        command = Lose(run_id, timestamp(heard) if heard else None)
        try:
            done = await self._commands.handle(
                run_stream(run_id), command, Metadata(actors.TRACKING, "its job is silent")
            )
        except Conflict:
            return  # much happens to it
        if not done.events:
            self._watched.pop(run_id, None)


def _watched_over(connection: sa.Connection) -> tuple[list[str], int]:
    found = connection.scalars(sa.select(runs.c.run_id).where(WATCHED_OVER))
    return list(found), position_of(connection)
