"""Projections: rows computed from a log by one loop, whether it starts, catches up, recovers, tails or rebuilds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import sqlalchemy as sa
import structlog

from eventstore.concurrency.tasks import end
from eventstore.decider import Request
from eventstore.error_messages import error_text
from eventstore.errors import CannotApply, StoreUnavailable
from eventstore.event import appends_of
from eventstore.projections.damage import RowsDamaged, damage_of
from eventstore.projections.database import Database, is_refusal
from eventstore.projections.generation import Generation
from eventstore.projections.generations import CheckpointMoved, Generations, Projection
from eventstore.projections.live_generation import LiveGeneration
from eventstore.projections.progress import Progress
from eventstore.projections.reader import Reader
from eventstore.projections.rebuild import Rebuild, RebuildProgress
from eventstore.projections.request_index import RequestIndex
from eventstore.projections.snapshots.store import Objects, Snapshots
from eventstore.projections.startup import opened
from eventstore.projections.tables import events
from eventstore.tail import Batch, FollowerTooSlow, Tail

__all__ = ["FollowerTooSlow", "Projection", "Projector", "RebuildProgress"]

T = TypeVar("T")

RETRY_SECONDS = 0.5
BATCH_WINDOW_SECONDS = 0.2
"""For how long events are gathered that no caller is waiting for."""

_DATABASE_AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError)

_LAST_AT = (
    sa.select(events.c.position, events.c.time)
    .where(events.c.time <= sa.bindparam("time"))
    .order_by(events.c.time.desc(), events.c.position.desc())
    .limit(1)
)

_logger = structlog.get_logger(__name__)


class Projector:
    """Keeps the rows of one projection up to date with its log.

    Several processes may keep the same rows in one PostgreSQL database: each event is applied once.

    Args:
        tail: The log's tail; it must be started first and stopped last.
        projection: What the rows are.
        database: Where the rows are kept.
        objects: Where their snapshots are kept; without it they are computed from the log alone.
    """

    def __init__(self, tail: Tail, projection: Projection, database: Database, objects: Objects | None = None) -> None:
        self.tail = tail
        self.store = tail.store
        self.name = projection.name
        self._generations = Generations(projection, database)
        self.snapshots = Snapshots(self._generations, objects) if objects else None
        self._progress = Progress(self.name)
        self._live = LiveGeneration(self.name, self._generations)
        self._reader = Reader(self._live, self._progress, self._repair)
        self._requests = RequestIndex(tail, self._reader, self._progress)
        self._rebuild = Rebuild(self._live, self._reader, self.store, self._progress)
        self._task: asyncio.Task[None] | None = None
        self._repairing: asyncio.Task[None] | None = None

    @property
    def fingerprint(self) -> str:
        """The hash of the projection's version and tables."""
        return self._generations.fingerprint

    @property
    def position(self) -> int:
        """The last position applied."""
        return self._progress.position

    @property
    def progress(self) -> int:
        """The last position applied, or that a new generation has come to before it is read."""
        return max(self.position, self._progress.filled)

    @property
    def failure(self) -> BaseException | None:
        """The error that stopped the projection; None while it follows its log."""
        return self._progress.failure

    @property
    def why_failed(self) -> str:
        """What an operator must know of a failure; see `Progress.why_failed`."""
        return self._progress.why_failed

    @property
    def generation(self) -> Generation:
        """The live generation."""
        return self._live.generation

    async def start(self) -> None:
        """Open the rows, check them against the log, and come up to the log's head."""
        await self._live.set(await self._opened())
        self._progress.advance(self._live.checkpoint)
        self._task = asyncio.create_task(self._run(), name=f"projection-{self.name}")
        head = await self.store.head()
        await self.wait_for(head)
        # Only now, because another process may read an older version until it is stopped.
        await asyncio.to_thread(self._generations.discard_older, self.generation)

    async def _opened(self) -> Generation:
        return await opened(self._generations, self.snapshots, self.store, self._live.writer, self._note_filled)

    def _note_filled(self, position: int) -> None:
        self._progress.filled = position

    async def stop(self) -> None:
        """Stop after the present batch."""
        if self.snapshots:
            self.snapshots.abandon()
        await end(self._repairing)
        await end(self._task)
        await self._requests.stop()
        self._progress.stop()
        await self._live.stop()

    async def wait_for(self, position: int, seconds: float | None = None) -> None:
        """Wait until a position is applied; see `Progress.wait_for`."""
        await self._progress.wait_for(position, seconds)

    async def query(self, statement: Callable[[sa.Connection], T], *, small: bool = False) -> T:
        """Return the result of a query on rows of one moment; see `Reader.query`."""
        return await self._reader.query(statement, small=small)

    async def check(self) -> None:
        """Notice rows whose file was deleted or replaced; see `Reader.check`."""
        await self._reader.check()

    async def find_request(self, actor: str, request_id: str, at_least: int) -> Request | None:
        """Return what a request did; see `RequestIndex.find`."""
        return await self._requests.find(actor, request_id, at_least)

    def follow(self, after: int, quiet_seconds: float) -> AsyncGenerator[tuple[Batch, int]]:
        """Follow the log after a position; see `Tail.follow`. Its events may be ahead of the rows."""
        return self.tail.follow(after, quiet_seconds)

    async def position_at(self, time_ns: int) -> tuple[int, int]:
        """Return the last position recorded up to a time, and its time in ns; (0, 0) before the first event.

        What one append wrote counts as recorded with its first event.
        """
        row = await self.query(lambda connection: connection.execute(_LAST_AT, {"time": time_ns}).first(), small=True)
        return (row[0], row[1]) if row else (0, 0)

    def rebuild(self) -> AsyncGenerator[RebuildProgress]:
        """Build the rows again from the log, compare them, and change to them; see `Rebuild.run`."""
        return self._rebuild.run()

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (CheckpointMoved, FollowerTooSlow):
                _logger.info("projection restarts from its checkpoint", projection=self.name)
            except (*_DATABASE_AWAY, StoreUnavailable) as error:
                if self.tail.failure:
                    return self._fail(self.tail.failure)
                _logger.warning(
                    "log or database unavailable, projection retries", projection=self.name, error=error_text(error)
                )
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                if damage := damage_of(error):
                    return self._repair(damage)
                _logger.exception(
                    "projection failed", projection=self.name, position=self.position, error=error_text(error)
                )
                return self._fail(error)

    async def _follow(self) -> None:
        async with self._live.applying:
            await self._live.read_checkpoint()
        # PostgreSQL may have lost the last commits when it crashed: these events are applied again.
        self._progress.return_to(self._live.checkpoint)
        async with aclosing(self.tail.events(self.position)) as batches:
            while True:
                await self._gather()
                batch, position = await anext(batches)
                async with self._live.applying:
                    await self._apply_new(batch)
                self._progress.advance(position)

    async def _gather(self) -> None:
        """Wait for an event and a moment longer: many are written at once, and watchers come before rows.

        Without delay while somebody waits for the rows.
        """
        self._progress.expect()
        await self.tail.wait_for(self.position + 1)
        await self._progress.wait_until_wanted(BATCH_WINDOW_SECONDS)

    async def _apply_new(self, batch: Batch) -> None:
        """Apply those events that no other process which writes these rows has applied already."""
        live = self._live
        while new := [event for event in batch if event.position > live.checkpoint]:
            generation, before = live.generation, live.checkpoint
            try:
                await live.in_writer(lambda: self._generations.apply(generation, before, new))  # noqa: B023 - awaited at once
                live.checkpoint = new[-1].position
            except Exception as error:
                if await self._is_of_others(error, generation, before):
                    continue
                # One by one: the rows come as far as they can, and the event in their way is known.
                appends = appends_of(new)
                if len(appends) == 1:
                    raise CannotApply(self.name, new) from error
                for append in appends:
                    await self._apply_new(append)

    async def _is_of_others(self, error: Exception, generation: Generation, before: int) -> bool:
        """Return whether an error is due to another process that moved the checkpoint or replaced the generation.

        Raises:
            Exception: The error itself, when it may pass; `CheckpointMoved` or `RowsDamaged`.
        """
        if isinstance(error, sa.exc.DBAPIError) and not is_refusal(error):
            raise error
        if not isinstance(error, (CheckpointMoved, sa.exc.DBAPIError)):
            return False
        live = self._live
        await live.read_checkpoint()
        if live.checkpoint < self.position:
            raise CheckpointMoved from error
        moved = (live.generation, live.checkpoint) != (generation, before)
        if not moved and (damage := damage_of(error)):
            raise RowsDamaged(damage) from error
        if not moved and isinstance(error, CheckpointMoved):
            raise error
        return moved

    def _fail(self, error: BaseException) -> None:
        self._progress.fail(error, self._live.checkpoint)

    def _repair(self, damage: str) -> None:
        """Compute damaged rows again; queries are refused meanwhile."""
        if self._repairing is None or self._repairing.done():
            self._progress.begin_again()
            self._repairing = asyncio.create_task(self._compute_again(damage), name=f"repair-{self.name}")

    async def _compute_again(self, damage: str) -> None:
        await end(self._task)
        live, old = self._live, self.generation
        try:
            await self._retry(lambda: live.in_writer(lambda: self._generations.retire_damaged(old.number, damage)))
            new = await self._retry(self._opened)
            await self._retry(lambda: live.set(new))
        except Exception as error:
            _logger.exception("projection failed", projection=self.name, error=error_text(error))
            self._fail(error)
        else:
            self._progress.advance(live.checkpoint)
            live.close_later(old)
            self._task = asyncio.create_task(self._run(), name=f"projection-{self.name}")

    async def _retry(self, job: Callable[[], Awaitable[T]]) -> T:
        """Repeat a job of the database until it succeeds."""
        while True:
            try:
                return await job()
            except (sa.exc.DBAPIError, StoreUnavailable, OSError) as error:
                _logger.warning("database unavailable, retrying", projection=self.name, error=error_text(error))
                await asyncio.sleep(RETRY_SECONDS)
