"""The commands `aliases history`, `aliases intervals` and `blame`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward.cli.options import (
    DEFAULTS,
    READ_DEFAULTS,
    ActorFilter,
    AliasName,
    At,
    Cause,
    Limit,
    Options,
    ReadOptions,
    Since,
    Until,
    flag,
)
from rollforward.cli.output.tables import (
    cause_of,
    duration_text,
    grid,
    moment,
    number,
    pairs,
    plain,
    plain_run,
    version_of,
)
from rollforward.cli.registry.evidence import gates_in_a_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

AliasScope = Annotated[
    str,
    Parameter(
        name="MODEL@ALIAS",
        help="One alias; MODEL for all of its aliases; @ALIAS for that alias of every model; default all.",
        show_default=False,
    ),
]


def history(
    reference: AliasScope = "",
    /,
    *,
    actor: ActorFilter = "",
    cause: Cause = "",
    moves: Annotated[bool, flag("Only moves.")] = False,
    removals: Annotated[bool, flag("Only removals.")] = False,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    options: ReadOptions = READ_DEFAULTS,
) -> None:
    """List changes of aliases that meet all conditions, newest first."""
    options.connect()
    moved = None if moves == removals else moves
    changes = rf.alias_history(reference, actor=actor, moved=moved, cause=cause, since=since, until=until, limit=limit)
    options.show(changes, lambda: changes_table(changes, with_model="@" not in reference[1:]))


def intervals(
    reference: AliasName,
    /,
    *,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """List the versions that an alias pointed to, with start, end and duration, newest first."""
    options.connect()
    listed = rf.alias_intervals(reference, since=since, until=until, limit=limit)
    options.show([_plain_interval(interval) for interval in listed], lambda: _intervals(listed))


def blame(reference: AliasName, /, *, at: At = None, options: Options = DEFAULTS) -> None:
    """Show why an alias points to its version: the change, the version, and the run that produced it.

    Examples:

        rollforward blame fraud-detector@champion
        rollforward blame fraud-detector@champion --at 2026-11-03T14:00Z
    """
    options.connect()
    origin = rf.blame(reference, at)
    run = None if origin.run is None else plain_run(origin.run)
    options.show({**origin._asdict(), "run": run}, lambda: _blame(origin))


def changes_table(changes: Sequence[v1.AliasChange], *, with_model: bool = False) -> RenderableType:
    """Return a table of changes of aliases."""
    rows = [
        (
            str(change.revision),
            moment(change.time),
            f"{change.model}@{change.alias}" if with_model else f"@{change.alias}",
            version_of(change.from_version),
            version_of(change.to_version),
            cause_of(change) + (f" of {change.restored_revision}" if change.restored_revision else ""),
            change.actor,
            change.reason,
        )
        for change in changes
    ]
    headers = ("REVISION>", "TIME", "ALIAS", "FROM", "TO", "CAUSE", "ACTOR", "REASON")
    return grid(headers, rows, empty="no changes match")


def _intervals(listed: Sequence[v1.AliasInterval]) -> RenderableType:
    rows = [
        (
            version_of(interval.began.to_version),
            moment(interval.began.time),
            moment(interval.ended.time),
            duration_text(interval.duration),
            str(interval.began.revision),
            interval.began.actor,
            interval.began.reason,
        )
        for interval in listed
    ]
    headers = ("VERSION", "BEGAN", "ENDED", "DURATION>", "REVISION>", "ACTOR", "REASON")
    return grid(headers, rows, empty="no intervals match")


def _plain_interval(interval: v1.AliasInterval) -> dict[str, object]:
    began, ended = interval.began, interval.ended if interval.HasField("ended") else None
    fields = plain(began)
    keys = ("model", "alias", "digest", "actor", "reason", "cause", "restored_revision", "event_id")
    return {
        "version": began.to_version,
        "began_at": fields["time"],
        "ended_at": None if ended is None else plain(ended)["time"],
        "duration_seconds": interval.duration.ToTimedelta().total_seconds(),
        "began_revision": began.revision,
        "ended_revision": None if ended is None else ended.revision,
        "next_version": None if ended is None else ended.to_version or None,
        **{key: fields[key] for key in keys if key in fields},
    }


def _blame(origin: rf.Blame) -> RenderableType:
    alias, change, version, run = origin
    source = version.copied_from
    came = f"{source.model} v{source.version}" if version.HasField("copied_from") else ""
    return pairs(
        {"alias": f"{alias.model}@{alias.alias}", "version": version_of(alias.version), "digest": alias.digest}
        | {"moved": f"{moment(change.time)} by {change.actor}", "from version": version_of(change.from_version)}
        | {"reason": change.reason, "cause": cause_of(change), "revision": str(change.revision)}
        | {"restores": str(change.restored_revision or ""), "schedule": change.schedule_id}
        | {"gates": gates_in_a_line(change.evidence, change.skipped_gates), "request id": change.request_id}
        | {"created": f"{moment(version.created_at)} by {version.actor}", "copy of": came}
        | {"run": "" if run is None else f"{run.run_id} {run.name}".strip(), "artifact": version.artifact_path}
        | {"metrics": "" if run is None else _metrics(run)}
    )


def _metrics(run: v1.Run) -> str:
    return " ".join(f"{key}={number(run.metrics[key].last)}" for key in sorted(run.metrics))
