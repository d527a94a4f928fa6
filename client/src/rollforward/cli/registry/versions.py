"""The `versions` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.options import (
    DEFAULTS,
    AnyModel,
    Deleted,
    Filter,
    Keys,
    Limit,
    ModelName,
    NewText,
    Options,
    OrderBy,
    Pairs,
    Reason,
    RequestId,
    VersionNumber,
    examples,
    read_pairs,
)
from rollforward.cli.output.tables import enum_name, grid, labels, moment, pairs, short, short_id
from rollforward.cli.registry.diff import plain_version_differences, version_differences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="versions", help="Find, compare, copy and change versions.")


@app.command(
    name="list",
    help_epilogue=examples(
        "versions list fraud-detector", "versions list --filter \"tags.approved = 'yes' AND name LIKE 'fraud%'\""
    ),
)
def list_versions(
    model: AnyModel = "",
    /,
    *,
    where: Filter = "",
    order_by: OrderBy = "",
    deleted: Deleted = False,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List versions of a model or of all, newest first or in the given order."""
    options.connect()
    versions = rf.list_versions(model, filter=where, order_by=order_by, show_deleted=deleted, limit=limit)
    options.show(versions, lambda: versions_table(versions, with_model=not model, wide=options.wide))


@app.command(help_epilogue=examples("versions show fraud-detector v3"))
def show(model: ModelName, version: VersionNumber, /, *, options: Options = DEFAULTS) -> None:
    """Show a version: its artifact, its run, and the gates that it passed."""
    options.connect()
    _show(model, version, options)


@app.command(help_epilogue=examples("versions diff fraud-detector v2 v3"))
def diff(
    model: ModelName,
    before: Annotated[VersionNumber, Parameter(name="FROM", help="3 or v3.")],
    after: Annotated[VersionNumber, Parameter(name="TO", help="The version to compare it with.")],
    /,
    *,
    options: Options = DEFAULTS,
) -> None:
    """Compare two versions: files, size, tags, and their runs' parameters and metrics."""
    options.connect()
    comparison = rf.diff_versions(model, before, after)
    options.show(plain_version_differences(comparison), lambda: version_differences(comparison))


@app.command(help_epilogue=examples("versions describe fraud-detector v3 'Trained on a year of payments'"))
def describe(
    model: ModelName,
    version: VersionNumber,
    text: NewText,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Change a version's description."""
    options.connect()
    rf.set_description(model, text, version, reason=reason, request_id=request_id)
    _show(model, version, options)


@app.command(help_epilogue=examples("versions tag fraud-detector v3 approved=yes"))
def tag(
    model: ModelName,
    version: VersionNumber,
    /,
    *tags: Pairs,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set tags of a version; its other tags stay."""
    changes = read_pairs(tags)
    options.connect()
    rf.set_tags(model, changes, version, reason=reason, request_id=request_id)
    _show(model, version, options)


@app.command(help_epilogue=examples("versions untag fraud-detector v3 approved"))
def untag(
    model: ModelName,
    version: VersionNumber,
    /,
    *keys: Keys,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Remove tags of a version."""
    options.connect()
    rf.remove_tags(model, keys, version, reason=reason, request_id=request_id)
    _show(model, version, options)


@app.command(help_epilogue=examples("versions set-status fraud-detector v3 failed --reason 'its weights are damaged'"))
def set_status(
    model: ModelName,
    version: VersionNumber,
    state: Annotated[Literal["ready", "pending", "failed"], Parameter(name="STATUS", help="The new status.")],
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Change a version's status; aliases can only move to ready versions."""
    options.connect()
    rf.set_version_status(model, version, state, reason=reason, request_id=request_id)
    _show(model, version, options)


@app.command(help_epilogue=examples("versions copy fraud-staging v3 fraud-detector --reason 'approved'"))
def copy(
    model: ModelName,
    version: VersionNumber,
    to_model: Annotated[str, Parameter(name="TO-MODEL", help="The model for the copy; it is created if missing.")],
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Register a copy of a version under another model, with a reference to the original."""
    options.connect()
    copied = rf.copy_version(model, version, to_model, reason=reason, request_id=request_id)
    options.show(copied, lambda: version_details(copied))


@app.command(help_epilogue=examples("versions delete fraud-detector v2 --reason 'superseded'"))
def delete(
    model: ModelName,
    version: VersionNumber,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Delete a version without aliases; its number is never reused, and it can be restored."""
    options.connect()
    rf.delete_version(model, version, reason=reason, request_id=request_id)
    _show(model, version, options)


@app.command(help_epilogue=examples("versions restore fraud-detector v2"))
def restore(
    model: ModelName,
    version: VersionNumber,
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Restore a deleted version."""
    options.connect()
    rf.restore_version(model, version, reason=reason, request_id=request_id)
    _show(model, version, options)


def versions_table(versions: Sequence[v1.Version], *, with_model: bool = False, wide: bool = False) -> RenderableType:
    """Return a table of versions."""
    rows = [
        (
            f"{version.model} v{version.version}" if with_model else f"v{version.version}",
            " ".join(f"@{alias}" for alias in version.aliases),
            _status(version),
            version.digest if wide else short(version.digest),
            short_id(version.run_id, wide=wide) or "-",
            moment(version.created_at),
            version.actor,
        )
        for version in versions
    ]
    headers = ("VERSION", "ALIASES~", "STATUS", "DIGEST", "RUN", "CREATED", "ACTOR")
    return grid(headers, rows, empty="no versions match")


def version_details(version: v1.Version) -> RenderableType:
    """Return the details of one version."""
    gates = [evidence.expression for evidence in (version.evidence, *version.policy_evidence) if evidence.expression]
    source = version.copied_from
    return pairs(
        {"version": f"{version.model} v{version.version}", "status": _status(version), "digest": version.digest}
        | {"run": version.run_id, "artifact": version.artifact_path, "gate": "; ".join(gates)}
        | {"copy of": f"{source.model} v{source.version}" if version.HasField("copied_from") else ""}
        | {"description": version.description, "tags": labels(version.tags)}
        | {"aliases": " ".join(f"@{alias}" for alias in version.aliases)}
        | {"created": f"{moment(version.created_at)} by {version.actor}", "revision": str(version.revision)}
        | {"deleted": moment(version.deleted_at) if version.HasField("deleted_at") else ""}
    )


def _show(model: str, number: int, options: Options) -> None:
    version = rf.get_version(model, number)
    options.show(version, lambda: version_details(version))


def _status(version: v1.Version) -> str:
    if version.HasField("deleted_at"):
        return "deleted"
    return enum_name(rf.v1.VersionStatus.DESCRIPTOR, version.status) or "-"
