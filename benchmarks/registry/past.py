"""Resolves of an alias at past positions of a log with 100,000 moves, and of its present."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from benchmarks.harness.contract import Client, Endpoint
from benchmarks.harness.crew import Task, crew
from benchmarks.harness.figures import Figure, Round, calls, percentile
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems import history
from benchmarks.systems.names import OURS
from benchmarks.systems.ours import SdkClient

MOVES = 100_000
_STRIDE = 7919  # a prime: the positions asked for are all over the log


def now(client: Client, number: int, call: int) -> None:
    """Ask about the present."""
    del number
    client.resolve(history.MODELS[call % 2], history.ALIASES[call // 2 % 2])


def then(client: Client, number: int, call: int) -> None:
    """Ask about the same alias at some position."""
    del number
    first = history.first()
    position = first + call * _STRIDE % (history.head(MOVES) - first)
    cast("SdkClient", client).resolve_at(history.MODELS[call % 2], history.ALIASES[call // 2 % 2], position)


def write_data(data: Path) -> None:
    """Write the log."""
    history.write(data, MOVES)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one client that reads the present and one that reads the past, by turns."""
    rounds: dict[Task, list[Round]] = {now: [], then: []}
    with crew(endpoint, 1) as one:
        for _ in range(options.rounds):
            for task in rounds:
                rounds[task] += one.rounds(task, options.seconds, 1)
    yield from calls("past", "now", system, rounds[now])
    yield from calls("past", f"as of, {MOVES:,} moves", system, rounds[then])
    medians = {task: [percentile(one.durations, 0.5) for one in measured] for task, measured in rounds.items()}
    ratios = tuple(past / present for past, present in zip(medians[then], medians[now], strict=True))
    yield Figure("past", "as of / now", system, "x at p50", ratios)


SCENE = Scene(
    "past", f"a resolve as of a position among {MOVES:,} moves, beside a present one", OURS[:1], measure, write_data
)
