"""Measure how soon the rows of ten million points are restored: from a snapshot, and from the log alone.

    python -m benchmarks.tracking.snapshot --on postgresql --points 10000000

The log is a real one, of events of a thousand points. Beside it is measured what a snapshot that is being taken costs
those who ask and those who write meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import JetStreamStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.projections.snapshots.schedule import SnapshotKeeper
from eventstore.tail import Tail
from rollforward import v1
from services import tracking
from services.__main__ import SWITCH_SECONDS
from services.artifacts.objects import ObjectPlace, open_objects
from services.nats.server import EmbeddedNats
from services.tracking.projection.apply import TrackingProjection
from services.tracking.projection.tables import metrics
from tests.servers.nats import open_log
from tests.servers.postgres import running_postgres

POINTS = 1000
RUNS = 10
APPEND = 100  # events
QUIET_SECONDS = 3.0

_ROWS = sa.select(metrics).where(metrics.c.run == sa.bindparam("run"))


def main() -> None:
    """Measure on one database and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--points", type=int, default=10_000_000)
    asked = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    with tempfile.TemporaryDirectory() as folder, _database(asked.on, Path(folder)) as location:
        asyncio.run(_measure(Path(folder), location, asked.points))


async def _measure(folder: Path, location: str, points: int) -> None:
    objects = open_objects(str(folder / "objects"))
    async with _log(folder / "nats") as log:
        await _fill(log, points)
        begun = time.perf_counter()
        async with _running(log, location, objects) as projector:
            _say("from the log alone", time.perf_counter() - begun, points)
            await _take(log, projector)
            digest = await asyncio.to_thread(projector.generation.digest)
        for mark, number in Database(location).generations(TrackingProjection.name):
            Database(location).drop(TrackingProjection.name, mark, number)
        begun = time.perf_counter()
        async with _running(log, location, objects) as projector:
            _say("from the snapshot", time.perf_counter() - begun, points)
            if await asyncio.to_thread(projector.generation.digest) != digest:
                raise AssertionError("the rows of the snapshot are others")


async def _take(log: JetStreamStore, projector: Projector) -> None:
    """Take a snapshot while events are appended and read; print the durations of both."""
    quiet = await _measure_during(log, projector, asyncio.create_task(asyncio.sleep(QUIET_SECONDS)))
    begun = time.perf_counter()
    job = asyncio.create_task(_taken(projector))
    busy = await _measure_during(log, projector, job)
    size = await job
    print(f"taken: {time.perf_counter() - begun:.2f} s, {size / 1e6:.0f} MB")
    for when, durations in (("quiet", quiet), ("taking", busy)):
        cuts = statistics.quantiles(durations, n=100)
        print(f"an event written and read, {when}: p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms")


async def _taken(projector: Projector) -> int:
    steps = [step async for step in SnapshotKeeper(projector, 0, 1).take()]
    return steps[-1].size


async def _measure_during(log: JetStreamStore, projector: Projector, job: asyncio.Task[object]) -> list[float]:
    """Return how long each append and read of its change took while the job ran."""
    durations: list[float] = []
    while not job.done():
        begun = time.perf_counter()
        position = (await log.append([_points(0, len(durations), 1)]))[-1]
        await projector.wait_for(position)
        await projector.query(lambda rows: rows.execute(_ROWS, {"run": 2}).all(), small=True)
        durations.append(time.perf_counter() - begun)
        await asyncio.sleep(0.005)
    return durations


async def _fill(log: JetStreamStore, points: int) -> None:
    await log.append([_event("experiments", v1.ExperimentCreated(experiment_id="1", name="bench"))])
    starts = [v1.RunStarted(run_id=f"{run:032x}", experiment_id="1", name=f"run {run}") for run in range(RUNS)]
    await log.append([_event(f"run/{start.run_id}", start) for start in starts])
    count = points // POINTS
    for first in range(0, count, APPEND):
        batch = [_points(number % RUNS, number // RUNS) for number in range(first, min(first + APPEND, count))]
        await log.append(batch)


def _points(run: int, number: int, count: int = POINTS) -> NewEvent:
    """Return what a job logs about ten times a second: consecutive steps, values that wander."""
    noise = np.random.default_rng([run, number])
    steps = np.arange(number * POINTS, number * POINTS + count, dtype="<i8")
    times = 1_700_000_000_000 + steps * 100 + noise.integers(0, 10, count)
    values = np.exp(-steps / 1e6) + noise.normal(scale=0.01, size=count)
    series = v1.Series(
        key="loss",
        steps=steps.tobytes(),
        timestamps=times.astype("<i8").tobytes(),
        values=values.astype("<f8").tobytes(),
    )
    run_id = f"{run:032x}"
    return _event(f"metrics/{run_id}", v1.MetricsLogged(run_id=run_id, series=[series]))


def _event(stream: str, payload: v1.MetricsLogged | v1.RunStarted | v1.ExperimentCreated) -> NewEvent:
    event_id = uuid.uuid4().hex
    return NewEvent(
        stream, payload, Metadata("bench", request_id=event_id, request_digest=event_id), event_id, event_id
    )


@asynccontextmanager
async def _log(home: Path) -> AsyncIterator[JetStreamStore]:
    server = EmbeddedNats(home)
    address = await server.start()
    try:
        async with open_log(address, tracking.EVENTS) as log:
            yield log
    finally:
        await server.stop()


@asynccontextmanager
async def _running(log: JetStreamStore, location: str, objects: ObjectPlace) -> AsyncIterator[Projector]:
    tail = Tail(log)
    await tail.start()
    projector = Projector(tail, TrackingProjection(), Database(location), objects)
    try:
        await projector.start()
        yield projector
    finally:
        await projector.stop()
        await tail.stop()


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield str(folder / "rows")
        return
    with running_postgres() as server, server.database() as url:
        yield url


def _say(what: str, seconds: float, points: int) -> None:
    print(f"{what}: {seconds:.2f} s, {points / seconds / 1e6:.2f} million points/s", flush=True)


if __name__ == "__main__":
    main()
