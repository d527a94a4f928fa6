"""The command that brings past assignments back."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

import rollforward as rf
from rollforward.cli.evidence import gates_in_a_line
from rollforward.cli.options import DEFAULTS, ExpectedRevision, Options, Reason, RequestId
from rollforward.cli.output import grid, pairs, safe, short, version_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rollforward import v1


def rollback(
    scope: Annotated[
        str,
        Parameter(
            name="SCOPE",
            help="MODEL@ALIAS, MODEL for all of its aliases, either with * and ? as a pattern; '*' is everything.",
        ),
    ],
    /,
    *,
    to: Annotated[
        str | None, Parameter(help="A revision or a time, as in `alias get --at`; default the holder before.")
    ] = None,
    before_event: Annotated[
        str, Parameter(help="The id of an event: to just before it, instead of --to.", show_default=False)
    ] = "",
    dry_run: Annotated[bool, Parameter(negative="", help="Only print what would change.")] = False,
    skip_missing: Annotated[
        bool, Parameter(negative="", help="Leave aliases as they are whose past version was deleted.")
    ] = False,
    expect_position: Annotated[
        int | None, Parameter(help="Of the dry run that you saw: refused if an alias was changed since.")
    ] = None,
    expect_revision: ExpectedRevision = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Bring past assignments back, as one more event each, all or none: history is never rewritten.

    For example:

        rollforward rollback fraud-detector@champion --reason 'v2 misses frauds'
        rollforward rollback fraud-detector@champion --to 17
        rollforward rollback '*@champion' --to 2026-11-03T14:00Z --dry-run
        rollforward rollback '*' --before-event 0198f3c2-6a51-7cc0-b3ff-6f7f3a8a4d10 --skip-missing
    """
    options.connect()
    found = rf.rollback(
        scope,
        to,
        before_event=before_event,
        dry_run=dry_run,
        skip_missing=skip_missing,
        expected_position=expect_position,
        expected_revision=expect_revision,
        reason=reason,
        request_id=request_id,
    )
    given = {"--to": to or "", "--before-event": before_event, "--reason": reason}
    words = ["rollback", scope, *(word for name, value in given.items() if value for word in (name, value))]
    words += ["--skip-missing"] * skip_missing
    options.show(found, lambda: _answer(found, words if dry_run else []))


def _answer(found: v1.RollbackResponse, dry_run_of: list[str]) -> RenderableType:
    rows = [
        (
            f"{one.model}@{one.alias}",
            version_of(one.from_version),
            version_of(one.to_version),
            short(one.to_digest) or "-",
            str(one.restored_revision or "-"),
            _note(one),
        )
        for one in found.changes
    ]
    table = grid(("ALIAS", "FROM", "TO", "DIGEST", "RESTORES>", "GATES"), rows)
    if not dry_run_of:
        facts = {"revision": str(found.revision or ""), "back to position": str(found.to_position or "")}
        return Group(table, "", pairs(facts)) if found.revision else table
    words = shlex.join(["rollforward", *dry_run_of, "--expect-position", str(found.computed_at)])
    # Words that can be copied are not broken into lines.
    again = Text(f"  {safe(words)}", no_wrap=True, overflow="ignore")
    return Group(table, "", Text("Nothing was changed. To do exactly this:"), again)


def _note(change: v1.RollbackChange) -> str:
    if change.skipped:
        return "left as it is: the version was deleted"
    return gates_in_a_line(change.evidence, change.skipped_gates)
