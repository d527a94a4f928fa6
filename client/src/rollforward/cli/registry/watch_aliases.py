"""The `watch` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

import rollforward as rf
from rollforward.cli.options import READ_DEFAULTS, ReadOptions, read_pairs
from rollforward.cli.output.tables import cause_of, moment, plain, print_json_line, safe, version_of
from rollforward.cli.registry.history import AliasScope

if TYPE_CHECKING:
    from rollforward import v1


def watch(
    reference: AliasScope = "",
    /,
    *,
    after: Annotated[
        int | None,
        Parameter(metavar="REVISION", validator=Number(gte=0), help="Start with the changes after this revision."),
    ] = None,
    tag: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="KEY=VALUE",
            negative="",
            show_default=False,
            help="Only aliases of models that have this tag; may be repeated.",
        ),
    ] = (),
    options: ReadOptions = READ_DEFAULTS,
) -> int:
    """Print the current assignments of aliases, then every change, one per line, until Ctrl-C.

    With --after, print the changes after that revision instead of the current assignments.

    With -o json, each line is an object with either `snapshot` or `change`.

    Examples:

        rollforward watch fraud-detector@champion
        rollforward watch @champion --tag team=risk
        rollforward watch fraud-detector --after 17 -o json
    """
    tags = read_pairs(tag)
    options.connect()
    try:
        with rf.watch(reference, from_revision=after, tags=tags) as changes:
            for alias in changes.aliases:
                _print_step("snapshot", alias, _current_state(alias), options)
            for change in changes:
                _print_step("change", change, _line(change), options)
    except KeyboardInterrupt:
        # Ctrl-C is the normal end of a watch.
        return 0
    return 0


def _print_step(kind: str, step: v1.Alias | v1.AliasChange, line: str, options: ReadOptions) -> None:
    if options.json:
        print_json_line({kind: plain(step)})
    else:
        print(safe(line), flush=True)


def _current_state(alias: v1.Alias) -> str:
    name, version = f"{alias.model}@{alias.alias}", version_of(alias.version)
    return f"{moment(alias.moved_at)}  revision {alias.revision}  {name} is {version}"


def _line(change: v1.AliasChange) -> str:
    moved = f"{change.model}@{change.alias} {version_of(change.from_version)} -> {version_of(change.to_version)}"
    reason = f": {change.reason}" if change.reason else ""
    head = f"{moment(change.time)}  revision {change.revision}  {moved}"
    return f"{head}  {cause_of(change)} by {change.actor}{reason}"
