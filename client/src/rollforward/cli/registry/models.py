"""The `models` commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.identifiers import run_id
from rollforward.cli.options import (
    DEFAULTS,
    Deleted,
    Description,
    Filter,
    Keys,
    Limit,
    ModelName,
    NewName,
    NewText,
    Options,
    OrderBy,
    Pairs,
    Reason,
    RequestId,
    examples,
    read_pairs,
)
from rollforward.cli.output.failures import UsageError
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import grid, labels, moment, pairs, plain, print_json, print_table, version_of
from rollforward.cli.registry.versions import version_details, versions_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="models", help="Create and change models, register versions.")


@app.command(
    name="list",
    help_epilogue=examples(
        "models list", "models list --filter \"name LIKE 'fraud%' AND tags.team = 'risk'\" --order-by 'updated_at DESC'"
    ),
)
def list_models(
    *,
    where: Filter = "",
    order_by: OrderBy = "",
    deleted: Deleted = False,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List models, by name or in the given order."""
    options.connect()
    models = rf.list_models(filter=where, order_by=order_by, show_deleted=deleted, limit=limit)
    options.show(models, lambda: _models(models))


@app.command(help_epilogue=examples("models show fraud-detector"))
def show(name: ModelName, /, *, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """Show a model, its aliases, and its versions, newest first."""
    options.connect()
    model, versions = rf.get_model(name), rf.list_versions(name, limit=limit)
    if options.json:
        print_json({**plain(model), "versions": versions})
    else:
        table = versions_table(versions, wide=options.wide)
        print_table(Group(_details(model), "", table), wide=options.wide)


@app.command(help_epilogue=examples("models create fraud-detector --gate 'run.metrics.auc > 0.95'"))
def create(
    name: ModelName,
    /,
    *,
    gate: Annotated[
        str,
        Parameter(
            metavar="EXPRESSION",
            help="A CEL expression over run.metrics and run.params that new versions must pass.",
            show_default=False,
        ),
    ] = "",
    description: Description = "",
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Create a model; `models register` also creates it if it is missing."""
    options.connect()
    model = rf.create_model(name, description=description, gate=gate, reason=reason, request_id=request_id)
    options.show(model, lambda: _details(model))


@app.command(
    help_epilogue=examples(
        "models set-gate fraud-detector 'run.metrics.auc > 0.95'", "models set-gate fraud-detector ''"
    )
)
def set_gate(
    name: ModelName,
    expression: Annotated[str, Parameter(name="EXPRESSION", help="The CEL expression; '' removes the gate.")],
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set or remove the gate that new versions of a model must pass."""
    options.connect()
    rf.set_registration_gate(name, expression, reason=reason, request_id=request_id)
    _show(name, options)


@app.command(
    help_epilogue=examples(
        "models register fraud-detector ./model",
        "models register fraud-detector --run cd83fa2c --artifact model",
    )
)
def register(
    name: ModelName,
    path: Annotated[Path | None, Parameter(name="PATH", help="A directory or file to upload.")] = None,
    /,
    *,
    run: Annotated[
        str | None,
        Parameter(metavar="RUN", help="The run that produced it, by id, prefix or name; instead of PATH."),
    ] = None,
    artifact: Annotated[str, Parameter(metavar="PATH", help="The run's artifact.", show_default=False)] = "",
    description: Description = "",
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Register a version from files or from a run's artifact, if its gates pass."""
    if (path is None) == (run is None) or (artifact and run is None):
        raise UsageError("expected either PATH, or --run RUN --artifact PATH")
    options.connect()
    digest = "" if path is None else _upload(path)
    version = rf.register_model(
        name,
        None if run is None else run_id(run),
        artifact=artifact,
        digest=digest,
        description=description,
        reason=reason,
        request_id=request_id,
    )
    options.show(version, lambda: version_details(version))


@app.command(help_epilogue=examples("models rename fraud-detector card-fraud --reason 'there are two kinds now'"))
def rename(
    name: ModelName,
    new_name: NewName,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Rename a model with its versions, aliases and history; errors for the old name show the new one."""
    options.connect()
    rf.rename_model(name, new_name, reason=reason, request_id=request_id)
    _show(new_name, options)


@app.command(help_epilogue=examples("models describe fraud-detector 'Scores card payments'"))
def describe(
    name: ModelName,
    text: NewText,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Change a model's description."""
    options.connect()
    rf.set_description(name, text, reason=reason, request_id=request_id)
    _show(name, options)


@app.command(help_epilogue=examples("models tag fraud-detector team=risk tier=1"))
def tag(
    name: ModelName,
    /,
    *tags: Pairs,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set tags of a model; its other tags stay."""
    changes = read_pairs(tags)
    options.connect()
    rf.set_tags(name, changes, reason=reason, request_id=request_id)
    _show(name, options)


@app.command(help_epilogue=examples("models untag fraud-detector tier"))
def untag(
    name: ModelName,
    /,
    *keys: Keys,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Remove tags of a model."""
    options.connect()
    rf.remove_tags(name, keys, reason=reason, request_id=request_id)
    _show(name, options)


@app.command(help_epilogue=examples("models delete fraud-detector --reason 'card-fraud took over'"))
def delete(
    name: ModelName, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Delete a model without aliases; the history stays, and it can be restored."""
    options.connect()
    rf.delete_model(name, reason=reason, request_id=request_id)
    _show(name, options)


@app.command(help_epilogue=examples("models restore fraud-detector"))
def restore(
    name: ModelName, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Restore a deleted model."""
    options.connect()
    rf.restore_model(name, reason=reason, request_id=request_id)
    _show(name, options)


def _upload(path: Path) -> str:
    with bar(str(path), in_bytes=True) as progress:
        return rf.upload(path, progress=progress)[0]


def _show(name: str, options: Options) -> None:
    model = rf.get_model(name)
    options.show(model, lambda: _details(model))


def _models(models: Sequence[v1.Model]) -> RenderableType:
    rows = [
        (
            model.name + (" (deleted)" if model.HasField("deleted_at") else ""),
            version_of(model.latest_version),
            _aliases(model),
            labels(model.tags),
            moment(model.updated_at),
            model.registration_gate,
        )
        for model in models
    ]
    return grid(("MODEL", "LATEST", "ALIASES~", "TAGS~", "UPDATED", "GATE"), rows, empty="no models match")


def _aliases(model: v1.Model) -> str:
    return " ".join(f"@{alias.alias}=v{alias.version}" for alias in model.aliases)


def _details(model: v1.Model) -> RenderableType:
    return pairs(
        {"model": model.name, "formerly": ", ".join(model.former_names), "description": model.description}
        | {"gate": model.registration_gate, "tags": labels(model.tags)}
        | {"latest": version_of(model.latest_version), "aliases": _aliases(model)}
        | {"created": f"{moment(model.created_at)} by {model.actor}", "revision": str(model.revision)}
        | {"deleted": moment(model.deleted_at) if model.HasField("deleted_at") else ""}
    )
