"""The `runs metrics` command."""

from __future__ import annotations

import csv
import shutil
import sys
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

import rollforward as rf
from rollforward.cli.identifiers import run_id
from rollforward.cli.options import DEFAULTS, Options, RunId, flag
from rollforward.cli.output.documents import milliseconds
from rollforward.cli.output.failures import UsageError
from rollforward.cli.output.tables import number, print_json, safe
from rollforward.cli.tracking.metric_chart import chart

_LABEL_COLUMNS: Final = 16
_MAX_INTERVALS: Final = 200


def metrics(
    run: RunId,
    key: Annotated[str, Parameter(name="METRIC", help="The metric's name.")],
    /,
    *,
    axis: Annotated[
        Literal["step", "time"], Parameter(metavar="AXIS", help="The chart's axis: step or time.")
    ] = "step",
    intervals: Annotated[
        int | None,
        Parameter(
            metavar="N", validator=Number(gte=1), help="Number of intervals; default as many as fit the terminal."
        ),
    ] = None,
    as_csv: Annotated[bool, flag("Print all points as CSV: step,time,value.", name="--csv")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Draw a chart of a run's metric: minimum, maximum and mean per interval."""
    if as_csv and options.json:
        raise UsageError("--csv and -o json cannot be combined: use one of them")
    options.connect()
    run = run_id(run)
    if as_csv:
        _print_points(run, key)
        return
    if intervals is None:
        intervals = min(_MAX_INTERVALS, max(20, shutil.get_terminal_size().columns - _LABEL_COLUMNS))
    series = rf.metric_intervals(run, key, intervals, axis=axis)
    if not series:
        raise rf.NotFound("METRIC_NOT_FOUND", f"run {run} has no metric {key!r}", {"run_id": run, "key": key})
    if options.json:
        print_json(_plain(series[0], axis))
        return
    summary = rf.get_run(run).metrics[key]
    extremes = f"min {number(summary.min)}, max {number(summary.max)}, {summary.count} points"
    print(safe(f"{key}: last {number(summary.last)} at step {summary.last_step}, {extremes}"))
    print(chart(series[0], *(_axis_label(place, axis) for place in (series[0].start, series[0].end))))


def _print_points(run: str, key: str) -> None:
    lines = csv.writer(sys.stdout, lineterminator="\n")
    for at, page in enumerate(rf.metric_points(run, key)):
        if not at:  # print no header if the call fails
            lines.writerow(("step", "time", "value"))
        lines.writerows(zip(page.steps, map(milliseconds, page.timestamps), page.values, strict=True))


def _plain(series: rf.MetricIntervals, axis: str) -> dict[str, object]:
    fields = {**series._asdict(), "axis": axis}
    if axis == "time":
        fields |= {"start": milliseconds(series.start), "end": milliseconds(series.end)}
    return fields


def _axis_label(place: int, axis: str) -> str:
    if axis == "step":
        return str(place)
    shown = milliseconds(place)
    # A time out of range stays a number.
    return f"{shown} ms" if isinstance(shown, int) else f"{shown.partition('.')[0]}Z"
