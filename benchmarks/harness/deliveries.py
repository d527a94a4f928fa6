"""The figures of numbered deliveries: how many arrived, how often, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.harness.figures import Figure


def verdict(scene: str, line: str, system: str, sent: int, arrived: Sequence[int]) -> Iterator[Figure]:
    """Yield the figures of deliveries 1 to `sent`, given their numbers in the order of their arrival."""
    first = list(dict.fromkeys(arrived))
    late = sum(number < max(first[:place]) for place, number in enumerate(first) if place)
    figures = {
        f"delivered of {sent}": len(first),
        "out of order": late,
        "repeated": len(arrived) - len(first),
        f"last heard, {sent} is true": first[-1] if first else 0,
    }
    for unit, value in figures.items():
        yield Figure(scene, line, system, unit, (float(value),))
