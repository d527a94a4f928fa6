"""The `aliases` commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.options import (
    DEFAULTS,
    AliasName,
    AnyModel,
    At,
    ExpectedRevision,
    Options,
    Reason,
    RequestId,
    examples,
    future_time,
    read_version,
)
from rollforward.cli.output.failures import UsageError
from rollforward.cli.output.tables import cause_of, grid, moment, pairs, plain, version_of
from rollforward.cli.registry.history import changes_table, history, intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="aliases", help="Move, look up and remove aliases, show their history.")
app.command(
    history,
    help_epilogue=examples(
        "aliases history fraud-detector@champion",
        "aliases history @champion --cause rollback --since 2026-11-01",
        "aliases history fraud-detector --actor alice --since 2w --limit 10",
    ),
)
app.command(
    intervals,
    help_epilogue=examples(
        "aliases intervals fraud-detector@champion",
        "aliases intervals fraud-detector@champion --since 2026-11-01 -o json",
    ),
)

_ExpiresAt = Annotated[
    str | None,
    Parameter(
        metavar="TIME",
        converter=future_time,
        help="Remove the alias at this time, unless it changes before; only for a single alias: "
        "2026-11-04T08:00Z, 2h. Default never.",
    ),
]
_ExpectedRevisions = Annotated[
    tuple[str, ...],
    Parameter(
        metavar="MODEL@ALIAS=REVISION",
        negative="",
        show_default=False,
        help="Fail unless that alias is at this revision; may be repeated.",
    ),
]
_TARGET: Final = re.compile(r"(.+@[^@=]+)=(.*)")


@app.command(
    help_epilogue=examples(
        "aliases move fraud-detector@champion v2 --reason 'beats v1'",
        "aliases move fraud-detector@champion 2 --expect-revision 17",
        "aliases move fraud-detector@canary v3 --expires-at 2026-11-04T08:00Z",
        "aliases move fraud-detector@champion=3 fraud-limits@champion=7 --expect fraud-limits@champion=21",
    )
)
def move(
    *targets: Annotated[
        str,
        Parameter(
            name="TARGET",
            required=True,
            help="MODEL@ALIAS VERSION; or several MODEL@ALIAS=VERSION, which move at one revision, all or none.",
        ),
    ],
    reason: Reason = "",
    expires_at: _ExpiresAt = None,
    expect_revision: ExpectedRevision = None,
    expect: _ExpectedRevisions = (),
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Move an alias to a version, or several aliases at one revision."""
    targets_by_alias = _targets(targets)
    if len(targets_by_alias) > 1 or expect:
        if expires_at or expect_revision is not None:
            raise UsageError(
                "--expires-at and --expect-revision are for a single alias: use --expect MODEL@ALIAS=REVISION"
            )
        _move_together(targets_by_alias, _assignments(expect, "REVISION"), reason, request_id, options)
        return
    options.connect()
    ((reference, version),) = targets_by_alias.items()
    moved = rf.move_alias_response(
        reference,
        version,
        reason=reason,
        expires_at=expires_at,
        expected_revision=expect_revision,
        request_id=request_id,
    )
    result = {**plain(moved.alias), "moved": moved.moved, "created": moved.HasField("created")}
    options.show(result, lambda: alias_details(moved.alias, outcome=_outcome(moved)))


def _outcome(moved: v1.MoveAliasResponse) -> str:
    if not moved.moved:
        return "unchanged"
    return "created: the alias was not set before" if moved.HasField("created") else "moved"


@app.command(
    help_epilogue=examples(
        "aliases get fraud-detector@champion",
        "aliases get fraud-detector@champion --at 17",
        "aliases get fraud-detector@champion --at 2026-11-03T14:00Z -o json",
    )
)
def get(reference: AliasName, /, *, at: At = None, options: Options = DEFAULTS) -> None:
    """Show which version an alias points to, now or in the past."""
    options.connect()
    resolved = rf.resolve_alias(reference, at)
    options.show(_as_of(resolved.alias, resolved), lambda: alias_details(resolved.alias, _point(resolved)))


@app.command(
    name="list",
    help_epilogue=examples(
        "aliases list", "aliases list fraud-detector --at 2026-11-03T14:00Z", "aliases list --at 17"
    ),
)
def list_aliases(
    model: AnyModel = "",
    /,
    *,
    at: At = None,
    options: Options = DEFAULTS,
) -> None:
    """List the aliases of a model, or of all, with their versions, now or in the past."""
    options.connect()
    resolved = rf.resolve_all(model, at)
    options.show(
        [_as_of(alias, resolved) for alias in resolved.aliases], lambda: _aliases(resolved.aliases, _point(resolved))
    )


@app.command(help_epilogue=examples("aliases remove fraud-detector@candidate --reason 'tests are over'"))
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


def alias_details(alias: v1.Alias, point: str = "", outcome: str = "") -> RenderableType:
    """Return the details of one assignment."""
    return pairs(
        {"alias": f"{alias.model}@{alias.alias}", "version": version_of(alias.version), "digest": alias.digest}
        | {"revision": str(alias.revision), "moved": moment(alias.moved_at), "actor": alias.actor}
        | {"reason": alias.reason, "cause": cause_of(alias)}
        | {"outcome": outcome}
        | {"expires": moment(alias.expires_at) if alias.HasField("expires_at") else "", "as of": point}
    )


def _move_together(
    targets: Mapping[str, int], expected: Mapping[str, int], reason: str, request_id: str | None, options: Options
) -> None:
    if unknown := expected.keys() - targets.keys():
        raise UsageError(f"--expect is for aliases in this move, got {', '.join(sorted(unknown))}")
    options.connect()
    messages = []
    for reference, version in targets.items():
        model, _, alias = reference.rpartition("@")
        message = rf.v1.AliasTarget(model=model, alias=alias, version=version)
        if reference in expected:
            message.expected_revision = expected[reference]
        messages.append(message)
    moved = rf.move_aliases(messages, reason=reason, request_id=request_id)
    options.show(moved.aliases, lambda: _aliases(moved.aliases, ""))


def _targets(texts: Sequence[str]) -> dict[str, int]:
    if len(texts) == 2 and not _TARGET.fullmatch(texts[0]):
        return {texts[0]: _number(texts[1])}
    return _assignments(texts, "VERSION")


def _assignments(texts: Sequence[str], value: str) -> dict[str, int]:
    assignments: dict[str, int] = {}
    for text in texts:
        parts = _TARGET.fullmatch(text)
        if parts is None:
            raise UsageError(f"invalid target {text!r}: expected MODEL@ALIAS={value}")
        if parts[1] in assignments:
            raise UsageError(f"duplicate alias {parts[1]}: name it once")
        assignments[parts[1]] = 0 if value == "REVISION" and parts[2] == "0" else _number(parts[2])
    return assignments


def _number(text: str) -> int:
    try:
        return read_version(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _aliases(aliases: Sequence[v1.Alias], point: str) -> RenderableType:
    rows = [
        (
            f"{alias.model}@{alias.alias}",
            version_of(alias.version),
            str(alias.revision),
            moment(alias.moved_at),
            alias.actor,
            alias.reason,
        )
        for alias in aliases
    ]
    headers = ("ALIAS", "VERSION", "REVISION>", "MOVED", "ACTOR", "REASON")
    return grid(headers, rows, title=point and f"as of {point}", empty="no aliases match")


def _as_of(alias: v1.Alias, resolved: v1.ResolveAliasResponse | v1.ResolveAliasesResponse) -> dict[str, object]:
    return {**plain(alias), "as_of_position": resolved.position, "as_of_time": resolved.time}


def _point(resolved: v1.ResolveAliasResponse | v1.ResolveAliasesResponse) -> str:
    epoch = f" of epoch {resolved.epoch}" if resolved.epoch else ""
    return f"position {resolved.position}{epoch}, {moment(resolved.time)}"
