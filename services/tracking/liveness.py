"""Liveness: a run whose job sends no heartbeat for too long is marked as lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import sqlalchemy as sa
import structlog
from cachetools import FIFOCache

from eventstore import (
    CommandHandler,
    Conflict,
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
    run_follower,
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
KEPT_LOST = 10_000
MAX_GRACE_FACTOR = 64

_logger = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Watched:
    """A run that may be silent for `grace_factor` heartbeat timeouts after `since`, a time of the monotonic clock."""

    since: float
    grace_factor: int
    last_heartbeat: int = 0  # nanoseconds since 1970; 0 if unknown


class Liveness:
    """The watch over the runs that are RUNNING and whose jobs must send heartbeats.

    Silence counts only while this process could receive heartbeats: after a start or a pause of it, and while the log
    does not answer, every run gets the whole timeout again. Several processes may watch the same runs: one that marked
    a run as lost while its job calls another process is corrected by it, and waits longer from then on.

    Args:
        commands: The commands of runs.
        projector: The rows of tracking.
        tail: The tracking log's.
        timeout: For how many seconds a job may be silent.
        clock: A monotonic clock, in seconds.
    """

    def __init__(
        self,
        commands: CommandHandler[RunState],
        projector: Projector,
        tail: Tail,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout = timeout
        self._commands = commands
        self._projector = projector
        self._tail = tail
        self._clock = clock
        self._round = min(timeout / 4, MAX_ROUND_SECONDS)
        self._watched: dict[str, _Watched] = {}
        self._calls = Calls()
        self._lost: FIFOCache[str, int] = FIFOCache(KEPT_LOST)
        self._unchecked: dict[str, int] = {}
        self._alive: set[str] = set()
        self._wake = asyncio.Event()
        self._reached = Watermark("liveness")
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start, with the runs that the rows list; the projection must be started."""
        await self._load()
        self._tasks = [
            asyncio.create_task(self._follow(), name="liveness-follow"),
            asyncio.create_task(self._keep(), name="liveness"),
        ]

    async def _load(self) -> None:
        run_ids, position = await self._projector.query(_watched_over)
        self._watched = {run_id: _Watched(self._clock(), 1) for run_id in run_ids}
        self._reached.advance(position)

    async def stop(self) -> None:
        """Stop."""
        for task in self._tasks:
            await end(task)

    def note_heartbeat(self, run_id: str) -> None:
        """Note a heartbeat of a run, now."""
        self._note(run_id, time.time_ns())

    @asynccontextmanager
    async def attended(self, run_id: str, metadata: Metadata) -> AsyncIterator[Call]:
        """Count a run as alive while the context lasts; a lost run is resumed.

        Raises:
            Rejected: RUN_NOT_FOUND or RUN_DELETED.
            Conflict, StoreUnavailable: As `CommandHandler.handle`.
        """
        check_id(run_id, "INVALID_RUN_ID")
        with self._calls.opened(run_id) as call:
            try:
                done = await self._commands.handle(run_stream(run_id), v1.AttendRunRequest(run_id=run_id), metadata)
                call.position = done.position
                if done.state.status in ENDINGS:
                    call.end(done.position + 1)
                if watched := self._watched.get(run_id):
                    watched.grace_factor = 1
                yield call
            finally:
                self.note_heartbeat(run_id)

    def _note(self, run_id: str, time_ns: int) -> None:
        if watched := self._watched.get(run_id):
            watched.since = self._clock()
            watched.last_heartbeat = max(watched.last_heartbeat, time_ns)

    def _watch(self, run_id: str, grace_factor: int = 1) -> None:
        self._watched[run_id] = _Watched(self._clock(), grace_factor)

    async def _follow(self) -> None:
        position = self._reached.position
        try:
            await run_follower("liveness", self._tail, position, self._receive, self._reload, dismissible=True)
        except StoreUnavailable as error:
            self._reached.fail(error)
            self._calls.refuse(error)

    async def _receive(self, events: Sequence[RecordedEvent], position: int) -> None:
        for event in events:
            self._apply(event)
        self._reached.advance(position)

    async def _reload(self, error: Exception) -> int:  # noqa: ARG002 - the rows know, whatever the error was
        """Watch the runs that the rows list once they have what was received until now; all get the whole timeout."""
        await self._projector.wait_for(self._tail.position)
        await self._load()
        return self._reached.position

    def _apply(self, event: RecordedEvent) -> None:
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
        self._lost[run_id] = watched.grace_factor if (watched := self._watched.pop(run_id, None)) else 1
        if run_id in self._calls:
            self._is_alive(run_id)
        else:
            self._unchecked[run_id] = 1  # so that the state which commands are decided on knows it

    def _is_alive(self, run_id: str) -> None:
        self._alive.add(run_id)
        self._wake.set()

    def _back(self, run_id: str) -> None:
        grace_factor = self._lost.pop(run_id, 0)
        # Its job may call another process, which this one cannot know.
        self._unchecked[run_id] = 1 if run_id in self._calls else min(max(2 * grace_factor, 1), MAX_GRACE_FACTOR)

    def _is_over(self, run_id: str, event: RecordedEvent) -> None:
        for known in (self._watched, self._lost, self._unchecked):
            known.pop(run_id, None)
        if isinstance(event.data, v1.RunFinished):
            self._calls.end(run_id, event.position)

    async def _keep(self) -> None:
        away = False
        while True:
            began = self._clock()
            try:
                await self._pause()
                await self._revive()
                await self._check_states()
                await self._catch_up()
                now = self._clock()
                if away or now - began > 2 * self._round:
                    # This process or the log was away in between.
                    self._watched = {run_id: replace(run, since=now) for run_id, run in self._watched.items()}
                away = False
                await self._lose_silent(now)
            except (StoreUnavailable, TimeoutError) as error:
                if not away:
                    _logger.warning("log unavailable, liveness is waiting", error=error_text(error))
                away = True
            except Exception:
                _logger.exception("liveness check failed, retrying")
                away = True

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._round):
                await self._wake.wait()
        self._wake.clear()

    async def _catch_up(self) -> None:
        """Receive everything that the log has now; this also finds out whether it answers."""
        head = await self._tail.store.head()
        async with asyncio.timeout(MAX_ROUND_SECONDS):
            await self._reached.wait_for(head)

    async def _revive(self) -> None:
        """Resume lost runs whose jobs are alive."""
        for run_id in list(self._alive):
            self._alive.discard(run_id)  # first: it may be lost again meanwhile
            command = v1.AttendRunRequest(run_id=run_id)
            try:
                await self._commands.handle(run_stream(run_id), command, Metadata(actors.TRACKING, "its job lives"))
            except Rejected as rejection:
                _logger.info("cannot resume lost run", run_id=run_id, reason=rejection.reason)
            except Conflict:
                self._alive.add(run_id)  # other commands change it: retried in the next round
            except StoreUnavailable:
                self._alive.add(run_id)
                raise

    async def _check_states(self) -> None:
        """Read the state of runs whose events alone do not say whether they must send heartbeats."""
        while self._unchecked:
            run_id, grace_factor = self._unchecked.popitem()
            try:
                state, _ = await self._commands.state(run_stream(run_id))
            except StoreUnavailable:
                self._unchecked.setdefault(run_id, grace_factor)
                raise
            if state.watched_over:
                self._watch(run_id, grace_factor)

    async def _lose_silent(self, now: float) -> None:
        for run_id in [run_id for run_id in self._watched if self._silent(run_id, now)]:
            if self._clock() - now > self._round:
                return  # heartbeats that came meanwhile are received first
            if self._silent(run_id, now):
                await self._lose(run_id)

    def _silent(self, run_id: str, now: float) -> bool:
        watched = self._watched.get(run_id)
        if watched is None or run_id in self._calls:
            return False
        return now - watched.since > watched.grace_factor * self.timeout

    async def _lose(self, run_id: str) -> None:
        last = self._watched[run_id].last_heartbeat
        command = Lose(run_id, timestamp(last) if last else None)
        metadata = Metadata(actors.TRACKING, "its job is silent")
        try:
            done = await self._commands.handle(run_stream(run_id), command, metadata)
        except Conflict:
            return  # other commands change it
        if not done.events:
            self._watched.pop(run_id, None)


def _watched_over(connection: sa.Connection) -> tuple[list[str], int]:
    return list(connection.scalars(sa.select(runs.c.run_id).where(WATCHED_OVER))), position_of(connection)
