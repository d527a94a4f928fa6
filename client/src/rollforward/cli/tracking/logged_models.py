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
    models = rf.search_logged_models(
        [experiment_named(name) for name in experiment],
        where,
        order_by=order_by,
        lifecycle="all" if deleted else "active",
        limit=limit,
    )
    options.show(models, lambda: _models(models, wide=options.wide))


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
    changes = read_pairs(tags)
    _change(
        model,
        options,
        lambda model_id: rf.set_logged_model_tags(model_id, changes, reason=reason, request_id=request_id),
    )


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
        model,
        options,
        lambda model_id: rf.remove_logged_model_tags(model_id, keys, reason=reason, request_id=request_id),
    )


@app.command(help_epilogue=examples("logged-models delete MODEL-ID --reason 'the data was wrong'"))
def delete(
    model: ModelId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Delete a logged model; the history stays, and it can be restored."""
    _change(model, options, lambda model_id: rf.delete_logged_model(model_id, reason=reason, request_id=request_id))


@app.command(help_epilogue=examples("logged-models restore MODEL-ID"))
def restore(
    model: ModelId, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Restore a deleted logged model."""
    _change(model, options, lambda model_id: rf.restore_logged_model(model_id, reason=reason, request_id=request_id))


def _change(model: str, options: Options, change: Callable[[str], None]) -> None:
    options.connect()
    model_id = logged_model_id(model)
    change(model_id)
    _show(model_id, options)


def _show(model_id: str, options: Options) -> None:
    model = rf.get_logged_model(model_id)
    options.show(model, lambda: _model(model))


def _models(models: Sequence[v1.LoggedModel], *, wide: bool) -> RenderableType:
    rows = [
        (
            short_id(model.model_id, wide=wide),
            model.name + (" (deleted)" if model.deleted else ""),
            model.model_type,
            _status(model),
            moment(model.created_at),
            short_id(model.source_run_id, wide=wide) or "-",
            " ".join(f"{metric.key}={number(metric.value)}" for metric in model.metrics[:100]),
        )
        for model in models
    ]
    headers = ("LOGGED MODEL", "NAME~", "TYPE~", "STATUS", "CREATED", "RUN", "METRICS")
    return grid(headers, rows, empty="no logged models match")


def _model(model: v1.LoggedModel) -> RenderableType:
    name = experiment_names([model.experiment_id])[model.experiment_id]
    fields = pairs(
        {"logged model": model.model_id, "name": model.name, "type": model.model_type, "status": _status(model)}
        | {"experiment": f"{name} (id:{model.experiment_id})", "run": model.source_run_id, "digest": model.digest}
        | {"files": f"{model.file_count}, {model.size_bytes} bytes" if model.digest else ""}
        | {"created": f"{moment(model.created_at)} by {model.actor}", "deleted": "yes" if model.deleted else ""}
    )
    labels: list[tuple[str, ...]] = [("param", key, model.params[key]) for key in sorted(model.params)]
    labels += [("tag", key, model.tags[key]) for key in sorted(model.tags)]
    metrics: list[tuple[str, ...]] = [
        (metric.key, number(metric.value), str(metric.step), metric.run_id, _dataset(metric))
        for metric in model.metrics
    ]
    tables = ((("KIND", "KEY", "VALUE"), labels), (("METRIC", "VALUE>", "STEP>", "RUN", "DATASET"), metrics))
    return Group(fields, *(part for headers, rows in tables if rows for part in ("", grid(headers, truncated(rows)))))


def _status(model: v1.LoggedModel) -> str:
    return enum_name(rf.v1.LoggedModelStatus.DESCRIPTOR, model.status) or "-"


def _dataset(metric: v1.LoggedModelMetric) -> str:
    return " ".join(part for part in (metric.dataset_name, metric.dataset_digest) if part) or "-"
