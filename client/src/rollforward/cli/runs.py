"""The commands about runs."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.comparing import compare
from rollforward.cli.experiments import named
from rollforward.cli.metrics import metrics
from rollforward.cli.options import (
    DEFAULTS,
    Deleted,
    Experiments,
    Filter,
    Keys,
    Limit,
    Options,
    OrderBy,
    Pairs,
    Reason,
    RequestId,
    RunId,
    examples,
    pairs_of,
)
from rollforward.cli.run_tables import run_facts, runs_table
from rollforward.cli.watching_runs import watch

app: Final = App(
    name="runs", help="Runs: list, show, compare, watch, metrics, rename, describe, tag, untag, delete, restore."
)
for _command in (compare, watch, metrics):
    app.command(_command)


@app.command(
    name="list",
    help_epilogue=examples(
        "runs list",
        "runs list --experiment fraud --filter \"metrics.auc > 0.9 AND tags.team = 'risk'\" --order-by start_time",
    ),
)
def list_runs(
    *,
    experiment: Experiments = (),
    where: Annotated[
        Filter, Parameter(name="--filter", help="Such as \"metrics.auc > 0.9 AND tags.team = 'risk'\".")
    ] = "",
    order_by: Annotated[OrderBy, Parameter(help='Such as "metrics.auc DESC".')] = "",
    deleted: Deleted = False,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List runs, newest first or in the order asked for."""
    options.connect()
    found = rf.search_runs(
        [named(one) for one in experiment],
        where,
        order_by=order_by,
        lifecycle="all" if deleted else "active",
        limit=limit,
    )
    options.show(found, lambda: runs_table(found))


@app.command(help_epilogue=examples("runs show 5f0c0f6d4a8e4f5b9d5a3a1f0c9b7e21 -o json"))
def show(run: RunId, /, *, options: Options = DEFAULTS) -> None:
    """Show one run: parameters, tags, metrics, datasets, logged models, artifacts."""
    options.connect()
    _show(run, options)


@app.command(help_epilogue=examples("runs rename RUN_ID 'deeper trees'"))
def rename(
    run: RunId,
    new_name: Annotated[str, Parameter(name="NEW-NAME", help="The name from now on.")],
    /,
    *,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Give a run another name."""
    options.connect()
    rf.rename_run(run, new_name, request_id=request_id)
    _show(run, options)


@app.command(help_epilogue=examples("runs describe RUN_ID 'Trees of depth 7 on a year of payments'"))
def describe(
    run: RunId,
    text: Annotated[str, Parameter(help="The description from now on.")],
    /,
    *,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Describe a run otherwise."""
    options.connect()
    rf.describe_run(run, text, request_id=request_id)
    _show(run, options)


@app.command(help_epilogue=examples("runs tag RUN_ID team=risk checked=yes"))
def tag(
    run: RunId,
    /,
    *tags: Pairs,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set tags of a run; its other tags stay."""
    chosen = pairs_of(tags)
    options.connect()
    rf.set_run_tags(run, chosen, request_id=request_id)
    _show(run, options)


@app.command(help_epilogue=examples("runs untag RUN_ID checked"))
def untag(
    run: RunId,
    /,
    *keys: Keys,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Remove tags of a run."""
    options.connect()
    rf.remove_run_tags(run, keys, request_id=request_id)
    _show(run, options)


@app.command(help_epilogue=examples("runs delete RUN_ID --reason 'the data was wrong'"))
def delete(run: RunId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS) -> None:
    """Delete a run; its history stays, and it can be restored."""
    options.connect()
    rf.delete_run(run, reason=reason, request_id=request_id)
    _show(run, options)


@app.command(help_epilogue=examples("runs restore RUN_ID"))
def restore(run: RunId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS) -> None:
    """Restore a deleted run."""
    options.connect()
    rf.restore_run(run, reason=reason, request_id=request_id)
    _show(run, options)


def _show(run_id: str, options: Options) -> None:
    found = rf.get_run(run_id)
    options.show(found, lambda: run_facts(found))
