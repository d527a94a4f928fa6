"""The command that follows aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward.cli.history import Wide
from rollforward.cli.options import DEFAULTS, Options, pairs_of
from rollforward.cli.output import cause_of, moment, plain, print_json_line, safe, version_of

if TYPE_CHECKING:
    from rollforward import v1


def watch(
    reference: Wide = "",
    /,
    *,
    from_revision: Annotated[int | None, Parameter(name="--from", help="Every change after this revision.")] = None,
    tag: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="KEY=VALUE: only of models that have it; may be repeated."),
    ] = (),
    options: Options = DEFAULTS,
) -> int:
    """Follow aliases: what stands now, then every change, a line each, until Ctrl-C.

    With --from the changes since that revision come first, instead of what stands.

    With -o json each line is an object with either `snapshot` or `change`.

    For example:

        rollforward watch fraud-detector@champion
        rollforward watch @champion --tag team=risk
        rollforward watch fraud-detector --from 17 -o json
    """
    tags = pairs_of(tag) if tag else {}
    options.connect()
    try:
        with rf.watch(reference, from_revision=from_revision, tags=tags) as changes:
            for alias in changes.aliases:
                _print_step("snapshot", alias, _standing(alias), options)
            for change in changes:
                _print_step("change", change, _line(change), options)
    except KeyboardInterrupt:
        # There is no other way to have seen enough.
        return 0
    return 0


def _print_step(kind: str, step: v1.Alias | v1.AliasChange, line: str, options: Options) -> None:
    if options.json:
        print_json_line({kind: plain(step)})
    else:
        print(safe(line), flush=True)


def _standing(alias: v1.Alias) -> str:
    held = version_of(alias.version)
    return f"{moment(alias.moved_at)}  revision {alias.revision}  {alias.model}@{alias.alias} is {held}"


def _line(change: v1.AliasChange) -> str:
    moved = f"{change.model}@{change.alias} {version_of(change.from_version)} -> {version_of(change.to_version)}"
    why = f": {change.reason}" if change.reason else ""
    head = f"{moment(change.time)}  revision {change.revision}  {moved}"
    return f"{head}  {cause_of(change)} by {change.actor}{why}"
