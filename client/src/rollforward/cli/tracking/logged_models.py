"""The `logged-models` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.identifiers import experiment_named, experiment_names, logged_model_id
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
    examples,
    read_pairs,
)
from rollforward.cli.output.tables import enum_name, grid, moment, number, pairs, short_id
from rollforward.cli.output.truncation import truncated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="logged-models", help="Find and change the models that runs logged.")

ModelId = Annotated[str, Parameter(name="MODEL-ID", help="The logged model's id, or a unique prefix of it.")]


@app.command(
    name="list",
    help_epilogue=examples(
        "logged-models list --experiment fraud",
        "logged-models list --filter \"metrics.auc > 0.9 AND model_type = 'sklearn'\" --order-by 'metrics.auc DESC'",
    ),
)
def list_logged_models(
    *,
    experiment: Experiments = (),
    where: Annotated[
        Filter,
        Parameter(name="--filter", metavar="FILTER", help="Such as \"metrics.auc > 0.9 AND name = 'trees'\"."),
    ] = "",
    order_by: Annotated[OrderBy, Parameter(metavar="FIELD", help='Such as "metrics.auc DESC".')] = "",
    deleted: Deleted = False,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List logged models, newest first or in the given order."""
    options.connect()
    found = rf.search_logged_models(
        [experiment_named(name) for name in experiment],
        where,
        order_by=order_by,
        lifecycle="all" if deleted else "active",
        limit=limit,
    )
    options.show(found, lambda: _models(found, wide=options.wide))


@app.command(help_epilogue=examples("logged-models show MODEL-ID -o json"))
def show(model: ModelId, /, *, options: Options = DEFAULTS) -> None:
    """Show a logged model: its parameters, tags, metrics and files."""
    options.connect()
    _show(logged_model_id(model), options)


@app.command(help_epilogue=examples("logged-models tag MODEL-ID stage=candidate"))
def tag(
    model: ModelId,
    /,
    *tags: Pairs,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set tags of a logged model; its other tags stay."""
    chosen = read_pairs(tags)
    _change(model, options, lambda found: rf.set_logged_model_tags(found, chosen, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("logged-models untag MODEL-ID stage"))
def untag(
    model: ModelId,
    /,
    *keys: Keys,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Remove tags of a logged model."""
    _change(
        model, options, lambda found: rf.remove_logged_model_tags(found, keys, reason=reason, request_id=request_id)
    )


@app.command(help_epilogue=examples("logged-models delete MODEL-ID --reason 'the data was wrong'"))
def delete(
    model: ModelId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Delete a logged model; the history stays, and it can be restored."""
    _change(model, options, lambda found: rf.delete_logged_model(found, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("logged-models restore MODEL-ID"))
def restore(
    model: ModelId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Restore a deleted logged model."""
    _change(model, options, lambda found: rf.restore_logged_model(found, reason=reason, request_id=request_id))


def _change(model: str, options: Options, change: Callable[[str], None]) -> None:
    options.connect()
    found = logged_model_id(model)
    change(found)
    _show(found, options)


def _show(model_id: str, options: Options) -> None:
    found = rf.get_logged_model(model_id)
    options.show(found, lambda: _model(found))


def _models(found: Sequence[v1.LoggedModel], *, wide: bool) -> RenderableType:
    rows = [
        (
            short_id(one.model_id, wide=wide),
            one.name + (" (deleted)" if one.deleted else ""),
            one.model_type,
            _status(one),
            moment(one.created_at),
            short_id(one.source_run_id, wide=wide) or "-",
            " ".join(f"{metric.key}={number(metric.value)}" for metric in one.metrics[:100]),
        )
        for one in found
    ]
    headers = ("LOGGED MODEL", "NAME~", "TYPE~", "STATUS", "CREATED", "RUN", "METRICS")
    return grid(headers, rows, empty="no logged models match")


def _model(one: v1.LoggedModel) -> RenderableType:
    name = experiment_names([one.experiment_id])[one.experiment_id]
    fields = pairs(
        {"logged model": one.model_id, "name": one.name, "type": one.model_type, "status": _status(one)}
        | {"experiment": f"{name} (id:{one.experiment_id})", "run": one.source_run_id, "digest": one.digest}
        | {"files": f"{one.file_count}, {one.size_bytes} bytes" if one.digest else ""}
        | {"created": f"{moment(one.created_at)} by {one.actor}", "deleted": "yes" if one.deleted else ""}
    )
    labels: list[tuple[str, ...]] = [("param", key, one.params[key]) for key in sorted(one.params)]
    labels += [("tag", key, one.tags[key]) for key in sorted(one.tags)]
    metrics: list[tuple[str, ...]] = [
        (metric.key, number(metric.value), str(metric.step), metric.run_id, _dataset(metric)) for metric in one.metrics
    ]
    tables = ((("KIND", "KEY", "VALUE"), labels), (("METRIC", "VALUE>", "STEP>", "RUN", "DATASET"), metrics))
    return Group(fields, *(part for headers, rows in tables if rows for part in ("", grid(headers, truncated(rows)))))


def _status(one: v1.LoggedModel) -> str:
    return enum_name(rf.v1.LoggedModelStatus.DESCRIPTOR, one.status) or "-"


def _dataset(metric: v1.LoggedModelMetric) -> str:
    return " ".join(part for part in (metric.dataset_name, metric.dataset_digest) if part) or "-"
