"""Application of changes to runs: summaries cover all points, however they are split into changes."""

from __future__ import annotations

import math
from array import array
from functools import cmp_to_key

from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from rollforward._series import pack
from rollforward.tracking.run_changes import apply_change, points_of

RUN = "a" * 32
Point = tuple[int, int, float]
POINT = st.tuples(st.integers(-1, 2), st.integers(0, 1), st.sampled_from([math.nan, -math.inf, -1.0, 0.5, math.inf]))


def logged(key: str, points: list[Point]) -> v1.RunChange:
    """Return a change that logs points."""
    columns = [array(code, column) for code, column in zip("qqd", zip(*points, strict=True), strict=True)]
    return v1.RunChange(run_id=RUN, metrics=v1.MetricsLogged(run_id=RUN, series=[pack(key, *columns)]))


def later(one: Point, other: Point) -> int:
    """Return the sort key of a point: step, time, value, with NaN lowest."""
    mine, yours = [
        (step, time, not math.isnan(value), 0.0 if math.isnan(value) else value) for step, time, value in (one, other)
    ]
    return (mine > yours) - (mine < yours)


@given(st.lists(st.lists(POINT, min_size=1, max_size=4), min_size=1, max_size=5))
def test_summary_covers_all_points(batches: list[list[Point]]) -> None:
    runs = {RUN: v1.Run(run_id=RUN)}
    for batch in batches:
        apply_change(runs, logged("loss", batch))
    points = [point for batch in batches for point in batch]
    step, time, value = max(points, key=cmp_to_key(later))
    numbers = [point[2] for point in points if not math.isnan(point[2])] or [math.nan]
    expected = v1.MetricSummary(
        last=value, last_step=step, last_timestamp=time, min=min(numbers), max=max(numbers), count=len(points)
    )
    assert str(runs[RUN].metrics["loss"]) == str(expected)  # as text, because NaN is not equal to NaN


def test_series_of_one_metric_are_merged() -> None:
    change = logged("loss", [(0, 0, 1.0)])
    change.metrics.series.extend(logged("loss", [(1, 0, 2.0)]).metrics.series)
    change.metrics.series.extend(logged("acc", [(0, 0, 3.0)]).metrics.series)
    assert {key: list(points.values) for key, points in points_of(change).items()} == {"loss": [1.0, 2.0], "acc": [3.0]}


def test_changes_of_unknown_runs_and_kinds_are_ignored() -> None:
    runs: dict[str, v1.Run] = {}
    apply_change(runs, logged("loss", [(0, 0, 1.0)]))
    assert runs == {}
    apply_change(runs, v1.RunChange(run_id=RUN, started=v1.RunStarted(run_id=RUN, name="n", scheduled=True)))
    apply_change(runs, v1.RunChange(run_id=RUN, position=9))
    assert (runs[RUN].name, runs[RUN].status) == ("n", v1.RUN_STATUS_SCHEDULED)
