"""A text chart of a metric: a column for each interval, from its minimum to its maximum, with its mean."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

from rollforward.cli.output.tables import number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollforward.tracking.metrics import MetricIntervals

_LINES: Final = 12


def chart(series: MetricIntervals, first: str, last: str) -> str:
    """Return a chart with a column per interval; `first` and `last` label its ends."""
    bottom, top = _range(series)
    if math.isnan(bottom):
        return "no finite values"
    columns = _columns(series, bottom, top)
    names = [""] * _LINES
    names[0], names[-1] = number(top), number(bottom)
    width = max(map(len, names))
    lines = [
        f"{name:>{width}} {_axis()}{''.join(column[at] for column in columns).rstrip()}"
        for at, name in enumerate(names)
    ]
    gap = max(1, series.intervals - len(first) - len(last))
    return "\n".join([*lines, f"{'':{width}}  {first}{' ' * gap}{last}"])


def _range(series: MetricIntervals) -> tuple[float, float]:
    finite = [value for value in (*series.min, *series.max) if math.isfinite(value)]
    return (min(finite), max(finite)) if finite else (math.nan, math.nan)


def _columns(series: MetricIntervals, bottom: float, top: float) -> Sequence[Sequence[str]]:
    span, point = ("│", "•") if _unicode() else ("|", "*")
    columns = [[" "] * _LINES for _ in range(series.intervals)]
    for at, minimum, maximum, mean in zip(series.numbers, series.min, series.max, series.mean, strict=True):
        if math.isnan(minimum):
            continue
        low, high = _line(minimum, bottom, top), _line(maximum, bottom, top)
        for line in range(high, low + 1):
            columns[at][line] = span
        # Infinities of both signs have no mean.
        middle = (low + high) // 2 if math.isnan(mean) else _line(mean, bottom, top)
        columns[at][middle] = point
    return columns


def _line(value: float, bottom: float, top: float) -> int:
    """Return the line of a value, from the top; it halves values because their difference may overflow."""
    span = top / 2 - bottom / 2
    if not span:
        return _LINES // 2
    share = (min(max(value, bottom), top) / 2 - bottom / 2) / span
    return _LINES - 1 - round(share * (_LINES - 1))


def _axis() -> str:
    return "┤" if _unicode() else "|"


def _unicode() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")
