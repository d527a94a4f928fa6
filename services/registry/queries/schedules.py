"""What is due: scheduled moves, and assignments that end."""

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
    """What is to be done by now, because of an event of an actor: a scheduled move, or the end of an assignment.

    `revision` is that of the assignment; `schedule_id` is empty when it is one.
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
    """Return what is due, by time, and when (ns since 1970) the next is due; None when nothing is."""
    found = [
        Due(row.at, row.origin, row.alias, 0, row.schedule_id, row.actor, row.reason, row.event_id)
        for row in connection.execute(sa.select(schedules).where(schedules.c.at <= now_ns))
    ]
    ending = sa.select(aliases.c.expires_at, aliases.c.origin, alias_changes.c.change)
    ending = ending.join(alias_changes, alias_changes.c.position == aliases.c.position)
    for row in connection.execute(ending.where(aliases.c.expires_at <= now_ns)):
        change = v1.AliasChange.FromString(row.change)
        because = (change.actor, change.reason, change.event_id)
        found.append(Due(row.expires_at, row.origin, change.alias, change.revision, "", *because))
    later = [
        connection.scalar(sa.select(sa.func.min(schedules.c.at)).where(schedules.c.at > now_ns)),
        connection.scalar(sa.select(sa.func.min(aliases.c.expires_at)).where(aliases.c.expires_at > now_ns)),
    ]
    return sorted(found), min((time for time in later if time is not None), default=None)
