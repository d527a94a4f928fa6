"""The logged points, the same for every system: steps from 0, one time, one value."""

from __future__ import annotations

from array import array

from rollforward import v1

VALUE = 0.5


def packed(points: int) -> v1.Series:
    """Return a number of points, in columns."""
    steps, values = array("q", range(points)), array("d", [VALUE]) * points
    return v1.Series(key="loss", steps=steps.tobytes(), timestamps=bytes(8 * points), values=values.tobytes())
