"""Projections: rows computed from a log by one loop, whether it starts, catches up, recovers, tails or rebuilds."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

import sqlalchemy as sa
import structlog

from eventstore.decider import Request
from eventstore.errors import Kind, Rejected, StoreUnavailable
from eventstore.event import RecordedEvent
from eventstore.rows import Database, Rows, checkpoint, events, fingerprint
from eventstore.store import EventStore

T = TypeVar("T")

FOLLOWER_BATCHES = 1000
RETRY_SECONDS = 0.5

_logger = structlog.get_logger(__name__)


class Projection(Protocol):
    """What a slice says about its rows.

    Attributes:
        name: A word, unique among the projections of a database.
        version: One more whenever `apply` gives other rows for the same events.
        tables: The tables; each with a primary key.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def tables(self) -> sa.MetaData: ...

    def apply(self, rows: sa.Connection, event: RecordedEvent) -> None:
        """Writes what an event means; called once for each event, in order, in the transaction of the checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """How far a rebuild is; the digests are there when it is `done`."""

    position: int
    head: int
    done: bool = False
    live_digest: str = ""
    rebuilt_digest: str = ""


class _CheckpointMoved(Exception):
    """Another process writes these rows too and was faster."""


class FollowerTooSlow(Exception):
    """A follower did not take its events in time; it may start again from where it was."""


class Projector:
    """Keeps the rows of one projection up to date with its log.

    Args:
        store: The log.
        projection: What the rows are.
        database: Where they live.
    """

    def __init__(self, store: EventStore, projection: Projection, database: Database) -> None:
        self.store = store
        self.name = projection.name
        self.fingerprint = fingerprint(projection.tables, projection.version)
        self.failure: BaseException | None = None
        self._projection = projection
        self._database = database
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"projection-{projection.name}")
        self._rows: Rows | None = None
        self._position = 0
        self._checkpoint = 0
        self._task: asyncio.Task[None] | None = None
        self._rebuilding = asyncio.Lock()
        self._applying = asyncio.Lock()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._followers: set[asyncio.Queue[Sequence[RecordedEvent] | None]] = set()

    @property
    def position(self) -> int:
        """The last position applied."""
        return self._position

    @property
    def rows(self) -> Rows:
        """The live generation."""
        if self._rows is None:
            raise StoreUnavailable(f"projection {self.name} is not started", "PROJECTION_BEHIND")
        return self._rows

    async def start(self) -> None:
        """Opens the rows, checks them against the log, and comes up to the log's head."""
        self._rows = await self._in_writer(self._open)
        await self._check_against_log()
        self._task = asyncio.create_task(self._run(), name=f"projection-{self.name}")
        head = await self.store.head()
        await self.wait_for(head)

    async def stop(self) -> None:
        """Stops after the batch at hand."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._writer.shutdown(wait=True)
        if self._rows:
            self._rows.close()

    async def wait_for(self, position: int) -> None:
        """Returns once `position` is applied.

        Raises:
            StoreUnavailable: The projection failed and will not get there.
        """
        if self._position >= position:
            return
        if self.failure:
            raise StoreUnavailable(f"projection {self.name} failed", "PROJECTION_FAILED")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (position, next(self._numbers), future))
        await future

    async def query(self, question: Callable[[sa.Connection], T]) -> T:
        """Answers a question from rows of one moment, in a thread."""

        def ask(rows: Rows) -> T:
            with rows.transaction() as connection:
                return question(connection)

        rows = self.rows
        rows.readers += 1
        try:
            return await asyncio.to_thread(ask, rows)
        except sa.exc.OperationalError as error:
            raise StoreUnavailable(f"the database does not answer: {error.orig}", "DATABASE_UNAVAILABLE") from error
        finally:
            rows.readers -= 1

    async def find_request(self, actor: str, request_id: str, at_least: int) -> Request | None:
        """What a request did; see `RequestIndex`."""
        await self.wait_for(at_least)
        same = sa.and_(events.c.request_id == request_id, events.c.actor == actor)
        question = sa.select(
            sa.func.min(events.c.position), sa.func.max(events.c.position), sa.func.max(events.c.request_digest)
        )
        first, last, digest = await self.query(lambda rows: rows.execute(question.where(same)).one())
        return Request(digest, first, last) if first is not None else None

    async def follow(self, after: int, quiet_seconds: float) -> AsyncIterator[tuple[Sequence[RecordedEvent], int]]:
        """Applied events behind a position, in order, each once; with each step the position that it brings to.

        After `quiet_seconds` without an event comes a step without events: a bookmark.

        Raises:
            Rejected: POSITION_AHEAD when the log has not come to `after`.
            FollowerTooSlow: More events wait than are kept for a follower.
        """
        queue: asyncio.Queue[Sequence[RecordedEvent] | None] = asyncio.Queue(FOLLOWER_BATCHES)
        self._followers.add(queue)
        try:
            joined = self._position
            async for batch in self._replay(after, joined):
                after = batch[-1].position
                yield batch, after
            while True:
                try:
                    live = await asyncio.wait_for(queue.get(), quiet_seconds)
                except TimeoutError:
                    after = max(after, self._position) if queue.empty() else after
                    yield (), after
                    continue
                if live is None:
                    raise FollowerTooSlow
                news = [event for event in live if event.position > after]
                if news:
                    after = news[-1].position
                    yield news, after
        finally:
            self._followers.discard(queue)

    async def _replay(self, after: int, until: int) -> AsyncGenerator[Sequence[RecordedEvent]]:
        if after > until and after > await self.store.head():
            raise Rejected(
                Kind.INVALID, "POSITION_AHEAD", f"the log has not come to position {after}", position=str(after)
            )
        if after >= until:
            return
        async with aclosing(self.store.subscribe(after)) as subscription:
            async for batch in subscription:
                due = [event for event in batch if event.position <= until]
                if due:
                    yield due
                if batch[-1].position >= until:
                    return

    async def position_at(self, time_ns: int) -> tuple[int, int]:
        """The last position recorded up to a time, and its time; (0, 0) before the first event."""
        question = sa.select(events.c.position, events.c.time).where(events.c.time <= time_ns)
        last = question.order_by(events.c.time.desc(), events.c.position.desc()).limit(1)
        row = await self.query(lambda rows: rows.execute(last).first())
        return (row[0], row[1]) if row else (0, 0)

    async def rebuild(self) -> AsyncIterator[RebuildProgress]:
        """Computes the rows anew beside the live ones, compares the two, and switches when they are equal.

        Raises:
            Rejected: REBUILD_RUNNING when one is under way; REBUILD_DIFFERS when they differ: the live rows stay.
        """
        if self._rebuilding.locked():
            raise Rejected(
                Kind.PRECONDITION, "REBUILD_RUNNING", f"{self.name} is being rebuilt already", projection=self.name
            )
        async with self._rebuilding:
            number = self.rows.generation + 1
            new = await self._in_writer(
                lambda: self._database.open(self.name, self.fingerprint, number, self._projection.tables)
            )
            switched = False
            try:
                async for position in self._fill(new, 0, await self.store.head()):
                    yield RebuildProgress(position, await self.store.head())
                live, rebuilt = await self._compare_and_switch(new)
                switched = live == rebuilt
                if not switched:
                    words = f"the rows of {self.name} differ from a rebuild: {live} is live, {rebuilt} rebuilt"
                    raise Rejected(
                        Kind.PRECONDITION, "REBUILD_DIFFERS", words, live_digest=live, rebuilt_digest=rebuilt
                    )
                yield RebuildProgress(self._position, self._position, True, live, rebuilt)
            finally:
                if not switched:
                    await self._in_writer(lambda: self._discard(new))

    async def _fill(self, rows: Rows, after: int, until: int) -> AsyncIterator[int]:
        """Applies the log to rows that nobody reads yet, up to a position."""
        async for batch in self._replay(after, until):
            await asyncio.to_thread(self._apply, rows, after, batch)
            after = batch[-1].position
            yield after

    async def _compare_and_switch(self, new: Rows) -> tuple[str, str]:
        # Nothing is applied meanwhile, so that both are compared at one position; questions are answered all the time.
        async with self._applying:
            old = self.rows
            after = await self._in_writer(lambda: _checkpoint(new)[0])
            async for _ in self._fill(new, after, self._position):
                pass
            live, rebuilt = await asyncio.to_thread(old.digest), await asyncio.to_thread(new.digest)
            if live == rebuilt:
                await self._in_writer(lambda: _set_live(new))
                self._rows = new
        if live == rebuilt:
            while old.readers:
                await asyncio.sleep(0.01)
            await self._in_writer(lambda: self._discard(old))
        return live, rebuilt

    def _discard(self, rows: Rows) -> None:
        rows.close()
        self._database.drop(self.name, self.fingerprint, rows.generation)

    async def _run(self) -> None:
        while True:
            try:
                await self._tail()
            except _CheckpointMoved:
                self._checkpoint = (await self._in_writer(lambda: _checkpoint(self.rows)))[0]
            except (sa.exc.OperationalError, sa.exc.InterfaceError, StoreUnavailable) as error:
                _logger.warning("projection waits", projection=self.name, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except Exception as error:
                _logger.exception("projection failed", projection=self.name, position=self._position)
                self.failure = error
                self._fail_waiters()
                return

    async def _tail(self) -> None:
        async with aclosing(self.store.subscribe(self._position)) as subscription:
            async for batch in subscription:
                async with self._applying:
                    await self._apply_new(batch)
                    self._advance(batch)

    async def _apply_new(self, batch: Sequence[RecordedEvent]) -> None:
        """Applies what another process that writes these rows too has not applied already."""
        before = self._checkpoint
        new = [event for event in batch if event.position > before]
        if new:
            await self._in_writer(lambda: self._apply(self.rows, before, new))
            self._checkpoint = new[-1].position

    def _apply(self, rows: Rows, before: int, batch: Sequence[RecordedEvent]) -> None:
        with rows.transaction() as connection:
            time = connection.scalar(sa.select(checkpoint.c.time)) or 0
            index = []
            for event in batch:
                time = max(time, event.time)
                self._projection.apply(connection, event)
                meta = event.metadata
                index.append((event.position, time, meta.actor, meta.request_id, meta.request_digest))
            connection.execute(sa.insert(events), [dict(zip(events.c.keys(), row, strict=True)) for row in index])
            moved = sa.update(checkpoint).where(checkpoint.c.position == before)
            last = batch[-1]
            if connection.execute(moved.values(position=last.position, event_id=last.id, time=time)).rowcount != 1:
                raise _CheckpointMoved

    def _advance(self, batch: Sequence[RecordedEvent]) -> None:
        self._position = batch[-1].position
        for queue in list(self._followers):
            if queue.full():
                self._followers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(batch)
        while self._waiters and self._waiters[0][0] <= self._position:
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    def _fail_waiters(self) -> None:
        for _, _, future in self._waiters:
            if not future.done():
                future.set_exception(StoreUnavailable(f"projection {self.name} failed", "PROJECTION_FAILED"))
        self._waiters.clear()

    def _open(self) -> Rows:
        """The newest live generation with our fingerprint, else a new one; all others are dropped."""
        live: Rows | None = None
        newest = 0
        for mark, generation in reversed(self._database.generations(self.name)):
            newest = max(newest, generation)
            if live is None and mark == self.fingerprint:
                rows = self._database.open(self.name, mark, generation, self._projection.tables)
                if _checkpoint(rows)[2]:
                    live = rows
                    continue
                rows.close()
            self._database.drop(self.name, mark, generation)
        return live or self._fresh(newest + 1)

    def _fresh(self, generation: int) -> Rows:
        rows = self._database.open(self.name, self.fingerprint, generation, self._projection.tables)
        _set_live(rows)
        return rows

    async def _check_against_log(self) -> None:
        """Rows of another log, or of a tail that the log lost, must never be added to: they are computed anew."""
        position, event_id, _ = await self._in_writer(lambda: _checkpoint(self.rows))
        if position:
            event = await self.store.event_at(position)
            if event is None or event.id != event_id:
                _logger.error(
                    "rows do not match the log and are computed anew", projection=self.name, position=position
                )
                old = self.rows
                self._rows = await self._in_writer(lambda: self._fresh(old.generation + 1))
                await self._in_writer(lambda: self._discard(old))
                position = 0
        self._position = self._checkpoint = position

    async def _in_writer(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, job)


def _checkpoint(rows: Rows) -> tuple[int, str, bool]:
    with rows.transaction() as connection:
        row = connection.execute(sa.select(checkpoint.c.position, checkpoint.c.event_id, checkpoint.c.live)).one()
    return row.position, row.event_id, row.live


def _set_live(rows: Rows) -> None:
    with rows.transaction() as connection:
        connection.execute(sa.update(checkpoint).values(live=True))
