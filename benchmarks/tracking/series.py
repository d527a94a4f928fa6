"""Measure how long tracking takes to read a series: its history, and 320 intervals for a chart, on both databases.

    python -m benchmarks.tracking.series --points 100000 --on sqlite

What is timed is all that the server does for an answer but the call: from the request to the bytes of all responses.
CPU time is that of all threads of this process, so PostgreSQL's own is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from benchmarks.tracking.locations import location
from eventstore.event import Metadata, NewEvent
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import tracking
from services.series.columns import Points, pack
from services.tracking.projection.apply import TrackingProjection
from services.tracking.queries import metric_history, metric_intervals

INTERVALS = 320
RUNS = 10
"""How many runs of each kind of series there are."""

_A_BATCH = 10_000
_BEFORE = 5  # answers that are not counted: connections are opened and statements prepared
_BEGAN = 1_700_000_000_000
_SHUFFLED = 5_000  # points among which the order is lost

Answers = AsyncGenerator[Message]


@dataclass(frozen=True, slots=True)
class Kind:
    """The order of a series' steps, by name."""

    name: str
    steps: Callable[[np.random.Generator, int], np.ndarray[tuple[int], np.dtype[np.int64]]]


def _even(_luck: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(count)


def _uneven(luck: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.cumsum(luck.integers(0, 5, count))


def _unordered(luck: np.random.Generator, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    parts = [np.arange(start, min(start + _SHUFFLED, count)) for start in range(0, count, _SHUFFLED)]
    return np.concatenate([luck.permutation(part) for part in parts])


KINDS = (Kind("even steps", _even), Kind("uneven steps", _uneven), Kind("out of order", _unordered))


@asynccontextmanager
async def running(where: str) -> AsyncIterator[tuple[MemoryStore, Projector]]:
    """Run the tracking projection over a log in memory."""
    log = MemoryStore("tracking", tracking.EVENTS)
    tail = Tail(log)
    rows = Projector(tail, TrackingProjection(), Database(where))
    async with AsyncExitStack() as begun:
        for one in (tail, rows):
            await one.start()
            begun.push_async_callback(one.stop)
        yield log, rows


async def write_data(log: MemoryStore, rows: Projector, kind: Kind, count: int) -> list[str]:
    """Log a series of a kind in each of some new runs, a batch at a time; return their ids."""
    run_ids, position = [uuid.uuid4().hex for _ in range(RUNS)], 0
    for number, run_id in enumerate(run_ids):
        luck = np.random.default_rng(number)
        steps = kind.steps(luck, count)
        times = _BEGAN + np.cumsum(luck.integers(20, 60, count))
        values = 1 / (np.arange(count) + 1) + luck.normal(0, 0.01, count)
        payloads: list[Message] = [v1.RunStarted(run_id=run_id, experiment_id="1")]
        for start in range(0, count, _A_BATCH):
            part = slice(start, start + _A_BATCH)
            series = pack("loss", Points(steps[part], times[part], values[part]))
            payloads.append(v1.MetricsLogged(run_id=run_id, series=[series]))
        for payload in payloads:
            position = await _append(log, payload)
        await rows.wait_for(position)
    return run_ids


async def _append(log: MemoryStore, payload: Message) -> int:
    event_id = uuid.uuid4().hex
    (position,) = await log.append([NewEvent("runs", payload, Metadata("Zoë"), event_id, event_id)])
    return position


def _history(rows: Projector, run_ids: Sequence[str]) -> Answers:
    return metric_history.history(rows, v1.GetMetricHistoryRequest(run_id=run_ids[0], key="loss"))


def _chart(axis: v1.MetricAxis.ValueType, runs: int) -> Callable[[Projector, Sequence[str]], Answers]:
    def ask(rows: Projector, run_ids: Sequence[str]) -> Answers:
        request = v1.GetMetricIntervalsRequest(run_ids=run_ids[:runs], keys=["loss"], intervals=INTERVALS, axis=axis)
        return metric_intervals.intervals(rows, request)

    return ask


QUESTIONS: dict[str, Callable[[Projector, Sequence[str]], Answers]] = {
    "history": _history,
    f"{INTERVALS} intervals by step": _chart(v1.METRIC_AXIS_STEP, 1),
    f"{INTERVALS} intervals by time": _chart(v1.METRIC_AXIS_TIME, 1),
    f"{INTERVALS} intervals by step, {RUNS} runs": _chart(v1.METRIC_AXIS_STEP, RUNS),
}


async def measure(ask: Callable[[], Answers], times: int) -> tuple[float, float, float]:
    """Return p50 and p95 in milliseconds, and the CPU time of the median call."""
    wall, cpu = [], []
    for _ in range(_BEFORE + times):
        began, spent = time.perf_counter(), time.process_time()
        async for answer in ask():
            answer.SerializeToString()
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((time.process_time() - spent) * 1000)
    wall, cpu = wall[_BEFORE:], cpu[_BEFORE:]
    return statistics.median(wall), statistics.quantiles(wall, n=20)[-1], statistics.median(cpu)


async def tabled(where: str, count: int, times: int) -> Table:
    """Return a table with a line for each kind of series and query."""
    table = Table("series", "question", "p50 ms", "p95 ms", "CPU ms")
    async with running(where) as (log, rows):
        for kind in KINDS:
            run_ids = await write_data(log, rows, kind, count)
            for name, statement in QUESTIONS.items():
                took = await measure(partial(statement, rows, run_ids), times)
                table.add_row(kind.name, name, *(f"{figure:.1f}" for figure in took))
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100_000, help="of each series; default 100,000")
    parser.add_argument("--on", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--times", type=int, default=40)
    options = parser.parse_args()
    console = Console()
    with location(options.on) as where:
        table = asyncio.run(tabled(where, options.points, options.times))
    console.print(f"{options.points:,} points a series on {options.on}")
    console.print(table)


if __name__ == "__main__":
    main()
