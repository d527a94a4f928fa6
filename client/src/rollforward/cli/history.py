"""The commands about the past of aliases: who changed them, who held them, and why they stand where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward.cli.evidence import gates_in_a_line
from rollforward.cli.options import DEFAULTS, AliasName, At, Cause, Limit, Options, Since, Time, Until
from rollforward.cli.output import cause_of, grid, lasting, moment, number, pairs, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

Wide = Annotated[
    str,
    Parameter(
        name="MODEL@ALIAS",
        help="One alias; MODEL for all of its aliases; @ALIAS for that alias of every model; default all.",
        show_default=False,
    ),
]


def history(
    reference: Wide = "",
    /,
    *,
    actor: Annotated[str, Parameter(name="--by", help="Who changed it.", show_default=False)] = "",
    cause: Cause = "",
    moves: Annotated[bool | None, Parameter(negative="--removals", help="Only moves, or only removals.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """Every change of aliases that meets all conditions, newest first: when, who, why, from, to.

    For example:

        rollforward alias history fraud-detector@champion
        rollforward alias history @champion --cause rollback --since 2026-11-01T00:00Z
        rollforward alias history fraud-detector --by alice --limit 10
    """
    options.connect()
    found = rf.alias_history(reference, actor=actor, moved=moves, cause=cause, since=since, until=until, limit=limit)
    options.show(found, lambda: changes_table(found, with_model="@" not in reference[1:]))


def intervals(
    reference: AliasName,
    /,
    *,
    since: Time = None,
    until: Time = None,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """Which versions held an alias, from when to when, and for how long, newest first.

    For example:

        rollforward alias intervals fraud-detector@champion
        rollforward alias intervals fraud-detector@champion --since 2026-11-01T00:00Z -o json
    """
    options.connect()
    found = rf.alias_intervals(reference, since=since, until=until, limit=limit)
    options.show(found, lambda: _intervals(found))


def blame(reference: AliasName, /, *, at: At = None, options: Options = DEFAULTS) -> None:
    """Why an alias names the version that it names: the change, the version, and the run that produced it.

    For example:

        rollforward blame fraud-detector@champion
        rollforward blame fraud-detector@champion --at 2026-11-03T14:00Z
    """
    options.connect()
    found = rf.blame(reference, at)
    options.show(found, lambda: _blame(found))


def changes_table(changes: Sequence[v1.AliasChange], *, with_model: bool = False) -> RenderableType:
    """A line for each change of an alias."""
    rows = [
        (
            str(one.revision),
            moment(one.time),
            f"{one.model}@{one.alias}" if with_model else f"@{one.alias}",
            version_of(one.from_version),
            version_of(one.to_version),
            cause_of(one) + (f" of {one.restored_revision}" if one.restored_revision else ""),
            one.actor,
            one.reason,
        )
        for one in changes
    ]
    return grid(("REVISION>", "WHEN", "ALIAS", "FROM", "TO", "CAUSE", "WHO", "WHY"), rows)


def _intervals(found: Sequence[v1.AliasInterval]) -> RenderableType:
    rows = [
        (
            version_of(one.began.to_version),
            moment(one.began.time),
            moment(one.ended.time),
            lasting(one.duration),
            str(one.began.revision),
            one.began.actor,
            one.began.reason,
        )
        for one in found
    ]
    return grid(("VERSION", "FROM", "TO", "FOR>", "REVISION>", "MOVED BY", "WHY"), rows)


def _blame(found: rf.Blame) -> RenderableType:
    alias, change, version, run = found
    source = version.copied_from
    came = f"{source.model} v{source.version}" if version.HasField("copied_from") else ""
    return pairs(
        {"alias": f"{alias.model}@{alias.alias}", "version": version_of(alias.version), "digest": alias.digest}
        | {"moved": f"{moment(change.time)} by {change.actor}", "from": version_of(change.from_version)}
        | {"why": change.reason, "cause": cause_of(change), "revision": str(change.revision)}
        | {"restores": str(change.restored_revision or ""), "schedule": change.schedule_id}
        | {"gates": gates_in_a_line(change.evidence, change.skipped_gates), "request": change.request_id}
        | {"registered": f"{moment(version.created_at)} by {version.actor}", "copy of": came}
        | {"run": "" if run is None else f"{run.run_id} {run.name}".strip(), "artifact": version.artifact_path}
        | {"metrics": "" if run is None else _metrics(run)}
    )


def _metrics(run: v1.Run) -> str:
    return " ".join(f"{key}={number(run.metrics[key].last)}" for key in sorted(run.metrics))
