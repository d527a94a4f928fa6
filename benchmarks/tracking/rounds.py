"""Rounds of calls, with a counted cost of each call."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.harness.crew import Crew, Task
from benchmarks.harness.figures import Round
from benchmarks.harness.scene import Options

_WARM_UP = 1.0  # seconds


def measured(
    several: Crew, task: Task, options: Options, count: Callable[[], float]
) -> tuple[list[Round], list[float]]:
    """Run rounds after a warm-up round; return them, and by how much `count` grew in each, per call."""
    several.round(task, _WARM_UP)
    rounds, costs = [], []
    for _ in range(options.rounds):
        before = count()
        one = several.round(task, options.seconds)
        rounds.append(one)
        costs.append((count() - before) / max(len(one.durations), 1))
    return rounds, costs
