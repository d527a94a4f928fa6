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
    experiments = rf.list_experiments(
        filter=where, order_by=order_by, lifecycle="all" if deleted else "active", limit=limit
    )
    options.show(experiments, lambda: _experiments(experiments))


@app.command(help_epilogue=examples("experiments show fraud", "experiments show id:7 --limit 5 -o json"))
def show(experiment: Name, /, *, limit: Limit = 20, options: Options = DEFAULTS) -> None:
    """Show an experiment, and its newest runs."""
    options.connect()
    shown = experiment_named(experiment)
    runs = rf.search_runs(shown, lifecycle="all" if shown.deleted else "active", limit=limit)
    if options.json:
        print_json({**plain(shown), "runs": [plain_run(run, shown.name) for run in runs]})
        return
    table = runs_table(runs, {shown.experiment_id: shown.name}, wide=options.wide)
    print_table(Group(_details(shown), "", table), wide=options.wide)


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
    renamed = experiment_named(experiment)
    rf.rename_experiment(renamed, new_name, reason=reason, request_id=request_id)
    _show(renamed.experiment_id, options)


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
    changes = read_pairs(tags)
    options.connect()
    tagged = experiment_named(experiment)
    rf.set_experiment_tags(tagged, changes, reason=reason, request_id=request_id)
    _show(tagged.experiment_id, options)


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
    untagged = experiment_named(experiment)
    rf.remove_experiment_tags(untagged, keys, reason=reason, request_id=request_id)
    _show(untagged.experiment_id, options)


@app.command(help_epilogue=examples("experiments delete fraud --reason 'card-fraud took over'"))
def delete(
    experiment: Name, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Delete an experiment with its runs and logged models; the history stays, and it can be restored."""
    options.connect()
    deleted = experiment_named(experiment)
    rf.delete_experiment(deleted, reason=reason, request_id=request_id)
    _show(deleted.experiment_id, options)


@app.command(help_epilogue=examples("experiments restore fraud", "experiments restore id:7"))
def restore(
    experiment: Name, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Restore a deleted experiment; if several have the name, the one deleted last."""
    options.connect()
    restored = experiment_named(experiment)
    rf.restore_experiment(restored, reason=reason, request_id=request_id)
    _show(restored.experiment_id, options)


def _show(experiment_id: str, options: Options) -> None:
    experiment = rf.get_experiment(experiment_id=experiment_id)
    options.show(experiment, lambda: _details(experiment))


def _experiments(experiments: Sequence[v1.Experiment]) -> RenderableType:
    rows = [
        (
            experiment.name + (" (deleted)" if experiment.deleted else ""),
            experiment.experiment_id,
            moment(experiment.created_at),
            moment(experiment.updated_at),
            experiment.actor,
            labels(experiment.tags),
        )
        for experiment in experiments
    ]
    return grid(("NAME", "ID>", "CREATED", "UPDATED", "ACTOR", "TAGS"), rows, empty="no experiments match")


def _details(experiment: v1.Experiment) -> RenderableType:
    return pairs(
        {"experiment": experiment.name, "id": experiment.experiment_id, "tags": labels(experiment.tags)}
        | {
            "created": f"{moment(experiment.created_at)} by {experiment.actor}",
            "updated": moment(experiment.updated_at),
        }
        | {"deleted": "yes" if experiment.deleted else ""}
    )
