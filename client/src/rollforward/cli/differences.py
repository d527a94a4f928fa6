"""What differs between two points in the past, two versions, or before and after a move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Group

import rollforward as rf
from rollforward.cli.failures import UsageError
from rollforward.cli.history import changes_table
from rollforward.cli.options import DEFAULTS, Options
from rollforward.cli.output import grid, moment, number, short, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1


def diff(
    model: Annotated[str, Parameter(name="MODEL", help="One model; default all.", show_default=False)] = "",
    /,
    *,
    before: Annotated[str | None, Parameter(name="--from", help="A revision, or a time with its zone.")] = None,
    after: Annotated[str | None, Parameter(name="--to", help="Another; default now.")] = None,
    revision: Annotated[int | None, Parameter(help="Instead: what the moves at this revision changed.")] = None,
    options: Options = DEFAULTS,
) -> None:
    """Which aliases name another version at one point than at another; or what the moves at a revision changed.

    For example:

        rollforward diff --from 2026-11-03T14:00Z --to 2026-11-04T14:00Z
        rollforward diff fraud-detector --from 17
        rollforward diff --revision 21
    """
    if (before is None) == (revision is None) or (revision is not None and (model or after)):
        raise UsageError("diff takes either [MODEL] --from POINT [--to POINT] or --revision REVISION")
    options.connect()
    if revision is not None:
        moves = rf.diff_move(revision)
        options.show(moves, lambda: _moves(moves))
        return
    found = rf.diff_aliases(model, before, after)
    answer = {"from": _point(found.before), "to": _point(found.after), "differences": found.differences}
    options.show(answer, lambda: _assignments(found))


def version_differences(found: rf.VersionsDifference) -> RenderableType:
    """A line for each thing that differs between two versions."""
    rows = [(one.kind, one.key, _value(one, one.before), _value(one, one.after)) for one in found.differences]
    return grid(("WHAT", "KEY", _name(found.before), _name(found.after)), rows)


def _moves(moves: Sequence[rf.MoveDifference]) -> RenderableType:
    parts: list[RenderableType] = []
    for one in moves:
        parts += [changes_table([one.change], with_model=True), "", version_differences(one.versions), ""]
    return Group(*parts[:-1])


def _assignments(found: rf.AliasesDifference) -> RenderableType:
    rows = [
        (f"{one.model}@{one.alias}", *_held(one.before), *_held(one.after), *_who(one.after))
        for one in found.differences
    ]
    points = [f"position {one.position}, {moment(one.time)}" for one in (found.before, found.after)]
    headers = ("ALIAS", "BEFORE", "SINCE", "AFTER", "SINCE", "BY", "WHY")
    return grid(headers, rows, title=" to ".join(points))


def _held(alias: v1.Alias | None) -> tuple[str, str]:
    return ("-", "-") if alias is None else (version_of(alias.version), moment(alias.moved_at))


def _who(alias: v1.Alias | None) -> tuple[str, str]:
    return ("-", "-") if alias is None else (alias.actor, alias.reason)


def _point(resolved: v1.ResolveAliasesResponse) -> dict[str, object]:
    return {"position": resolved.position, "time": resolved.time}


def _name(version: v1.Version | None) -> str:
    return "-" if version is None else f"{version.model} v{version.version}"


def _value(difference: rf.Difference, value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return short(value) if difference.kind in {"digest", "file"} else value
    return str(value) if isinstance(value, int) else number(value)
