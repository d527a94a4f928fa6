"""Projections: rows computed from a log by one loop, whether it starts, catches up, recovers, tails or rebuilds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa
import structlog

from eventstore.concurrency.tasks import end
from eventstore.concurrency.watermark import Watermark
from eventstore.decider import Request
from eventstore.error_messages import error_text
from eventstore.errors import CannotApply, Kind, Rejected, StoreUnavailable
from eventstore.event import appends_of
from eventstore.projections.damage import RowsDamaged, damage_of
from eventstore.projections.database import Database, is_refusal
from eventstore.projections.generation import Generation
from eventstore.projections.generations import CheckpointMoved, Generations, Projection
from eventstore.projections.rebuild import catch_up, fill
from eventstore.projections.request_index import Recall
from eventstore.projections.snapshots import Objects, Snapshots
from eventstore.projections.startup import opened
from eventstore.projections.tables import Checkpoint, checkpoint, events
from eventstore.tail import Batch, FollowerTooSlow, Tail

__all__ = ["FollowerTooSlow", "Projection", "Projector", "RebuildProgress"]

T = TypeVar("T")

RETRY_SECONDS = 0.5
BATCH_WINDOW_SECONDS = 0.2
INDEX_SECONDS = 10.0
_DATABASE_AWAY = (sa.exc.OperationalError, sa.exc.InterfaceError)

_REQUEST = sa.select(
    sa.func.min(events.c.position), sa.func.max(events.c.position), sa.func.max(events.c.request_digest)
).where(events.c.request_id == sa.bindparam("request"), events.c.actor == sa.bindparam("by"))
_LAST_BY = (
    sa.select(events.c.position, events.c.time)
    .where(events.c.time <= sa.bindparam("by"))
    .order_by(events.c.time.desc(), events.c.position.desc())
    .limit(1)
)

_CHECKPOINT = sa.select(checkpoint.c.position)

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How far a rebuild is; the digests are there when it is `done`."""

    position: int
    head: int
    done: bool = False
    live_digest: str = ""
    rebuilt_digest: str = ""


class Projector:
    """Keeps the rows of one projection up to date with its log.

    Several processes may keep the same rows in one PostgreSQL database: each event is applied once.

    Args:
        tail: What follows the log; it must be started first and stopped last.
        projection: What the rows are.
        database: Where they live.
        objects: Where their snapshots are kept; without it they are computed from the log alone.
    """

    def __init__(self, tail: Tail, projection: Projection, database: Database, objects: Objects | None = None) -> None:
        self.tail = tail
        self.store = tail.store
        self.name = projection.name
        self.failure: BaseException | None = None
        self._generations = Generations(projection, database)
        self.snapshots = Snapshots(self._generations, objects) if objects else None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"projection-{projection.name}")
        self._rows: Generation | None = None
        self._checkpoint = 0
        self._filled = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._repairing: asyncio.Task[None] | None = None
        self._complete_from = 0
        self._recall = Recall(self)
        self._rebuilding = asyncio.Lock()
        self._applying = asyncio.Lock()
        self._answered = asyncio.Event()
        self._wanted = asyncio.Event()
        self._reached = Watermark(f"projection {projection.name}")

    @property
    def fingerprint(self) -> str:
        """A hash of the projection's version and tables."""
        return self._generations.fingerprint

    @property
    def position(self) -> int:
        """The last position applied."""
        return self._reached.position

    @property
    def progress(self) -> int:
        """The last position applied, or that new rows have come to before they answer."""
        return max(self.position, self._filled)

    @property
    def rows(self) -> Generation:
        """The live generation."""
        if self._rows is None:
            raise StoreUnavailable(f"projection {self.name} is not started", "PROJECTION_BEHIND")
        return self._rows

    @property
    def why_failed(self) -> str:
        """What an operator must know of a failure, and nothing of what other defects may say; empty without one."""
        if isinstance(self.failure, CannotApply):
            return str(self.failure)
        return f"projection {self.name} failed" if self.failure else ""

    async def start(self) -> None:
        """Opens the rows, checks them against the log, and comes up to the log's head."""
        self._rows = await self._opened()
        self._checkpoint = (await self._in_writer(self.rows.checkpoint)).position
        self._reached.advance(self._checkpoint)
        self._task = asyncio.create_task(self._run(), name=f"projection-{self.name}")
        head = await self.store.head()
        await self.wait_for(head)
        # Only now, because another process may answer from an older version until it is stopped.
        await asyncio.to_thread(self._generations.discard_older, self.rows)

    async def _opened(self) -> Generation:
        return await opened(self._generations, self.snapshots, self.store, self._writer, self._note_filled)

    def _note_filled(self, position: int) -> None:
        self._filled = position

    async def stop(self) -> None:
        """Stops after the batch at hand."""
        if self.snapshots:
            self.snapshots.abandon()
        await end(self._repairing)
        await end(self._task)
        await self._recall.stop()
        self._reached.fail(StoreUnavailable(f"projection {self.name} is stopped", "PROJECTION_BEHIND"))
        self._writer.shutdown(wait=True)
        await asyncio.gather(*self._closing)
        if self._rows:
            await self._close(self._rows)

    async def wait_for(self, position: int) -> None:
        """Returns once `position` is applied.

        Raises:
            StoreUnavailable: The projection failed and will not get there.
        """
        if self.position < position:
            self._refuse_when_failed()
            self._wanted.set()
            await self._reached.wait_for(position)

    def _refuse_when_failed(self) -> None:
        if self.failure:
            raise StoreUnavailable(self.why_failed, "PROJECTION_FAILED") from self.failure

    def _refuse_when_recomputing(self) -> None:
        """Refuse what rows that are computed again would answer as if nothing had ever happened."""
        if self.position < self._complete_from:
            words = f"the rows of {self.name} are being computed again: at {self.position} of {self._complete_from}"
            raise StoreUnavailable(words, "PROJECTION_BEHIND")

    async def query(self, statement: Callable[[sa.Connection], T], *, small: bool = False) -> T:
        """Answers a question from rows of one moment, in a thread; a `small` one, of a row or two, at once if it can.

        Raises:
            StoreUnavailable: The database does not answer, or the projection failed.
        """
        self._refuse_when_failed()
        self._refuse_when_recomputing()
        rows = self.rows
        try:
            try:
                return await self._ask(rows, statement, small)
            except sa.exc.DBAPIError:
                if not await self._were_replaced(rows):
                    raise
                return await self._ask(self.rows, statement, small)
        except (sa.exc.DBAPIError, RowsDamaged) as error:
            self._raise_damage(error)
            raise

    def _raise_damage(self, error: Exception) -> None:
        """Begin to compute damaged rows again, and say so to who asked."""
        if why := damage_of(error):
            self._repair(why)
            words = f"the rows of projection {self.name} are damaged and being computed again: {why}"
            raise StoreUnavailable(words, "DATABASE_UNAVAILABLE") from error

    async def check(self) -> None:
        """Notice rows whose file was deleted or replaced.

        Raises:
            StoreUnavailable: They are computed again; or the database does not answer.
        """
        await self._check_file()
        await self.query(lambda connection: connection.scalar(_CHECKPOINT))

    async def _check_file(self) -> None:
        try:
            await asyncio.to_thread(self.rows.check_file)
        except RowsDamaged as error:
            self._raise_damage(error)

    async def _ask(self, generation: Generation, statement: Callable[[sa.Connection], T], small: bool) -> T:
        try:
            if small and generation.answer_at_once:
                with generation.at_once() as connection:
                    return statement(connection)
            return await self._ask_in_thread(generation, statement)
        except sa.exc.DBAPIError as error:
            if is_refusal(error):
                raise
            message = f"the database does not answer: {error_text(error.orig or error)}"
            raise StoreUnavailable(message, "DATABASE_UNAVAILABLE") from error

    async def _ask_in_thread(self, generation: Generation, statement: Callable[[sa.Connection], T]) -> T:
        def ask() -> T:
            with generation.transaction() as connection:
                return statement(connection)

        def answered(answer: asyncio.Task[T]) -> None:
            generation.readers -= 1
            self._answered.set()
            if not answer.cancelled():
                answer.exception()  # seen here, in case nobody waits for it any more

        generation.readers += 1
        answer = asyncio.create_task(asyncio.to_thread(ask))
        answer.add_done_callback(answered)
        # Who asked may go away; the thread and its connection are counted until they are done.
        return await asyncio.shield(answer)

    async def find_request(self, actor: str, request_id: str, at_least: int) -> Request | None:
        """What a request did; see `RequestIndex`.

        What came lately is known before it is in the rows, so that a command need not wait for the one before it.
        """
        self._refuse_when_failed()
        try:
            while self.tail.position < at_least or self.position < self.tail.kept_after:
                async with asyncio.timeout(INDEX_SECONDS):
                    await self.tail.wait_for(at_least)
                    await self.wait_for(self.tail.kept_after)
        except TimeoutError as error:
            words = f"projection {self.name} is at {self.position}, not yet at {at_least}"
            raise StoreUnavailable(words, "PROJECTION_BEHIND") from error
        if recent := self.tail.requests.find(actor, request_id):
            return recent
        if self.tail.requests.seen.is_new(actor, request_id):
            return None
        self._recall.begin()
        asked = {"by": actor, "request": request_id}
        if self.rows.answer_at_once:
            try:
                first, last, digest = self.rows.look_up(_REQUEST, asked)
            except sa.exc.DBAPIError as error:
                self._raise_damage(error)
                raise
        else:
            first, last, digest = await self.query(lambda connection: connection.execute(_REQUEST, asked).one())
        return Request(digest, first, last) if first is not None else None

    def follow(self, after: int, quiet_seconds: float) -> AsyncGenerator[tuple[Batch, int]]:
        """The events of the log behind a position; see `Tail.follow`. They may be ahead of the rows."""
        return self.tail.follow(after, quiet_seconds)

    async def position_at(self, time_ns: int) -> tuple[int, int]:
        """The last position recorded up to a time, and its time; (0, 0) before the first event.

        What one append wrote counts as recorded with its first event.
        """
        row = await self.query(lambda connection: connection.execute(_LAST_BY, {"by": time_ns}).first(), small=True)
        return (row[0], row[1]) if row else (0, 0)

    async def rebuild(self) -> AsyncGenerator[RebuildProgress]:
        """Computes the rows anew beside the live ones, compares the two, and switches when they are equal.

        Raises:
            Rejected: REBUILD_RUNNING when one is under way; REBUILD_DIFFERS when they differ: the live rows stay.
        """
        if self._rebuilding.locked():
            words = f"{self.name} is being rebuilt already"
            raise Rejected(Kind.PRECONDITION, "REBUILD_RUNNING", words, projection=self.name)
        async with self._rebuilding:
            await self._check_file()
            new = await self._in_writer(self._generations.unfinished)
            try:
                async for position in catch_up(self._generations, new, self.store, lambda: self.position):
                    yield RebuildProgress(position, self.position)
                new = await asyncio.to_thread(self._generations.finish, new)
                live, rebuilt = await self._switch(new)
            finally:
                if self._rows is not new:
                    await asyncio.to_thread(self._generations.discard, new)
            if live != rebuilt:
                words = f"the rows of {self.name} differ from a rebuild: {live} is live, {rebuilt} rebuilt"
                raise Rejected(Kind.PRECONDITION, "REBUILD_DIFFERS", words, live_digest=live, rebuilt_digest=rebuilt)
            yield RebuildProgress(self.position, self.position, True, live, rebuilt)

    async def _switch(self, new: Generation) -> tuple[str, str]:
        """Compares at one position, while nothing is applied but questions are answered; returns both digests."""
        while True:
            async with self._applying:
                old = self.rows
                due = await self._in_writer(old.checkpoint)
                at = (await self._in_writer(new.checkpoint)).position
                async for position in fill(self._generations, new, self.store, at, due.position):
                    at = position
                if at < due.position:  # the event there was erased
                    return await self._in_writer(lambda old=old: (old.digest(), new.digest()))  # type: ignore[misc]
                digests = await self._in_writer(lambda old=old: self._generations.switch(old, new))  # type: ignore[misc]
                if digests and digests[0] == digests[1]:
                    self._rows = new
            if digests:
                break
        if self._rows is new:
            await self._close(old)
            # Not in the writer's thread: it waits for those who ask in other processes.
            await asyncio.to_thread(self._generations.discard, old)
        return digests

    async def _close(self, generation: Generation) -> None:
        while generation.readers:
            self._answered.clear()
            await self._answered.wait()
        generation.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except (CheckpointMoved, FollowerTooSlow):
                _logger.info("projection starts again from its checkpoint", projection=self.name)
            except (*_DATABASE_AWAY, StoreUnavailable) as error:
                if self.tail.failure:
                    return self._fail(self.tail.failure)
                _logger.warning("projection waits", projection=self.name, error=error_text(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                if why := damage_of(error):
                    return self._repair(why)
                _logger.exception(
                    "projection failed", projection=self.name, position=self.position, why=error_text(error)
                )
                return self._fail(error)

    def _repair(self, why: str) -> None:
        """Compute the rows again, which are damaged; those who ask meanwhile are told so."""
        if self._repairing is None or self._repairing.done():
            self._complete_from = max(self._complete_from, self.position)
            self._reached.position = 0
            self._repairing = asyncio.create_task(self._compute_again(why), name=f"repair-{self.name}")

    async def _compute_again(self, why: str) -> None:
        await end(self._task)
        old = self.rows
        try:
            await self._retry(lambda: self._in_writer(lambda: self._generations.retire_damaged(old.generation, why)))
            self._rows = await self._retry(self._opened)
            self._checkpoint = (await self._retry(lambda: self._in_writer(self.rows.checkpoint))).position
        except Exception as error:
            _logger.exception("projection failed", projection=self.name, why=error_text(error))
            self._fail(error)
        else:
            self._reached.advance(self._checkpoint)
            self._close_later(old)
            self._task = asyncio.create_task(self._run(), name=f"projection-{self.name}")

    async def _retry(self, job: Callable[[], Awaitable[T]]) -> T:
        """Do a job of the database again until it answers."""
        while True:
            try:
                return await job()
            except (sa.exc.DBAPIError, StoreUnavailable, OSError) as error:
                _logger.warning("projection waits", projection=self.name, error=error_text(error))
                await asyncio.sleep(RETRY_SECONDS)

    def _close_later(self, generation: Generation) -> None:
        closing = asyncio.create_task(self._close(generation))  # whoever asks for long keeps nobody waiting
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._reached.advance(self._checkpoint)
        self._reached.fail(StoreUnavailable(self.why_failed, "PROJECTION_FAILED"))

    async def _follow(self) -> None:
        async with self._applying:
            await self._read_checkpoint()
        # PostgreSQL may have lost the last commits when it crashed: then they are made once more.
        self._reached.position = min(self.position, self._checkpoint)
        async with aclosing(self.tail.events(self.position)) as news:
            while True:
                await self._gather()
                batch, position = await anext(news)
                async with self._applying:
                    await self._apply_new(batch)
                self._reached.advance(position)

    async def _gather(self) -> None:
        """Waits for an event, and for more for a moment: many are written at once, and whoever watches hears first.

        Not while someone waits for the rows.
        """
        self._wanted.clear()
        await self.tail.wait_for(self.position + 1)
        if not self._reached.awaited:
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_WINDOW_SECONDS):
                    await self._wanted.wait()

    async def _apply_new(self, batch: Batch) -> None:
        """Applies what another process that writes these rows too has not applied already."""
        while new := [event for event in batch if event.position > self._checkpoint]:
            rows, before = self.rows, self._checkpoint
            try:
                await self._in_writer(lambda: self._generations.apply(rows, before, new))  # noqa: B023 - awaited at once
                self._checkpoint = new[-1].position
            except Exception as error:
                if await self._is_of_others(error, rows, before):
                    continue
                # One by one: the rows come as far as they can, and it is known what stands in their way.
                appends = appends_of(new)
                if len(appends) == 1:
                    raise CannotApply(self.name, new) from error
                for append in appends:
                    await self._apply_new(append)

    async def _is_of_others(self, error: Exception, generation: Generation, before: int) -> bool:
        """Whether an error is because another process has moved the checkpoint on, or made other rows.

        Raises what may pass.
        """
        if isinstance(error, sa.exc.DBAPIError) and not is_refusal(error):
            raise error
        if not isinstance(error, (CheckpointMoved, sa.exc.DBAPIError)):
            return False
        await self._read_checkpoint()
        if self._checkpoint < self.position:
            raise CheckpointMoved from error
        moved = (self.rows, self._checkpoint) != (generation, before)
        if not moved and (why := damage_of(error)):
            raise RowsDamaged(why) from error
        if not moved and isinstance(error, CheckpointMoved):
            raise error
        return moved

    async def _read_checkpoint(self) -> None:
        """Finds how far the rows are, going over to those that another process has rebuilt in their place."""
        found = await self._in_writer(lambda: _live_checkpoint(self.rows))
        if found is None:
            old = self.rows
            newer = await self._in_writer(lambda: self._generations.live(newer_than=old.generation))
            if newer is None:
                raise RowsDamaged(f"{old.label} was dropped")
            self._rows = newer
            self._close_later(old)
            found = await self._in_writer(newer.checkpoint)
        self._checkpoint = found.position

    async def _were_replaced(self, generation: Generation) -> bool:
        async with self._applying:
            if generation is self._rows:
                await self._read_checkpoint()
        return generation is not self._rows

    async def _in_writer(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, job)


def _live_checkpoint(generation: Generation) -> Checkpoint | None:
    """How far rows are; None when they were replaced."""
    try:
        found = generation.checkpoint()
    except sa.exc.DBAPIError as error:
        if is_refusal(error):  # there is no such table
            return None
        raise
    return found if found.live else None
