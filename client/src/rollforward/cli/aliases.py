"""The commands about aliases as they stand: move, look up, remove."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.failures import UsageError
from rollforward.cli.history import changes_table, history, intervals
from rollforward.cli.options import (
    DEFAULTS,
    AliasName,
    At,
    ExpectedRevision,
    Options,
    Reason,
    RequestId,
    examples,
    read_version,
)
from rollforward.cli.output import cause_of, grid, moment, pairs, plain, version_of
from rollforward.cli.schedules import cancel, schedule, schedules

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(
    name="alias", help="Aliases: move, get, list, remove, history, intervals, schedule, schedules, cancel."
)
for _command in (history, intervals, schedule, schedules, cancel):
    app.command(_command)

_TARGET: Final = re.compile(r"(.+@[^@=]+)=(.*)")


@app.command(
    help_epilogue=examples(
        "alias move fraud-detector@champion v2 --reason 'beats v1'",
        "alias move fraud-detector@champion 2 --expect-revision 17",
        "alias move fraud-detector@canary v3 --expires-at 2026-11-04T08:00Z",
        "alias move fraud-detector@champion=3 fraud-limits@champion=7 --expect fraud-limits@champion=21",
    )
)
def move(
    *targets: Annotated[
        str,
        Parameter(
            name="TARGET",
            help="MODEL@ALIAS VERSION; or several MODEL@ALIAS=VERSION, which move at one revision or not at all.",
        ),
    ],
    reason: Reason = "",
    expires_at: Annotated[
        str | None,
        Parameter(
            help="When the alias is removed again, unless it was changed before; for one alias. Without it, never."
        ),
    ] = None,
    expect_revision: ExpectedRevision = None,
    expect: Annotated[
        tuple[str, ...],
        Parameter(negative="", show_default=False, help="MODEL@ALIAS=REVISION that you saw; may be repeated."),
    ] = (),
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Move an alias to a version, or several at one revision; where they are already, nothing changes."""
    chosen = _targets(targets)
    if len(chosen) > 1 or expect:
        if expires_at or expect_revision is not None:
            raise UsageError("several aliases are moved with --expect MODEL@ALIAS=REVISION, and without --expires-at")
        _move_together(chosen, _assignments(expect, "REVISION"), reason, request_id, options)
        return
    options.connect()
    ((reference, version),) = chosen.items()
    alias = rf.move_alias(
        reference,
        version,
        reason=reason,
        expires_at=expires_at,
        expected_revision=expect_revision,
        request_id=request_id,
    )
    options.show(alias, lambda: alias_facts(alias))


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
    found = rf.resolve_alias(reference, at)
    holds = {"position": found.position, "time": found.time}
    options.show({**plain(found.alias), "as_of": holds}, lambda: alias_facts(found.alias, _point(found)))


@app.command(
    name="list",
    help_epilogue=examples("alias list", "alias list fraud-detector --at 2026-11-03T14:00Z", "alias list --at 17"),
)
def list_aliases(
    model: Annotated[str, Parameter(name="MODEL", help="One model; default all.", show_default=False)] = "",
    /,
    *,
    at: At = None,
    options: Options = DEFAULTS,
) -> None:
    """Which versions all aliases name, of a model or of all models, now or in the past."""
    options.connect()
    found = rf.resolve_all(model, at)
    answer = {"aliases": list(found.aliases), "position": found.position, "time": found.time}
    options.show(answer, lambda: _aliases(found.aliases, _point(found)))


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
    options.show(change[0], lambda: changes_table(change))


def alias_facts(alias: v1.Alias, point: str = "") -> RenderableType:
    """All about one assignment."""
    return pairs(
        {"alias": f"{alias.model}@{alias.alias}", "version": version_of(alias.version), "digest": alias.digest}
        | {"revision": str(alias.revision), "since": moment(alias.moved_at), "by": alias.actor}
        | {"reason": alias.reason, "cause": cause_of(alias)}
        | {"until": moment(alias.expires_at) if alias.HasField("expires_at") else "", "as of": point}
    )


def _move_together(
    targets: Mapping[str, int], expected: Mapping[str, int], reason: str, request_id: str | None, options: Options
) -> None:
    if unknown := expected.keys() - targets.keys():
        raise UsageError(f"--expect names what is not moved: {', '.join(sorted(unknown))}")
    options.connect()
    messages = []
    for reference, version in targets.items():
        model, _, alias = reference.rpartition("@")
        message = rf.v1.AliasTarget(model=model, alias=alias, version=version)
        if reference in expected:
            message.expected_revision = expected[reference]
        messages.append(message)
    moved = rf.move_aliases(messages, reason=reason, request_id=request_id)
    options.show(moved, lambda: _aliases(moved.aliases, ""))


def _targets(words: Sequence[str]) -> dict[str, int]:
    if len(words) == 2 and not _TARGET.fullmatch(words[0]):
        return {words[0]: _number(words[1])}
    found = _assignments(words, "VERSION")
    if not found:
        raise UsageError("move takes MODEL@ALIAS VERSION, or several MODEL@ALIAS=VERSION")
    return found


def _assignments(words: Sequence[str], what: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        parts = _TARGET.fullmatch(word)
        if parts is None:
            raise UsageError(f"{word!r} is not MODEL@ALIAS={what}")
        if parts[1] in found:
            raise UsageError(f"{parts[1]} is there twice")
        found[parts[1]] = 0 if what == "REVISION" and parts[2] == "0" else _number(parts[2])
    return found


def _number(text: str) -> int:
    try:
        return read_version(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _aliases(aliases: Sequence[v1.Alias], point: str) -> RenderableType:
    rows = [
        (
            f"{one.model}@{one.alias}",
            version_of(one.version),
            str(one.revision),
            moment(one.moved_at),
            one.actor,
            one.reason,
        )
        for one in aliases
    ]
    return grid(("ALIAS", "VERSION", "REVISION>", "SINCE", "BY", "WHY"), rows, title=point and f"as of {point}")


def _point(found: v1.ResolveAliasResponse | v1.ResolveAliasesResponse) -> str:
    return f"position {found.position}, {moment(found.time)}"
