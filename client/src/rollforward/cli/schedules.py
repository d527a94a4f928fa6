"""The commands about moves that are made at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

import rollforward as rf
from rollforward.cli.options import (
    DEFAULTS,
    AliasName,
    ExpectedRevision,
    Limit,
    ModelName,
    Options,
    Reason,
    RequestId,
    VersionNumber,
)
from rollforward.cli.output import grid, moment, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1


def schedule(
    reference: AliasName,
    version: VersionNumber,
    /,
    *,
    at: Annotated[str, Parameter(help="When: a time with its zone, 2026-11-03T14:00Z.")],
    reason: Reason = "",
    expect_revision: ExpectedRevision = None,
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Have an alias moved at a time, once; its gates are asked then.

    For example:

        rollforward alias schedule fraud-detector@champion v3 --at 2026-11-04T02:00Z --reason 'quiet hours'
    """
    options.connect()
    made = rf.schedule_move(
        reference, version, at, reason=reason, expected_revision=expect_revision, request_id=request_id
    )
    options.show(made, lambda: _schedules([made]))


def schedules(
    model: Annotated[str, Parameter(name="MODEL", help="One model; default all.", show_default=False)] = "",
    /,
    *,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """The moves that are still to come, the next one first.

    For example:

        rollforward alias schedules
        rollforward alias schedules fraud-detector
    """
    options.connect()
    found = rf.list_schedules(model, limit=limit)
    options.show(found, lambda: _schedules(found))


def cancel(
    model: ModelName,
    schedule_id: Annotated[str, Parameter(name="SCHEDULE", help="As `alias schedules` shows it.")],
    /,
    *,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Call a scheduled move off, and show those that are left.

    For example:

        rollforward alias cancel fraud-detector 5f0c0f6d4a8e4f5b9d5a3a1f0c9b7e21 --reason 'found a defect'
    """
    options.connect()
    rf.cancel_schedule(model, schedule_id, reason=reason, request_id=request_id)
    left = rf.list_schedules(model)
    options.show(left, lambda: _schedules(left))


def _schedules(found: Sequence[v1.Schedule]) -> RenderableType:
    rows = [
        (
            moment(one.at),
            f"{one.model}@{one.alias}",
            version_of(one.version),
            str(one.expected_revision) if one.HasField("expected_revision") else "any",
            one.schedule_id,
            one.actor,
            one.reason,
        )
        for one in found
    ]
    return grid(("AT", "ALIAS", "TO", "IF AT REVISION", "SCHEDULE", "BY", "WHY"), rows)
