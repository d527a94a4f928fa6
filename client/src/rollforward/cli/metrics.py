"""The command that shows a metric's points."""

from __future__ import annotations

import csv
import shutil
import sys
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from cyclopts import Parameter

import rollforward as rf
from rollforward.cli.charts import chart
from rollforward.cli.failures import UsageError
from rollforward.cli.options import DEFAULTS, Options, RunId
from rollforward.cli.output import number, print_json, safe

_LABEL_COLUMNS: Final = 16
_WIDEST: Final = 200


def metrics(
    run: RunId,
    key: Annotated[str, Parameter(name="METRIC", help="Its name.")],
    /,
    *,
    axis: Annotated[Literal["step", "time"], Parameter(help="What the chart is drawn over.")] = "step",
    intervals: Annotated[int | None, Parameter(help="How many; default as many as the terminal has room for.")] = None,
    as_csv: Annotated[
        bool, Parameter(name="--csv", negative="", help="All points instead, as CSV: step,timestamp,value.")
    ] = False,
    options: Options = DEFAULTS,
) -> None:
    """Draw a metric of a run: in each interval from its least to its greatest value, with its mean.

    For example:

        rollforward runs metrics RUN_ID loss
        rollforward runs metrics RUN_ID loss --axis time --intervals 50 -o json
        rollforward runs metrics RUN_ID loss --csv > loss.csv
    """
    if as_csv and options.json:
        raise UsageError("metrics prints CSV or JSON")
    options.connect()
    if as_csv:
        _print_points(run, key)
        return
    if intervals is None:
        intervals = min(_WIDEST, max(20, shutil.get_terminal_size().columns - _LABEL_COLUMNS))
    found = rf.metric_intervals(run, key, intervals, axis=axis)
    if not found:
        raise rf.NotFound("METRIC_NOT_FOUND", f"run {run} has no metric {key!r}", {"run_id": run, "key": key})
    if options.json:
        print_json({**found[0]._asdict(), "axis": axis})
        return
    summary = rf.get_run(run).metrics[key]
    extremes = f"min {number(summary.min)}, max {number(summary.max)}, {summary.count} points"
    print(safe(f"{key}: last {number(summary.last)} at step {summary.last_step}, {extremes}"))
    print(chart(found[0], *(_place(place, axis) for place in (found[0].start, found[0].end))))


def _print_points(run: str, key: str) -> None:
    lines = csv.writer(sys.stdout, lineterminator="\n")
    for at, page in enumerate(rf.metric_points(run, key)):
        if not at:  # what is refused prints nothing
            lines.writerow(("step", "timestamp", "value"))
        lines.writerows(zip(*page, strict=True))


def _place(place: int, axis: str) -> str:
    if axis == "step":
        return str(place)
    try:
        return datetime.fromtimestamp(place / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        # A job may have logged any number as a time.
        return f"{place} ms"
