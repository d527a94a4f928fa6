"""The projectors of a process: created for all services, started at once, with progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from eventstore import Database, Projector, SnapshotKeeper, StoreUnavailable, Tail
from services.app.places import checking_database
from services.artifacts.objects import ObjectPlace
from services.service import ServiceProjection
from services.settings import Settings

PROGRESS_SECONDS = 2.0

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Projectors:
    """The projectors of a process.

    Args:
        settings: When snapshots are taken.
        tails: What follows the logs, by the log's name.
        database: Where rows are kept.
        objects: Where snapshots are kept.

    Attributes:
        by_name: The projectors, by the projection's name.
        keepers: What takes their snapshots, by the same names.
        required: The projections without which the process does not start.
    """

    settings: Settings
    tails: Mapping[str, Tail]
    database: Database
    objects: ObjectPlace
    by_name: dict[str, Projector] = field(default_factory=dict)
    keepers: dict[str, SnapshotKeeper] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)

    def create(self, projections: Sequence[ServiceProjection]) -> list[Projector]:
        """Create the projectors of a service, in the order of its projections."""
        return [self._create(projection) for projection in projections]

    def _create(self, spec: ServiceProjection) -> Projector:
        projector = Projector(self.tails[spec.log], spec.create(), self.database, self.objects)
        self.by_name[projector.name] = projector
        keeper = SnapshotKeeper(projector, self.settings.snapshot_interval, self.settings.snapshot_events)
        self.keepers[projector.name] = keeper
        if spec.required:
            self.required.add(projector.name)
        return projector

    async def start(self, tell: Callable[[str], None]) -> None:
        """Start all projectors at once: each waits for the log, the database or the disk most of the time.

        Args:
            tell: Receives a line of progress now and then.

        Raises:
            StoreUnavailable: A required projection failed, or the database is out of reach.
        """
        starting = [asyncio.create_task(self._start(projector, tell)) for projector in self.by_name.values()]
        try:
            ended, _ = await asyncio.wait(starting, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            # Only once: a start that is cancelled again while it cleans up leaves the rest behind.
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)
        for task in ended:
            task.result()

    async def _start(self, projector: Projector, tell: Callable[[str], None]) -> None:
        starting = asyncio.create_task(_start(projector, required=projector.name in self.required))
        try:
            tell(_progress(projector))
            while not (await asyncio.wait({starting}, timeout=PROGRESS_SECONDS))[0]:
                tell(_progress(projector))
        finally:
            starting.cancel()
            await asyncio.wait({starting})
        starting.result()


def _progress(projector: Projector) -> str:
    return f"catching up {projector.name} {projector.progress}/{projector.tail.position}"


async def _start(projector: Projector, *, required: bool) -> None:
    try:
        with checking_database():
            await projector.start()
    except StoreUnavailable as error:
        if required or error.reason != "PROJECTION_FAILED":
            raise
        _logger.warning("starting without a failed projection", projection=projector.name, error=str(error))
