"""The commands about experiments and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.options import DEFAULTS, Limit, Options, examples
from rollforward.cli.output import grid, moment, number, pairs, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

experiments: Final = App(name="experiments", help="Experiments: list.")
app: Final = App(name="runs", help="Runs: list, show, compare.")

RunId = Annotated[str, Parameter(help="The run's id, as `runs list` shows it.")]


@experiments.command(name="list", help_epilogue=examples("experiments list"))
def list_experiments(*, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """List experiments, newest first."""
    options.connect()
    found = rf.list_experiments(limit=limit)
    options.show(found, lambda: _experiments(found))


@app.command(name="list", help_epilogue=examples("runs list", "runs list --experiment fraud --limit 20 -o json"))
def list_runs(
    *,
    experiment: Annotated[str | None, Parameter(help="One experiment, by name.")] = None,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List runs, newest first."""
    options.connect()
    found = rf.list_runs(experiment, limit=limit)
    options.show(found, lambda: _runs(found))


@app.command(help_epilogue=examples("runs show 5f0c0f6d4a8e4f5b9d5a3a1f0c9b7e21 -o json"))
def show(run: RunId, /, *, options: Options = DEFAULTS) -> None:
    """Show one run: parameters, tags, metrics, artifacts."""
    options.connect()
    found = rf.get_run(run)
    options.show(found, lambda: _run(found))


@app.command(help_epilogue=examples("runs compare RUN_ID RUN_ID RUN_ID"))
def compare(first: RunId, second: RunId, /, *others: RunId, options: Options = DEFAULTS) -> None:
    """Show runs side by side: their parameters and the last value of each metric."""
    options.connect()
    found = [rf.get_run(run) for run in (first, second, *others)]
    options.show(found, lambda: _side_by_side(found))


def _experiments(found: Sequence[v1.Experiment]) -> RenderableType:
    rows = [(one.name, one.experiment_id, moment(one.created_at), one.actor) for one in found]
    return grid(("NAME", "EXPERIMENT", "CREATED", "BY"), rows)


def _runs(found: Sequence[v1.Run]) -> RenderableType:
    rows = []
    for run in found:
        metrics = " ".join(f"{key}={number(run.metrics[key].last)}" for key in sorted(run.metrics))
        rows.append((run.run_id, run.name, _status(run), moment(run.start_time), metrics))
    return grid(("RUN", "NAME", "STATUS", "STARTED", "METRICS"), rows)


def _run(run: v1.Run) -> RenderableType:

    facts = pairs(
        {"run": run.run_id, "name": run.name, "status": _status(run), "by": run.actor}
        | {"started": moment(run.start_time), "ended": moment(run.end_time)}
    )
    labels = [("param", key, run.params[key]) for key in sorted(run.params)]
    labels += [("tag", key, run.tags[key]) for key in sorted(run.tags)]
    metrics = [
        (key, number(one.last), str(one.last_step), number(one.min), number(one.max), str(one.count))
        for key, one in sorted(run.metrics.items())
    ]
    artifacts = [(one.path or "/", str(one.file_count), str(one.size_bytes), one.digest) for one in run.artifacts]
    tables = (
        (("KIND", "KEY", "VALUE"), labels),
        (("METRIC", "LAST>", "STEP>", "MIN>", "MAX>", "POINTS>"), metrics),
        (("ARTIFACT", "FILES>", "BYTES>", "DIGEST"), artifacts),
    )
    return Group(facts, *(part for headers, rows in tables if rows for part in ("", grid(headers, rows))))


def _side_by_side(runs: Sequence[v1.Run]) -> RenderableType:
    params = sorted({key for run in runs for key in run.params})
    metrics = sorted({key for run in runs for key in run.metrics})
    rows = [
        ("run", *(run.run_id[:8] for run in runs)),
        ("status", *(_status(run) for run in runs)),
        *((key, *(run.params.get(key, "-") for run in runs)) for key in params),
        *((key, *(_last(run, key) for run in runs)) for key in metrics),
    ]
    return grid(("", *(run.name for run in runs)), rows)


def _last(run: v1.Run, key: str) -> str:
    return number(run.metrics[key].last) if key in run.metrics else "-"


def _status(run: v1.Run) -> str:
    return word(rf.v1.RunStatus.Name(run.status), "RUN_STATUS_")
