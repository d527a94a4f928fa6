"""The `rollback` command."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

import rollforward as rf
from rollforward.cli.options import DEFAULTS, ExpectedRevision, Options, PointOption, Reason, RequestId, flag
from rollforward.cli.output.tables import grid, pairs, safe, short, version_of
from rollforward.cli.registry.evidence import gates_in_a_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rollforward import v1


def rollback(
    scope: Annotated[
        str,
        Parameter(
            name="SCOPE",
            help="MODEL@ALIAS, or MODEL for all of its aliases; both may be patterns with * and ?. '*' is everything.",
        ),
    ],
    /,
    *,
    to: Annotated[
        PointOption, Parameter(help="A revision or a time: 17, 2026-11-03T14:00Z, 2h; default the previous version.")
    ] = None,
    before_event: Annotated[
        str,
        Parameter(metavar="EVENT-ID", help="Go back to just before this event, instead of --to.", show_default=False),
    ] = "",
    dry_run: Annotated[bool, flag("Only print the changes.")] = False,
    skip_missing: Annotated[bool, flag("Leave aliases unchanged whose past version was deleted.")] = False,
    expect_position: Annotated[
        int | None,
        Parameter(metavar="POSITION", help="Fail if an alias changed after this position, that of a dry run."),
    ] = None,
    expect_revision: ExpectedRevision = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Restore past assignments of aliases, all or none.

    Each is a new event: history is never rewritten.

    Examples:

        rollforward rollback fraud-detector@champion --reason 'v2 misses frauds'
        rollforward rollback fraud-detector@champion --to 17
        rollforward rollback '*@champion' --to 2026-11-03T14:00Z --dry-run
        rollforward rollback '*' --before-event 0198f3c2-6a51-7cc0-b3ff-6f7f3a8a4d10 --skip-missing
    """
    options.connect()
    response = rf.rollback(
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
    command = ["rollback", scope, *(part for name, value in given.items() if value for part in (name, value))]
    command += ["--skip-missing"] * skip_missing
    options.show(response, lambda: _result(response, command if dry_run else []))


def _result(response: v1.RollbackResponse, dry_run_of: list[str]) -> RenderableType:
    rows = [
        (
            f"{change.model}@{change.alias}",
            version_of(change.from_version),
            version_of(change.to_version),
            short(change.to_digest) or "-",
            str(change.restored_revision or "-"),
            _note(change),
        )
        for change in response.changes
    ]
    table = grid(("ALIAS", "FROM", "TO", "DIGEST", "RESTORES>", "GATES"), rows, empty="no alias changes")
    if not dry_run_of:
        fields = {"revision": str(response.revision or ""), "restored position": str(response.to_position or "")}
        return Group(table, "", pairs(fields)) if response.revision else table
    command = shlex.join(["rollforward", *dry_run_of, "--expect-position", str(response.computed_at)])
    # Do not break the command into lines: it is to be copied.
    apply = Text(f"  {safe(command)}", no_wrap=True, overflow="ignore")
    return Group(table, "", Text("Nothing was changed. To apply exactly these changes:"), apply)


def _note(change: v1.RollbackChange) -> str:
    if change.skipped:
        return "unchanged: the version was deleted"
    return gates_in_a_line(change.evidence, change.skipped_gates)
