"""The commands about models, versions and their files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.failures import UsageError
from rollforward.cli.options import DEFAULTS, Limit, Options, Reason, RequestId, examples
from rollforward.cli.output import grid, moment, pairs, plain, print_json, print_table, short, version_of
from rollforward.cli.progress import bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="models", help="Models and versions: list, show, create, gate, register.")

Name = Annotated[str, Parameter(help="The model's name.")]


@app.command(name="list", help_epilogue=examples("models list", "models list -o json"))
def list_models(*, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """List models by name."""
    options.connect()
    found = rf.list_models(limit=limit)
    options.show(found, lambda: _models(found))


@app.command(help_epilogue=examples("models show fraud-detector"))
def show(name: Name, /, *, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """Show a model, its aliases, and its versions, newest first."""
    options.connect()
    model, versions = rf.get_model(name), rf.list_versions(name, limit=limit)
    _print_model(model, versions, options)


@app.command(help_epilogue=examples("models create fraud-detector --gate 'run.metrics.auc > 0.95'"))
def create(
    name: Name,
    /,
    *,
    gate: Annotated[
        str, Parameter(help="A CEL expression over run.metrics and run.params for new versions.", show_default=False)
    ] = "",
    description: Annotated[str, Parameter(help="What the model is for.", show_default=False)] = "",
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Create a model; `models register` does it too when the name is new."""
    options.connect()
    model = rf.create_model(name, description=description, gate=gate, reason=reason, request_id=request_id)
    options.show(model, lambda: _facts(model))


@app.command(
    help_epilogue=examples("models gate fraud-detector 'run.metrics.auc > 0.95'", "models gate fraud-detector ''")
)
def gate(
    name: Name,
    expression: Annotated[str, Parameter(help="The CEL expression; '' lifts the gate.")],
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set, change or lift the gate that new versions of a model must pass."""
    options.connect()
    rf.set_registration_gate(name, expression, reason=reason, request_id=request_id)
    model = rf.get_model(name)
    options.show(model, lambda: _facts(model))


@app.command(
    help_epilogue=examples(
        "models register fraud-detector ./model",
        "models register fraud-detector --run RUN_ID --artifact model",
    )
)
def register(
    name: Name,
    path: Annotated[Path | None, Parameter(help="A directory or file to upload.")] = None,
    /,
    *,
    run: Annotated[str | None, Parameter(help="The run that produced it, by id; instead of a path.")] = None,
    artifact: Annotated[str, Parameter(help="The run's artifact.", show_default=False)] = "",
    description: Annotated[str, Parameter(help="What this version is.", show_default=False)] = "",
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Register a version, from files or from a run's artifact; the model's gate judges the run."""
    if (path is None) == (run is None) or (artifact and run is None):
        raise UsageError("register takes either PATH or --run ID --artifact PATH")
    options.connect()
    version = rf.register_model(
        name, run, artifact=artifact, path=path, description=description, reason=reason, request_id=request_id
    )
    options.show(version, lambda: _version(version))


def download(
    reference: Annotated[
        str, Parameter(help="MODEL@ALIAS, models:/MODEL/VERSION, runs:/RUN/PATH, or sha256:... of an artifact.")
    ],
    target: Annotated[
        Path | None, Parameter(help="A new or empty directory; default a cache, do not write there.")
    ] = None,
    /,
    *,
    options: Options = DEFAULTS,
) -> None:
    """Download an artifact, verify every byte, and print the directory that holds its files.

    For example:

        rollforward download fraud-detector@champion ./model
        rollforward download models:/fraud-detector/3 ./model
    """
    options.connect()
    known = reference.startswith(("models:", "runs:", "sha256:"))
    with bar(reference, in_bytes=True) as progress:
        path = rf.download(reference if known else f"models:/{reference}", target, progress=progress)
    if options.json:
        print_json({"path": str(path)})
    else:
        print(path)


def _models(found: Sequence[v1.Model]) -> RenderableType:
    rows = [
        (one.name, version_of(one.latest_version), _aliases(one), one.registration_gate, moment(one.created_at))
        for one in found
    ]
    return grid(("MODEL", "LATEST", "ALIASES", "GATE", "CREATED"), rows)


def _aliases(model: v1.Model) -> str:
    return " ".join(f"@{one.alias}=v{one.version}" for one in model.aliases)


def _print_model(model: v1.Model, versions: Sequence[v1.Version], options: Options) -> None:

    if options.json:
        print_json({**plain(model), "versions": [plain(one) for one in versions]})
        return
    rows = [
        (
            f"v{one.version}",
            " ".join(f"@{alias}" for alias in one.aliases),
            short(one.digest),
            one.run_id,
            moment(one.created_at),
            one.actor,
        )
        for one in versions
    ]
    print_table(Group(_facts(model), "", grid(("VERSION", "ALIASES", "DIGEST", "RUN", "REGISTERED", "BY"), rows)))


def _facts(model: v1.Model) -> RenderableType:
    return pairs(
        {"model": model.name, "description": model.description, "gate": model.registration_gate}
        | {"latest": version_of(model.latest_version), "aliases": _aliases(model)}
        | {"created": f"{moment(model.created_at)} by {model.actor}", "revision": str(model.revision)}
    )


def _version(version: v1.Version) -> RenderableType:
    return pairs(
        {"version": f"{version.model} v{version.version}", "digest": version.digest, "run": version.run_id}
        | {"artifact": version.artifact_path, "gate": version.evidence.expression, "description": version.description}
        | {"registered": f"{moment(version.created_at)} by {version.actor}", "revision": str(version.revision)}
    )
