"""When snapshots are taken: on command, and by themselves when the log has grown much since the last one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog

from eventstore.concurrency.tasks import end
from eventstore.epochs import find_loss
from eventstore.error_messages import error_text
from eventstore.errors import Kind, Rejected, StoreUnavailable
from eventstore.projections.projector import Projector
from eventstore.projections.snapshots.store import KEPT, Snapshot, SnapshotUnusable, is_marked

GROWTH = 10
"""A log has grown much by one in so many events: all snapshots together cost no more than some for each event."""

_STEP_SECONDS = 0.5

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SnapshotProgress:
    """How many bytes of a snapshot are kept; its position is there when it is `done`."""

    size: int
    position: int = 0
    done: bool = False


class SnapshotKeeper:
    """Takes the snapshots of one projection, one at a time; nobody who asks or applies waits for it.

    Args:
        projector: Keeps the rows; it must have a place for their snapshots.
        interval: How often it looks whether one is due, in seconds; 0: never.
        events: By how many events the log must have grown at least.
    """

    def __init__(self, projector: Projector, interval: float, events: int) -> None:
        if projector.snapshots is None:
            raise ValueError(f"projection {projector.name} has no snapshots")
        self._projector = projector
        self._snapshots = projector.snapshots
        self._interval = interval
        self._events = events
        self._job: asyncio.Task[Snapshot] | None = None
        self._last = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to take snapshots when they are due."""
        if self._interval > 0:
            self._task = asyncio.create_task(self._run(), name=f"snapshots-{self._projector.name}")

    async def stop(self) -> None:
        """Abandon a snapshot in progress."""
        self._snapshots.abandon()
        await end(self._task)
        if self._job:
            await asyncio.wait([self._job])

    async def take(self) -> AsyncGenerator[SnapshotProgress]:
        """Take a snapshot of the present rows.

        Raises:
            Rejected: SNAPSHOT_RUNNING if one is in progress.
            StoreUnavailable: The database or the place of the objects is out of reach, or the process stops.
        """
        if self._job and not self._job.done():
            message = f"a snapshot of {self._projector.name} is already running. Wait for its end"
            raise Rejected(Kind.PRECONDITION, "SNAPSHOT_RUNNING", message, projection=self._projector.name)
        sizes = [0]
        self._job = job = asyncio.create_task(self._take(sizes))
        job.add_done_callback(_see)
        while not job.done():
            await asyncio.wait([job], timeout=_STEP_SECONDS)
            yield SnapshotProgress(sizes[0])
        yield SnapshotProgress(sizes[0], job.result().position, done=True)

    async def _take(self, sizes: list[int]) -> Snapshot:
        """Take a snapshot; it continues if the caller disconnects."""

        def progress(size: int) -> None:
            sizes[0] = size

        try:
            taken = await self._projector.query(lambda connection: self._snapshots.take(connection, progress))
        except SnapshotUnusable as error:
            raise StoreUnavailable(f"snapshot abandoned: {error}", "SHUTTING_DOWN") from error
        self._last = taken.position
        _logger.info("snapshot taken", projection=self._projector.name, position=taken.position, bytes=sizes[0])
        await self._forget_old()
        return taken

    async def _forget_old(self) -> None:
        """Drop all but the newest, which another process may have taken; those that know a lost event stay."""
        store = self._projector.store
        try:
            kept = await asyncio.to_thread(self._snapshots.kept)
            newest = [snapshot for snapshot in kept if await is_marked(store, snapshot.position, snapshot.mark)][:KEPT]
            known = await asyncio.to_thread(self._snapshots.known)
            lost = {snapshot.source.removeprefix("snapshot ") for snapshot in known if await find_loss(store, snapshot)}
            useless = [snapshot.name for snapshot in kept if snapshot not in newest]
            await asyncio.to_thread(self._snapshots.forget, useless, lost)
        except StoreUnavailable as error:
            _logger.warning("cannot delete old snapshots", projection=self._projector.name, error=error_text(error))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                if self._has_grown() and await self._is_due():
                    async for _ in self.take():
                        pass
            except (StoreUnavailable, Rejected, OSError) as error:
                _logger.warning("snapshot failed", projection=self._projector.name, error=error_text(error))

    async def _is_due(self) -> bool:
        """Return whether a snapshot is due; another process with the same rows may have taken one."""
        kept = await asyncio.to_thread(self._snapshots.kept)
        self._last = next((snapshot.position for snapshot in kept if snapshot.position <= self._projector.position), 0)
        return self._has_grown()

    def _has_grown(self) -> bool:
        return self._projector.position - self._last >= max(self._events, self._last // GROWTH)


def _see(job: asyncio.Task[Snapshot]) -> None:
    """Retrieve the result of a task, in case nobody awaits it any more."""
    if not job.cancelled():
        job.exception()
