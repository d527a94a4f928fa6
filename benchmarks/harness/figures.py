"""Figures: the measurements of rounds, and their median."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One system's value of one line of a scene: the median of its rounds; `line` names the measurement."""

    scene: str
    line: str
    system: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def value(self) -> float:
        """Return the median round."""
        return statistics.median(self.rounds)

    def as_json(self) -> dict[str, Any]:
        """Return the figure as an object for JSON."""
        return {**asdict(self), "value": self.value}


@dataclass(frozen=True, slots=True)
class Round:
    """One round of calls: its duration and that of each call, in seconds."""

    seconds: float
    durations: Sequence[float]
    failures: int = 0

    @property
    def rate(self) -> float:
        """Return the calls a second."""
        return len(self.durations) / self.seconds


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def calls(scene: str, line: str, system: str, rounds: Sequence[Round]) -> list[Figure]:
    """Return the figures of rounds of calls: calls a second, p50 and p99 in milliseconds, and failures if any."""
    figures = [
        Figure(scene, line, system, "/s", tuple(one.rate for one in rounds)),
        *latencies(scene, line, system, [one.durations for one in rounds]),
    ]
    if any(one.failures for one in rounds):
        figures.append(Figure(scene, line, system, "failed", tuple(float(one.failures) for one in rounds)))
    return figures


def latencies(scene: str, line: str, system: str, rounds: Sequence[Sequence[float]]) -> list[Figure]:
    """Return the p50 and p99, in milliseconds, of rounds of durations in seconds."""
    return [
        Figure(scene, line, system, f"p{share} ms", tuple(percentile(one, share / 100) * 1e3 for one in rounds))
        for share in (50, 99)
    ]
