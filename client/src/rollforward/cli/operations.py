"""The commands about the running system: who serves what, and whether all is sound."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.options import DEFAULTS, Options, examples
from rollforward.cli.output import grid, moment, pairs, print_json, version_of, word
from rollforward.cli.progress import bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

serving: Final = App(name="serving", help="Serving: which pod serves which version.")


@serving.command(name="status", help_epilogue=examples("serving status", "serving status fraud-detector --all"))
def serving_status(
    model: Annotated[str, Parameter(help="One model; default all.", show_default=False)] = "",
    /,
    *,
    all_pods: Annotated[bool, Parameter(name="--all", negative="", help="Pods that stopped too.")] = False,
    options: Options = DEFAULTS,
) -> None:
    """Who serves what: every alias that a pod follows, what it should be, and what each pod serves."""
    options.connect()
    found = rf.deployments(model, include_stopped=all_pods)
    options.show(found, lambda: _deployments(found))


def rebuild(
    projection: Annotated[str, Parameter(help="A read model, as `rollforward status` names it.")],
    /,
    *,
    options: Options = DEFAULTS,
) -> None:
    """Compute a read model from its log again, beside the live one; when both are equal the new one takes over.

    For example:

        rollforward rebuild registry
    """
    options.connect()
    last = rf.v1.RebuildProjectionResponse()
    with bar(f"rebuild {projection}") as advance:
        for last in rf.rebuild(projection):
            advance(last.position, last.head)
    options.show(last, lambda: _rebuilt(projection, last))


def snapshot(
    projection: Annotated[str, Parameter(help="A read model, as `rollforward status` names it.")],
    /,
    *,
    options: Options = DEFAULTS,
) -> None:
    """Keep a snapshot of a read model in the object store: where its rows are lost, a start begins with it.

    For example:

        rollforward snapshot tracking
    """
    options.connect()
    last = rf.v1.CreateSnapshotResponse()
    with bar(f"snapshot {projection}", in_bytes=True) as advance:
        for last in rf.snapshot(projection):
            advance(last.size_bytes, None)
    facts = {"projection": projection, "position": str(last.position), "bytes": str(last.size_bytes)}
    options.show(last, lambda: pairs(facts))


def status(*, options: Options = DEFAULTS) -> None:
    """The state of the system: its logs and its read models.

    For example:

        rollforward status
        rollforward status -o json
    """
    options.connect()
    found = rf.status()
    options.show(found, lambda: _status(found))


def version(*, options: Options = DEFAULTS) -> None:
    """Print the version of this client."""
    if options.json:
        print_json({"version": installed("rollforward")})
    else:
        print(version_text())


def version_text() -> str:
    """The name and version of this client."""
    return f"rollforward {installed('rollforward')}"


def _deployments(found: Sequence[v1.Deployment]) -> RenderableType:
    rows = []
    for one in found:
        wanted = (f"{one.desired.target.model}@{one.desired.target.alias}", version_of(one.desired.version))
        for pod in one.pods:
            state = word(rf.v1.PodState.Name(pod.state), "POD_STATE_")
            served = (version_of(pod.version), str(pod.revision))
            rows.append((*wanted, *served, state, pod.endpoint, moment(pod.updated_at), pod.error))
    return grid(("ALIAS", "SHOULD", "SERVES", "REVISION>", "STATE", "ENDPOINT", "UPDATED", "ERROR"), rows)


def _rebuilt(projection: str, last: v1.RebuildProjectionResponse) -> RenderableType:
    return pairs(
        {"projection": projection, "position": str(last.position), "live": last.live_digest}
        | {"rebuilt": last.rebuilt_digest, "equal": "yes" if last.live_digest == last.rebuilt_digest else "NO"}
    )


def _status(found: v1.GetStatusResponse) -> RenderableType:
    heads = {log.name: log.head for log in found.logs}
    facts = {"rollforward": found.version, "nats": found.nats_version, "services": ", ".join(found.services)}
    logs = [(one.name, str(one.head), one.storage, "; ".join(one.warnings) or "-") for one in found.logs]
    projections = [
        (
            *(one.name, one.log, str(one.position), str(max(heads.get(one.log, 0) - one.position, 0))),
            *(str(one.generation), one.failure or "-"),
        )
        for one in found.projections
    ]
    return Group(
        pairs(facts),
        "",
        grid(("LOG", "HEAD>", "STORAGE", "WARNINGS"), logs),
        "",
        grid(("READ MODEL", "LOG", "POSITION>", "BEHIND>", "GENERATION>", "FAILURE"), projections),
    )
