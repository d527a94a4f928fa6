"""The `diff` command, and tables of differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.options import READ_DEFAULTS, AnyModel, PointOption, ReadOptions
from rollforward.cli.output.failures import UsageError
from rollforward.cli.output.tables import grid, moment, number, plain, short, version_of
from rollforward.cli.registry.history import changes_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1


def diff(
    model: AnyModel = "",
    /,
    *,
    before: Annotated[
        PointOption, Parameter(name="--from", help="A revision or a time: 17, 2026-11-03T14:00Z, 2h, yesterday.")
    ] = None,
    after: Annotated[PointOption, Parameter(name="--to", help="A later revision or time; default now.")] = None,
    revision: Annotated[
        int | None, Parameter(metavar="REVISION", help="Compare the versions of the moves at this revision instead.")
    ] = None,
    options: ReadOptions = READ_DEFAULTS,
) -> None:
    """Compare aliases at two times, or versions before and after the moves at a revision.

    Examples:

        rollforward diff --from 2026-11-03T14:00Z --to 2026-11-04T14:00Z
        rollforward diff --from yesterday
        rollforward diff fraud-detector --from 17
        rollforward diff --revision 21
    """
    if (before is None) == (revision is None) or (revision is not None and (model or after)):
        raise UsageError("expected either [MODEL] --from POINT [--to POINT], or --revision REVISION")
    options.connect()
    if revision is not None:
        moves = rf.diff_move(revision)
        options.show([_plain_move(move) for move in moves], lambda: _moves(moves))
        return
    differences = rf.diff_aliases(model, before, after)
    options.show(_plain_differences(differences), lambda: _assignments(differences))


def version_differences(comparison: rf.VersionsDifference) -> RenderableType:
    """Return a table of the differences of two versions."""
    rows = [
        (difference.kind, difference.key, _value(difference, difference.before), _value(difference, difference.after))
        for difference in comparison.differences
    ]
    return grid(("KIND", "KEY", _name(comparison.before), _name(comparison.after)), rows, empty="no differences")


def _moves(moves: Sequence[rf.MoveDifference]) -> RenderableType:
    parts: list[RenderableType] = []
    for move in moves:
        parts += [changes_table([move.change], with_model=True), "", version_differences(move.versions), ""]
    return Group(*parts[:-1])


def _assignments(comparison: rf.AliasesDifference) -> RenderableType:
    rows = [
        (
            f"{difference.model}@{difference.alias}",
            *_assigned(difference.before),
            *_assigned(difference.after),
            *_origin(difference.after),
        )
        for difference in comparison.differences
    ]
    points = [
        f"position {difference.position}, {moment(difference.time)}"
        for difference in (comparison.before, comparison.after)
    ]
    headers = ("ALIAS", "FROM", "MOVED", "TO", "MOVED", "ACTOR", "REASON")
    return grid(headers, rows, title=" to ".join(points), empty="no differences")


def _assigned(alias: v1.Alias | None) -> tuple[str, str]:
    return ("-", "-") if alias is None else (version_of(alias.version), moment(alias.moved_at))


def _origin(alias: v1.Alias | None) -> tuple[str, str]:
    return ("-", "-") if alias is None else (alias.actor, alias.reason)


def plain_version_differences(comparison: rf.VersionsDifference) -> list[dict[str, object]]:
    """Return the differences of two versions as JSON."""
    return [
        {"kind": difference.kind, "key": difference.key or None, "from": difference.before, "to": difference.after}
        for difference in comparison.differences
    ]


def _plain_move(move: rf.MoveDifference) -> dict[str, object]:
    run_ids = {
        f"{side}_run_id": version.run_id or None
        for side, version in (("from", move.versions.before), ("to", move.versions.after))
        if version is not None
    }
    return {**plain(move.change), **run_ids, "differences": plain_version_differences(move.versions)}


def _plain_differences(comparison: rf.AliasesDifference) -> list[dict[str, object]]:
    return [
        {
            "model": difference.model,
            "alias": difference.alias,
            **_plain_side("from", difference.before, comparison.before),
            **_plain_side("to", difference.after, comparison.after),
            "actor": difference.after.actor if difference.after else None,
            "reason": difference.after.reason or None if difference.after else None,
        }
        for difference in comparison.differences
    ]


def _plain_side(side: str, alias: v1.Alias | None, at: v1.ResolveAliasesResponse) -> dict[str, object]:
    return {
        f"{side}_version": alias.version if alias else None,
        f"{side}_moved_at": alias.moved_at if alias else None,
        f"{side}_position": at.position,
        f"{side}_time": at.time,
    }


def _name(version: v1.Version | None) -> str:
    return "-" if version is None else f"{version.model} v{version.version}"


def _value(difference: rf.Difference, value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return short(value) if difference.kind in {"digest", "file"} else value
    return str(value) if isinstance(value, int) else number(value)
