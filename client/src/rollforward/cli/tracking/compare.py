"""The `runs compare` command."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward._printable import csv_cell
from rollforward.cli.identifiers import experiment_named, run_ids
from rollforward.cli.options import DEFAULTS, Experiments, Filter, Limit, Options, OrderBy, flag
from rollforward.cli.output.failures import UsageError
from rollforward.cli.output.tables import grid, number, short_id
from rollforward.cli.output.truncation import truncated
from rollforward.cli.tracking.run_tables import NO_RUNS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from rollforward import v1

_SUMMARY = ("last", "min", "max", "count")


def compare(
    *runs: Annotated[str, Parameter(name="RUN", help="Runs by id, a unique prefix of it, or a unique name.")],
    experiment: Experiments = (),
    where: Annotated[
        Filter,
        Parameter(
            name="--filter", metavar="FILTER", help='Compare matching runs instead, such as "metrics.auc > 0.9".'
        ),
    ] = "",
    order_by: Annotated[OrderBy, Parameter(metavar="FIELD", help='Such as "metrics.auc DESC".')] = "",
    limit: Limit = 10,
    equal: Annotated[bool, flag("Include equal parameters and attributes.")] = False,
    as_csv: Annotated[bool, flag("Print CSV, a line for each run.", name="--csv")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Compare runs side by side: the parameters that differ, and each metric's last, minimum and maximum."""
    searched = bool(experiment or where or order_by)
    if searched == bool(runs):
        raise UsageError("expected either RUN ..., or --experiment, --filter or --order-by")
    if as_csv and options.json:
        raise UsageError("--csv and -o json cannot be combined: use one of them")
    options.connect()
    if searched:
        matching = rf.search_runs(
            [experiment_named(name) for name in experiment], where, order_by=order_by, limit=limit
        )
        compared = rf.side_by_side(matching, with_equal=equal)
    else:
        compared = rf.compare_runs(run_ids(runs), with_equal=equal)
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(map(_cells, _lines(compared)))
        return
    answer = {**compared._asdict(), "runs": [run.run_id for run in compared.runs]}
    options.show(answer, lambda: _side_by_side(compared))


def _cells(line: Sequence[object]) -> list[object]:
    # Negative numbers must not be escaped as formulas.
    return [csv_cell(value) if isinstance(value, str) and not _is_number(value) else value for value in line]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lines(compared: rf.RunsComparison) -> Iterator[list[object]]:
    fields = [*compared.attributes, *(one._replace(key=f"params.{one.key}") for one in compared.params)]
    metrics = [f"metrics.{one.key}.{part}" for one in compared.metrics for part in _SUMMARY]
    yield ["run_id", *(one.key for one in fields), *metrics]
    for at, run in enumerate(compared.runs):
        summaries = (one.summaries[at] for one in compared.metrics)
        values = [getattr(one, part) if one else None for one in summaries for part in _SUMMARY]
        yield [run.run_id, *(one.values[at] for one in fields), *values]


def _side_by_side(compared: rf.RunsComparison) -> RenderableType:
    if not compared.runs:
        return grid((), (), empty=NO_RUNS)
    rows: list[tuple[str, ...]] = [("run", *(short_id(run.run_id) for run in compared.runs))]
    rows += [(one.key, *(value or "-" for value in one.values)) for one in compared.attributes if one.key != "name"]
    rows += [(one.key, *("-" if value is None else value for value in one.values)) for one in compared.params]
    rows += [(one.key, *map(_measured, one.summaries)) for one in compared.metrics]
    return grid(("", *(run.name for run in compared.runs)), truncated(rows))


def _measured(summary: v1.MetricSummary | None) -> str:
    if summary is None:
        return "-"
    if summary.count == 1:
        return number(summary.last)
    return f"{number(summary.last)} ({number(summary.min)} to {number(summary.max)})"
