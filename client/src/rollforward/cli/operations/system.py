"""The commands `deployments`, `rebuild`, `snapshot` and `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.options import DEFAULTS, READ_DEFAULTS, AnyModel, Options, ReadOptions, examples, flag
from rollforward.cli.output.progress import bar
from rollforward.cli.output.tables import enum_name, grid, moment, pairs, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

deployments: Final = App(name="deployments", help="Show which pod serves which version.")


@deployments.command(name="list", help_epilogue=examples("deployments list", "deployments list fraud-detector --all"))
def list_deployments(
    model: AnyModel = "",
    /,
    *,
    all_pods: Annotated[bool, flag("Include stopped pods.", name="--all")] = False,
    options: ReadOptions = READ_DEFAULTS,
) -> None:
    """List the aliases that pods follow, their versions, and what each pod serves."""
    options.connect()
    listed = rf.deployments(model, include_stopped=all_pods)
    options.show(listed, lambda: _deployments(listed))


def rebuild(
    projection: Annotated[str, Parameter(name="READ-MODEL", help="A name from `rollforward status`.")],
    /,
    *,
    options: Options = DEFAULTS,
) -> None:
    """Rebuild a read model from its log, and switch to it if it equals the live one.

    Examples:

        rollforward rebuild registry
    """
    options.connect()
    last = rf.v1.RebuildProjectionResponse()
    with bar(f"rebuild {projection}") as advance:
        for last in rf.rebuild(projection):
            advance(last.position, last.head)
    options.show(last, lambda: _rebuilt(projection, last))


def snapshot(
    projection: Annotated[str, Parameter(name="READ-MODEL", help="A name from `rollforward status`.")],
    /,
    *,
    options: Options = DEFAULTS,
) -> None:
    """Save a snapshot of a read model in the artifact store, for later starts without rows.

    Examples:

        rollforward snapshot tracking
    """
    options.connect()
    last = rf.v1.CreateSnapshotResponse()
    with bar(f"snapshot {projection}", in_bytes=True) as advance:
        for last in rf.snapshot(projection):
            advance(last.size_bytes, None)
    fields = {"projection": projection, "position": str(last.position), "bytes": str(last.size_bytes)}
    options.show(last, lambda: pairs(fields))


def status(*, options: Options = DEFAULTS) -> None:
    """Show the state of the system, its logs and its read models.

    Examples:

        rollforward status
        rollforward status -o json
    """
    options.connect()
    response = rf.status()
    options.show(response, lambda: _status(response))


def _deployments(listed: Sequence[v1.Deployment]) -> RenderableType:
    rows = []
    for deployment in listed:
        desired = (
            f"{deployment.desired.target.model}@{deployment.desired.target.alias}",
            version_of(deployment.desired.version),
        )
        for pod in deployment.pods:
            state = enum_name(rf.v1.PodState.DESCRIPTOR, pod.state) or "-"
            served = (version_of(pod.version), str(pod.revision))
            rows.append((*desired, *served, state, pod.endpoint, moment(pod.updated_at), pod.error))
    headers = ("ALIAS", "DESIRED", "SERVES", "REVISION>", "STATE", "ENDPOINT", "UPDATED", "ERROR")
    return grid(headers, rows, empty="no deployments match")


def _rebuilt(projection: str, last: v1.RebuildProjectionResponse) -> RenderableType:
    return pairs(
        {"projection": projection, "position": str(last.position), "live": last.live_digest}
        | {"rebuilt": last.rebuilt_digest, "equal": "yes" if last.live_digest == last.rebuilt_digest else "NO"}
    )


def _status(found: v1.GetStatusResponse) -> RenderableType:
    heads = {log.name: log.head for log in found.logs}
    fields = {"rollforward": found.version, "nats": found.nats_version, "services": ", ".join(found.services)}
    logs = [
        (one.name, str(one.head), str(one.epoch), one.storage, "; ".join(one.warnings) or "-") for one in found.logs
    ]
    projections = [
        (
            *(one.name, one.log, str(one.position), str(max(heads.get(one.log, 0) - one.position, 0))),
            *(str(one.generation), one.failure or "-"),
        )
        for one in found.projections
    ]
    fields["ready"] = "yes" if found.ready else f"no: {'; '.join(found.problems)}"
    return Group(
        pairs(fields),
        "",
        grid(("LOG", "HEAD>", "EPOCH>", "STORAGE", "WARNINGS"), logs, empty="no logs"),
        "",
        grid(("READ MODEL", "LOG", "POSITION>", "BEHIND>", "GENERATION>", "FAILURE"), projections),
    )
