"""How fast the rows of tracking are computed from the log: events of a single point, or of a thousand.

    python -m benchmarks.tracking.rebuild --on postgresql --points-each 1 --events 100000

The log is a real one. Read alone, it says what the rows themselves cost; the last figure has the comparison with the
rows that it replaces in it.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np

from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import JetStreamStore
from eventstore.projection import Projector
from eventstore.rows import Database
from eventstore.tail import Tail, replay
from rollforward import v1
from services import tracking
from services.__main__ import SWITCH_SECONDS
from services.nats_server import EmbeddedNats
from services.series import Points, pack
from services.tracking.projection import TrackingProjection
from tests.servers.nats import open_log
from tests.servers.postgres import running_postgres

APPEND_EVENTS = 1_000
APPEND_POINTS = 100_000


def main() -> None:
    """Measures on one database and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--points-each", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20, help="that log in turn")
    parser.add_argument("--metrics", type=int, default=5, help="of each run, in turn")
    asked = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    with tempfile.TemporaryDirectory() as folder, _database(asked.on, Path(folder)) as location:
        asyncio.run(_measure(Path(folder), location, asked))


async def _measure(folder: Path, location: str, asked: argparse.Namespace) -> None:
    async with _log(folder / "nats") as log:
        await _fill(log, asked)
        with _timed("the log read and decoded", asked):
            async with aclosing(replay(log, 0, await log.head())) as batches:
                async for _ in batches:
                    pass
        tail = Tail(log)
        await tail.start()
        projector = Projector(tail, TrackingProjection(), Database(location))
        with _timed("rows computed from the log", asked):
            await projector.start()
        with _timed("rows rebuilt beside those, compared and switched", asked):
            async with aclosing(projector.rebuild()) as steps:
                async for _ in steps:
                    pass
        await projector.stop()
        await tail.stop()
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


async def _fill(log: JetStreamStore, asked: argparse.Namespace) -> None:
    run_ids = [f"{number:032x}" for number in range(asked.runs)]
    await log.append([_event("experiments", v1.ExperimentCreated(experiment_id="1", name="bench"))])
    for run_id in run_ids:
        await log.append([_event(f"run/{run_id}", v1.RunStarted(run_id=run_id, experiment_id="1"))])
    together = min(APPEND_EVENTS, APPEND_POINTS // asked.points_each)
    for first in range(0, asked.events, together):
        numbers = range(first, min(first + together, asked.events))
        await log.append([_points(run_ids, number, asked) for number in numbers])


def _points(run_ids: list[str], number: int, asked: argparse.Namespace) -> NewEvent:
    """Runs log in turn, each its metrics in turn: neighbours in the log are of different series."""
    run_id, turn = run_ids[number % len(run_ids)], number // len(run_ids)
    first = turn // asked.metrics * asked.points_each
    steps = np.arange(first, first + asked.points_each)
    points = Points(steps, 1_700_000_000_000 + steps * 100, np.exp(-steps / 1e6))
    fact = v1.MetricsLogged(run_id=run_id, series=[pack(f"metric {turn % asked.metrics}", points)])
    return _event(f"metrics/{run_id}", fact)


def _event(stream: str, fact: v1.MetricsLogged | v1.RunStarted | v1.ExperimentCreated) -> NewEvent:
    event_id = uuid.uuid4().hex
    asked = Metadata("bench", request_id=uuid.uuid4().hex, request_digest=uuid.uuid4().hex * 2)
    return NewEvent(stream, fact, asked, event_id, event_id)


@contextmanager
def _timed(what: str, asked: argparse.Namespace) -> Iterator[None]:
    begun, used = time.perf_counter(), time.process_time()
    yield
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    rates = f"{asked.events / seconds:,.0f} events/s, {asked.events * asked.points_each / seconds:,.0f} points/s"
    print(f"{what}: {seconds:.2f} s ({used:.2f} s of processor), {rates}", flush=True)


@asynccontextmanager
async def _log(home: Path) -> AsyncIterator[JetStreamStore]:
    server = EmbeddedNats(home)
    address = await server.start()
    try:
        async with open_log(address, tracking.EVENTS) as log:
            yield log
    finally:
        await server.stop()


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield str(folder / "rows")
        return
    with running_postgres() as server, server.database() as url:
        yield url


if __name__ == "__main__":
    main()
