"""The `experiments` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.identifiers import experiment_named
from rollforward.cli.options import (
    DEFAULTS,
    Deleted,
    Filter,
    Keys,
    Limit,
    NewName,
    Options,
    OrderBy,
    Pairs,
    Reason,
    RequestId,
    Tags,
    examples,
    read_pairs,
)
from rollforward.cli.output.tables import grid, labels, moment, pairs, plain, plain_run, print_json, print_table
from rollforward.cli.tracking.run_tables import runs_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="experiments", help="Create, find and change experiments.")

Name = Annotated[str, Parameter(name="EXPERIMENT", help="The experiment's name, or id:NUMBER.")]


@app.command(
    name="list",
    help_epilogue=examples(
        "experiments list",
        "experiments list --filter \"name LIKE 'fraud%' AND tags.team = 'risk'\" --order-by 'updated_at DESC'",
    ),
)
def list_experiments(
    *,
    where: Filter = "",
    order_by: OrderBy = "",
    deleted: Deleted = False,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List experiments, newest first or in the given order."""
    options.connect()
    found = rf.list_experiments(filter=where, order_by=order_by, lifecycle="all" if deleted else "active", limit=limit)
    options.show(found, lambda: _experiments(found))


@app.command(help_epilogue=examples("experiments show fraud", "experiments show id:7 --limit 5 -o json"))
def show(experiment: Name, /, *, limit: Limit = 20, options: Options = DEFAULTS) -> None:
    """Show an experiment, and its newest runs."""
    options.connect()
    found = experiment_named(experiment)
    runs = rf.search_runs(found, lifecycle="all" if found.deleted else "active", limit=limit)
    if options.json:
        print_json({**plain(found), "runs": [plain_run(run, found.name) for run in runs]})
        return
    table = runs_table(runs, {found.experiment_id: found.name}, wide=options.wide)
    print_table(Group(_details(found), "", table), wide=options.wide)


@app.command(help_epilogue=examples("experiments create fraud --tag team=risk --tag tier=1"))
def create(
    name: Annotated[str, Parameter(name="NAME", help="The experiment's name.")],
    /,
    *,
    tag: Tags = (),
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Create an experiment; starting a run also creates it if it is missing."""
    tags = read_pairs(tag)
    options.connect()
    _show(rf.create_experiment(name, tags=tags, reason=reason, request_id=request_id), options)


@app.command(help_epilogue=examples("experiments rename fraud card-fraud"))
def rename(
    experiment: Name,
    new_name: NewName,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Rename an experiment; its old name becomes free."""
    options.connect()
    found = experiment_named(experiment)
    rf.rename_experiment(found, new_name, reason=reason, request_id=request_id)
    _show(found.experiment_id, options)


@app.command(help_epilogue=examples("experiments tag fraud team=risk tier=1"))
def tag(
    experiment: Name,
    /,
    *tags: Pairs,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set tags of an experiment; its other tags stay."""
    chosen = read_pairs(tags)
    options.connect()
    found = experiment_named(experiment)
    rf.set_experiment_tags(found, chosen, reason=reason, request_id=request_id)
    _show(found.experiment_id, options)


@app.command(help_epilogue=examples("experiments untag fraud tier"))
def untag(
    experiment: Name,
    /,
    *keys: Keys,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Remove tags of an experiment."""
    options.connect()
    found = experiment_named(experiment)
    rf.remove_experiment_tags(found, keys, reason=reason, request_id=request_id)
    _show(found.experiment_id, options)


@app.command(help_epilogue=examples("experiments delete fraud --reason 'card-fraud took over'"))
def delete(
    experiment: Name, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Delete an experiment with its runs and logged models; the history stays, and it can be restored."""
    options.connect()
    found = experiment_named(experiment)
    rf.delete_experiment(found, reason=reason, request_id=request_id)
    _show(found.experiment_id, options)


@app.command(help_epilogue=examples("experiments restore fraud", "experiments restore id:7"))
def restore(
    experiment: Name, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Restore a deleted experiment; if several have the name, the one deleted last."""
    options.connect()
    found = experiment_named(experiment)
    rf.restore_experiment(found, reason=reason, request_id=request_id)
    _show(found.experiment_id, options)


def _show(experiment_id: str, options: Options) -> None:
    found = rf.get_experiment(experiment_id=experiment_id)
    options.show(found, lambda: _details(found))


def _experiments(found: Sequence[v1.Experiment]) -> RenderableType:
    rows = [
        (
            one.name + (" (deleted)" if one.deleted else ""),
            one.experiment_id,
            moment(one.created_at),
            moment(one.updated_at),
            one.actor,
            labels(one.tags),
        )
        for one in found
    ]
    return grid(("NAME", "ID>", "CREATED", "UPDATED", "ACTOR", "TAGS"), rows, empty="no experiments match")


def _details(one: v1.Experiment) -> RenderableType:
    return pairs(
        {"experiment": one.name, "id": one.experiment_id, "tags": labels(one.tags)}
        | {"created": f"{moment(one.created_at)} by {one.actor}", "updated": moment(one.updated_at)}
        | {"deleted": "yes" if one.deleted else ""}
    )
