"""Due work: scheduled moves, and assignments that expire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from rollforward import v1
from services.registry.projection.tables import (
    alias_changes,
    aliases,
    schedules,
)


class Due(NamedTuple):
    """A due scheduled move or end of an assignment, with the actor, reason and id of the event that set it.

    `revision` is that of the assignment; `schedule_id` is empty for an assignment.
    """

    at: int
    origin: str
    alias: str
    revision: int
    schedule_id: str
    actor: str
    reason: str
    event_id: str


def due(connection: sa.Connection, now_ns: int) -> tuple[Sequence[Due], int | None]:
    """Return the due work by time, and when (ns since 1970) the next is due; None if nothing is."""
    due_now = [
        Due(row.at, row.origin, row.alias, 0, row.schedule_id, row.actor, row.reason, row.event_id)
        for row in connection.execute(sa.select(schedules).where(schedules.c.at <= now_ns))
    ]
    ending = sa.select(aliases.c.expires_at, aliases.c.origin, alias_changes.c.change)
    ending = ending.join(alias_changes, alias_changes.c.position == aliases.c.position)
    for row in connection.execute(ending.where(aliases.c.expires_at <= now_ns)):
        change = v1.AliasChange.FromString(row.change)
        origin_event = (change.actor, change.reason, change.event_id)
        due_now.append(Due(row.expires_at, row.origin, change.alias, change.revision, "", *origin_event))
    later = [
        connection.scalar(sa.select(sa.func.min(schedules.c.at)).where(schedules.c.at > now_ns)),
        connection.scalar(sa.select(sa.func.min(aliases.c.expires_at)).where(aliases.c.expires_at > now_ns)),
    ]
    return sorted(due_now), min((time for time in later if time is not None), default=None)
