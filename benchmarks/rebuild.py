"""Measure how fast rows are computed from a log of single points or of alias moves.

    python -m benchmarks.rebuild --of points --on postgresql --events 100000
    python -m benchmarks.rebuild --of moves --beside ../the-commit-before --rounds 3

The log is a real one. Read alone, it shows what the rows themselves cost; the rebuild includes the comparison with the
rows that it replaces. With `--beside` every round also runs the code of another work tree, in turn, and the last lines
are the ratios of the medians.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
from google.protobuf.message import Message

from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import JetStreamStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projection, Projector
from eventstore.tail import Tail, replay
from rollforward import v1
from services import __main__ as service
from services import registry, tracking
from services.nats.server import EmbeddedNats
from services.registry.projection.apply import RegistryProjection
from services.series.columns import Points, pack
from services.tracking.projection.apply import TrackingProjection
from tests.servers.nats import open_log
from tests.servers.postgres import running_postgres

APPEND_EVENTS = 1_000
APPEND_POINTS = 100_000
APPEND_MOVES = 500
VERSIONS = 10

Rates = dict[str, float]
"""Events a second by what was measured."""


def main() -> None:
    """Measure on one database and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--of", choices=("points", "moves"), default="points")
    parser.add_argument("--on", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--points-each", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20, help="runs that log in turn")
    parser.add_argument("--metrics", type=int, default=5, help="metrics of each run, in turn")
    parser.add_argument("--models", type=int, default=100, help="models whose aliases move in turn")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--beside", type=Path, help="another work tree, measured in turn")
    parser.add_argument("--json", action="store_true", help="print one line of JSON only")
    options = parser.parse_args()
    if options.json:
        print(json.dumps(_run_here(options)))
    else:
        _compare(options)


def _compare(options: argparse.Namespace) -> None:
    trees = {"here": Path.cwd()} | ({"beside": options.beside.resolve()} if options.beside else {})
    rounds: dict[str, list[Rates]] = {name: [] for name in trees}
    for number in range(options.rounds):
        for name, tree in trees.items():
            rounds[name].append(_run_in(tree))
            print(f"round {number + 1}, {name}: {_line(rounds[name][-1])}", flush=True)
    medians = {name: _medians(measured) for name, measured in rounds.items()}
    print(f"median of {options.rounds}, here: {_line(medians['here'])}")
    for what, rate in medians["here"].items() if options.beside else ():
        print(f"{what}: {rate / medians['beside'][what]:.2f} times the rate of the other work tree")


def _run_in(tree: Path) -> Rates:
    """Measure the code of a work tree in a process of its own."""
    code = os.pathsep.join(str(tree / part) for part in (".", "client/src"))
    command = [sys.executable, __file__, *sys.argv[1:], "--json"]
    done = subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": code}, stdout=subprocess.PIPE, check=True)
    rates: Rates = json.loads(done.stdout.splitlines()[-1])
    return rates


def _medians(rounds: Sequence[Rates]) -> Rates:
    return {what: statistics.median(rates[what] for rates in rounds) for what in rounds[0]}


def _line(rates: Rates) -> str:
    return ", ".join(f"{what} {rate:,.0f}" for what, rate in rates.items())


def _run_here(options: argparse.Namespace) -> Rates:
    sys.setswitchinterval(service.SWITCH_SECONDS)
    gc.set_threshold(*getattr(service, "COLLECTED_AFTER", gc.get_threshold()))  # earlier commits have Python's
    with tempfile.TemporaryDirectory() as folder, _database(options.on, Path(folder)) as location:
        return asyncio.run(_measure(Path(folder), location, options))


async def _measure(folder: Path, location: str, options: argparse.Namespace) -> Rates:
    projection: Projection = TrackingProjection() if options.of == "points" else RegistryProjection()
    types = tracking.EVENTS if options.of == "points" else registry.EVENTS
    rates: Rates = {}
    async with _nats(folder / "nats") as server, open_log(server.address, types) as log:
        await (fill_points if options.of == "points" else fill_moves)(log, options)
        events = await log.head()
        with _timed("read/s", events, rates):
            async with aclosing(replay(log, 0, events)) as batches:
                async for _ in batches:
                    pass
        tail = Tail(log)
        await tail.start()
        projector = Projector(tail, projection, Database(location))
        with _timed("rows/s", events, rates):
            await projector.start()
        with _timed("rebuilt/s", events, rates):
            async with aclosing(projector.rebuild()) as steps:
                async for _ in steps:
                    pass
        await projector.stop()
        await tail.stop()
    rates["MB at most"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return rates


async def fill_points(log: JetStreamStore, options: argparse.Namespace) -> None:
    """Append points, one event each or several, by runs and metrics in turn."""
    run_ids = [f"{number:032x}" for number in range(options.runs)]
    await log.append([_event("experiments", v1.ExperimentCreated(experiment_id="1", name="bench"))])
    for run_id in run_ids:
        await log.append([_event(f"run/{run_id}", v1.RunStarted(run_id=run_id, experiment_id="1"))])
    size = min(APPEND_EVENTS, APPEND_POINTS // options.points_each)
    for first in range(0, options.events, size):
        numbers = range(first, min(first + size, options.events))
        await log.append([_points(run_ids, number, options) for number in numbers])


def _points(run_ids: list[str], number: int, options: argparse.Namespace) -> NewEvent:
    """Return points of runs and metrics in turn, so that neighbours in the log are of different series."""
    run_id, turn = run_ids[number % len(run_ids)], number // len(run_ids)
    first = turn // options.metrics * options.points_each
    steps = np.arange(first, first + options.points_each)
    points = Points(steps, 1_700_000_000_000 + steps * 100, np.exp(-steps / 1e6))
    logged = v1.MetricsLogged(run_id=run_id, series=[pack(f"metric {turn % options.metrics}", points)])
    return _event(f"metrics/{run_id}", logged)


async def fill_moves(log: JetStreamStore, options: argparse.Namespace, together: int = 1) -> None:
    """Append moves of the models' aliases in turn, so many in one append."""
    for number in range(options.models):
        model = f"model-{number}"
        versions = [v1.VersionRegistered(model=model, version=n, digest=_digest(n)) for n in range(1, VERSIONS + 1)]
        await log.append([_event(f"model/{model}", event) for event in (v1.ModelCreated(model=model), *versions)])
    for first in range(0, options.events, APPEND_MOVES):
        moves = [_move(number, options) for number in range(first, min(first + APPEND_MOVES, options.events))]
        appends = [moves[begin : begin + together] for begin in range(0, len(moves), together)]
        await asyncio.gather(*map(log.append, appends))


def _move(number: int, options: argparse.Namespace) -> NewEvent:
    model, turn = f"model-{number % options.models}", number // options.models
    before, after = turn % VERSIONS, (turn + 1) % VERSIONS
    moved = v1.AliasMoved(
        model=model,
        alias="champion",
        from_version=before + 1,
        from_digest=_digest(before + 1),
        to_version=after + 1,
        to_digest=_digest(after + 1),
        cause=v1.ALIAS_CAUSE_REQUEST,
    )
    return _event(f"model/{model}", moved)


def _digest(number: int) -> str:
    return f"sha256:{number:064x}"


def _event(stream: str, data: Message) -> NewEvent:
    event_id = uuid.uuid4().hex
    metadata = Metadata("bench", request_id=uuid.uuid4().hex, request_digest=uuid.uuid4().hex * 2)
    return NewEvent(stream, data, metadata, event_id, event_id)


@contextmanager
def _timed(what: str, events: int, rates: Rates) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    rates[what] = events / (time.perf_counter() - begun)


@asynccontextmanager
async def _nats(home: Path) -> AsyncIterator[EmbeddedNats]:
    server = EmbeddedNats(home)
    await server.start()
    try:
        yield server
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
