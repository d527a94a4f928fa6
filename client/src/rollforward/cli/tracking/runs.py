"""The `runs` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.identifiers import experiment_named, experiment_names, run_id
from rollforward.cli.options import (
    DEFAULTS,
    Deleted,
    Experiments,
    Filter,
    Keys,
    Limit,
    NewName,
    NewText,
    Options,
    OrderBy,
    Pairs,
    Reason,
    RequestId,
    RunId,
    examples,
    flag,
    read_pairs,
)
from rollforward.cli.output.tables import plain_run, print_json, print_table
from rollforward.cli.tracking.compare import compare
from rollforward.cli.tracking.metrics import metrics
from rollforward.cli.tracking.run_tables import run_details, runs_table
from rollforward.cli.tracking.watch_runs import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rollforward import v1

app: Final = App(name="runs", help="Find, compare, watch and change runs.")
app.command(
    compare,
    help_epilogue=examples(
        "runs compare RUN RUN RUN",
        "runs compare --experiment fraud --filter \"status = 'finished'\" --order-by 'metrics.auc DESC'",
        "runs compare --experiment fraud --limit 100 --equal --csv > fraud.csv",
    ),
)
app.command(
    watch,
    help_epilogue=examples(
        "runs watch RUN",
        "runs watch --experiment fraud",
        "runs watch --experiment fraud --after 1742 --no-metrics -o json",
    ),
)
app.command(
    metrics,
    help_epilogue=examples(
        "runs metrics RUN loss",
        "runs metrics RUN loss --axis time --intervals 50 -o json",
        "runs metrics RUN loss --csv > loss.csv",
    ),
)


@app.command(
    name="list",
    help_epilogue=examples(
        "runs list",
        "runs list --experiment fraud --filter \"metrics.auc > 0.9 AND tags.team = 'risk'\" --order-by started_at",
        "runs list --filter \"status = 'failed' AND started_at > '2026-11-30T00:00Z'\" -o wide",
    ),
)
def list_runs(
    *,
    experiment: Experiments = (),
    where: Annotated[
        Filter,
        Parameter(name="--filter", metavar="FILTER", help="Such as \"metrics.auc > 0.9 AND tags.team = 'risk'\"."),
    ] = "",
    order_by: Annotated[OrderBy, Parameter(metavar="FIELD", help='Such as "metrics.auc DESC".')] = "",
    deleted: Deleted = False,
    packages: Annotated[bool, flag("With -o json, include each run's installed packages.")] = False,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List runs, newest first or in the given order."""
    options.connect()
    runs = rf.search_runs(
        [experiment_named(name) for name in experiment],
        where,
        order_by=order_by,
        lifecycle="all" if deleted else "active",
        limit=limit,
    )
    show_runs(runs, options, packages=packages)


@app.command(help_epilogue=examples("runs show cd83fa2c", "runs show 5f0c0f6d4a8e4f5b9d5a3a1f0c9b7e21 -o json"))
def show(run: RunId, /, *, options: Options = DEFAULTS) -> None:
    """Show a run: its parameters, tags, metrics, datasets, logged models and artifacts."""
    options.connect()
    _show(run_id(run), options)


@app.command(help_epilogue=examples("runs rename RUN 'deeper trees'"))
def rename(
    run: RunId,
    new_name: NewName,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Rename a run."""
    _change(run, options, lambda run_id: rf.rename_run(run_id, new_name, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("runs describe RUN 'Trees of depth 7 on a year of payments'"))
def describe(
    run: RunId,
    text: NewText,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Change a run's description."""
    _change(run, options, lambda run_id: rf.describe_run(run_id, text, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("runs tag RUN team=risk checked=yes"))
def tag(
    run: RunId,
    /,
    *tags: Pairs,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set tags of a run; its other tags stay."""
    changes = read_pairs(tags)
    _change(run, options, lambda run_id: rf.set_run_tags(run_id, changes, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("runs untag RUN checked"))
def untag(
    run: RunId,
    /,
    *keys: Keys,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Remove tags of a run."""
    _change(run, options, lambda run_id: rf.remove_run_tags(run_id, keys, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("runs delete RUN --reason 'the data was wrong'"))
def delete(run: RunId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS) -> None:
    """Delete a run; the history stays, and it can be restored."""
    _change(run, options, lambda run_id: rf.delete_run(run_id, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("runs restore RUN"))
def restore(run: RunId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS) -> None:
    """Restore a deleted run."""
    _change(run, options, lambda run_id: rf.restore_run(run_id, reason=reason, request_id=request_id))


def show_runs(runs: Sequence[v1.Run], options: Options, *, packages: bool = False) -> None:
    """Print runs, with the names of their experiments."""
    names = experiment_names([run.experiment_id for run in runs])
    if options.json:
        print_json([plain_run(run, names[run.experiment_id], packages=packages) for run in runs])
    else:
        print_table(runs_table(runs, names, wide=options.wide), wide=options.wide)


def _change(run: str, options: Options, change: Callable[[str], None]) -> None:
    options.connect()
    found_id = run_id(run)
    change(found_id)
    _show(found_id, options)


def _show(run: str, options: Options) -> None:
    stored = rf.get_run(run)
    name = experiment_names([stored.experiment_id])[stored.experiment_id]
    options.show(plain_run(stored, name, packages=True), lambda: run_details(stored, name))
