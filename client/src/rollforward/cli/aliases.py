"""The commands about aliases: move, look up, roll back, follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.options import (
    DEFAULTS,
    ExpectedRevision,
    Limit,
    Options,
    Reason,
    RequestId,
    VersionNumber,
    examples,
)
from rollforward.cli.output import grid, moment, pairs, plain, print_json_line, safe, version_of, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="alias", help="Aliases: move, get, history, remove.")

AliasName = Annotated[str, Parameter(name="MODEL@ALIAS", help="Such as fraud-detector@champion.")]
Wide = Annotated[str, Parameter(name="MODEL@ALIAS", help="One alias; or MODEL for all of its aliases.")]
At = Annotated[str | None, Parameter(help="A revision, or a time with its zone: 17, 2026-11-03T14:00Z.")]


@app.command(
    help_epilogue=examples(
        "alias move fraud-detector@champion v2 --reason 'beats v1'",
        "alias move fraud-detector@champion 2 --expect-revision 17",
    )
)
def move(
    reference: AliasName,
    version: Annotated[VersionNumber, Parameter(name="VERSION", help="3 or v3.")],
    /,
    *,
    reason: Reason = "",
    expect_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Move an alias to a version; where it is already, nothing changes."""
    options.connect()
    alias = rf.move_alias(reference, version, reason=reason, expected_revision=expect_revision, request_id=request_id)
    options.show(alias, lambda: _alias(alias))


@app.command(
    help_epilogue=examples(
        "alias get fraud-detector@champion",
        "alias get fraud-detector@champion --at 17",
        "alias get fraud-detector@champion --at 2026-11-03T14:00Z -o json",
    )
)
def get(reference: AliasName, /, *, at: At = None, options: Options = DEFAULTS) -> None:
    """Which version an alias names, now or in the past."""
    options.connect()
    alias = rf.resolve(reference, at)
    options.show(alias, lambda: _alias(alias))


@app.command(help_epilogue=examples("alias history fraud-detector@champion", "alias history fraud-detector --limit 10"))
def history(reference: Wide, /, *, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """Every change of an alias, newest first: when, who, why, from, to."""
    options.connect()
    changes = rf.alias_history(reference, limit=limit)
    options.show(changes, lambda: _history(changes))


@app.command(help_epilogue=examples("alias remove fraud-detector@candidate --reason 'done with'"))
def remove(
    reference: AliasName,
    /,
    *,
    reason: Reason = "",
    expect_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Remove an alias; its history stays."""
    options.connect()
    rf.remove_alias(reference, reason=reason, expected_revision=expect_revision, request_id=request_id)
    change = rf.alias_history(reference, limit=1)
    options.show(change[0], lambda: _history(change))


def rollback(
    reference: AliasName,
    /,
    *,
    to: Annotated[
        str | None, Parameter(help="A revision or a time, as in `alias get --at`; default the holder before.")
    ] = None,
    reason: Reason = "",
    expect_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Bring a past assignment of an alias back, as one more event: history is never rewritten.

    For example:

        rollforward rollback fraud-detector@champion --reason 'v2 misses frauds'
        rollforward rollback fraud-detector@champion --to 17
    """
    options.connect()
    alias = rf.rollback(reference, to, reason=reason, expected_revision=expect_revision, request_id=request_id)
    options.show(alias, lambda: _alias(alias))


def watch(
    reference: Wide,
    /,
    *,
    from_revision: Annotated[int | None, Parameter(name="--from", help="Every change after this revision.")] = None,
    options: Options = DEFAULTS,
) -> int:
    """Follow aliases: what stands now, then every change, a line each, until Ctrl-C.

    With --from the changes since that revision come first, instead of what stands.

    With -o json each line is an object with either `snapshot` or `change`.

    For example:

        rollforward watch fraud-detector@champion
        rollforward watch fraud-detector --from 17 -o json
    """
    options.connect()
    try:
        with rf.watch(reference, from_revision=from_revision) as changes:
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
    return f"{head}  {_cause(change.cause)} by {change.actor}{why}"


def _alias(alias: v1.Alias) -> RenderableType:
    return pairs(
        {"alias": f"{alias.model}@{alias.alias}", "version": version_of(alias.version), "digest": alias.digest}
        | {"revision": str(alias.revision), "since": moment(alias.moved_at), "by": alias.actor}
        | {"reason": alias.reason, "cause": _cause(alias.cause)}
    )


def _history(changes: Sequence[v1.AliasChange]) -> RenderableType:
    rows = [
        (
            str(one.revision),
            moment(one.time),
            f"@{one.alias}",
            version_of(one.from_version),
            version_of(one.to_version),
            _cause(one.cause) + (f" of {one.restored_revision}" if one.restored_revision else ""),
            one.actor,
            one.reason,
        )
        for one in changes
    ]
    return grid(("REVISION>", "WHEN", "ALIAS", "FROM", "TO", "CAUSE", "WHO", "WHY"), rows)


def _cause(cause: v1.AliasCause.ValueType) -> str:
    return word(rf.v1.AliasCause.Name(cause), "ALIAS_CAUSE_")
