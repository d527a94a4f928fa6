"""The `schedules` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.identifiers import schedule_id
from rollforward.cli.options import (
    DEFAULTS,
    AliasName,
    AnyModel,
    ExpectedRevision,
    Limit,
    ModelName,
    Options,
    Reason,
    RequestId,
    VersionNumber,
    examples,
    future_time,
)
from rollforward.cli.output.tables import grid, moment, short_id, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(name="schedules", help="Schedule moves, list and cancel them.")


@app.command(
    help_epilogue=examples(
        "schedules create fraud-detector@champion v3 --at 2026-11-04T02:00Z --reason 'quiet hours'",
        "schedules create fraud-detector@champion v3 --at 2h",
    )
)
def create(
    reference: AliasName,
    version: VersionNumber,
    /,
    *,
    at: Annotated[
        str,
        Parameter(metavar="TIME", converter=future_time, help="When: 2026-11-03T14:00Z, 2026-11-03, or 2h from now."),
    ],
    reason: Reason = "",
    expect_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Schedule a move of an alias; gates are evaluated at that time."""
    options.connect()
    schedule = rf.schedule_move(
        reference, version, at, reason=reason, expected_revision=expect_revision, request_id=request_id
    )
    options.show(schedule, lambda: _schedules([schedule], wide=True))


@app.command(name="list", help_epilogue=examples("schedules list", "schedules list fraud-detector"))
def list_schedules(model: AnyModel = "", /, *, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """List pending moves, the next one first."""
    options.connect()
    schedules = rf.list_schedules(model, limit=limit)
    options.show(schedules, lambda: _schedules(schedules, wide=options.wide))


@app.command(help_epilogue=examples("schedules cancel fraud-detector 5f0c0f6d --reason 'found a defect'"))
def cancel(
    model: ModelName,
    schedule: Annotated[str, Parameter(name="SCHEDULE", help="The schedule's id, or a unique prefix of it.")],
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Cancel a scheduled move, and list the model's remaining ones."""
    options.connect()
    rf.cancel_schedule(model, schedule_id(model, schedule), reason=reason, request_id=request_id)
    remaining = rf.list_schedules(model)
    options.show(remaining, lambda: _schedules(remaining, wide=options.wide))


def _schedules(schedules: Sequence[v1.Schedule], *, wide: bool) -> RenderableType:
    rows = [
        (
            moment(schedule.at),
            f"{schedule.model}@{schedule.alias}",
            version_of(schedule.version),
            str(schedule.expected_revision) if schedule.HasField("expected_revision") else "any",
            short_id(schedule.schedule_id, wide=wide),
            schedule.actor,
            schedule.reason,
        )
        for schedule in schedules
    ]
    return grid(("DUE", "ALIAS", "TO", "IF AT REVISION", "SCHEDULE", "ACTOR", "REASON"), rows, empty="no schedules")
