"""What stands in the registry now: all that is kept in memory, the policies, and what is due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from eventstore.rows import checkpoint
from rollforward import v1
from services.registry.tables import alias_changes, aliases, model_tags, models, names, policies_table, schedules


class LiveRows(NamedTuple):
    """What is kept in memory, as of one position.

    `names` has the origin of every name that a model ever had, `taken` the position since which it has it, `current`
    the name of every origin, `changes` the last change of every alias that was ever set; `time` is that of the last
    event, in ns since 1970.
    """

    position: int
    time: int
    names: dict[str, str]
    taken: dict[str, int]
    current: dict[str, str]
    changes: dict[tuple[str, str], v1.AliasChange]
    tags: dict[str, dict[str, str]]
    policies: Sequence[v1.Policy]
    policy_revision: int


def live_rows(rows: sa.Connection) -> LiveRows:
    """All that is kept in memory."""
    at = rows.execute(sa.select(checkpoint.c.position, checkpoint.c.time)).one()
    changed = sa.select(aliases.c.origin, aliases.c.alias, alias_changes.c.change)
    changed = changed.join(alias_changes, alias_changes.c.position == aliases.c.position)
    tags: dict[str, dict[str, str]] = {}
    for row in rows.execute(sa.select(model_tags)):
        tags.setdefault(row.origin, {})[row.key] = row.value
    said = policies(rows)
    named = rows.execute(sa.select(names.c.name, names.c.origin, names.c.position)).all()
    return LiveRows(
        position=at.position,
        time=at.time,
        names={row.name: row.origin for row in named},
        taken={row.name: row.position for row in named},
        current={row.origin: row.name for row in rows.execute(sa.select(models.c.origin, models.c.name))},
        changes={(row.origin, row.alias): v1.AliasChange.FromString(row.change) for row in rows.execute(changed)},
        tags=tags,
        policies=said.policies,
        policy_revision=said.revision,
    )


def policies(rows: sa.Connection) -> v1.ListPoliciesResponse:
    """All policies that bind, by name, and their revision."""
    found = rows.execute(sa.select(policies_table).order_by(policies_table.c.name)).all()
    return v1.ListPoliciesResponse(
        policies=[v1.Policy.FromString(row.policy) for row in found if row.policy is not None],
        revision=max((row.revision for row in found), default=0),
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


def due(rows: sa.Connection, now_ns: int) -> tuple[Sequence[Due], int | None]:
    """What is due, in the order of its times; and when (ns since 1970) the next thing will be, if there is one."""
    found = [
        Due(row.at, row.origin, row.alias, 0, row.schedule_id, row.actor, row.reason, row.event_id)
        for row in rows.execute(sa.select(schedules).where(schedules.c.at <= now_ns))
    ]
    ending = sa.select(aliases.c.expires_at, aliases.c.origin, alias_changes.c.change)
    ending = ending.join(alias_changes, alias_changes.c.position == aliases.c.position)
    for row in rows.execute(ending.where(aliases.c.expires_at <= now_ns)):
        change = v1.AliasChange.FromString(row.change)
        because = (change.actor, change.reason, change.event_id)
        found.append(Due(row.expires_at, row.origin, change.alias, change.revision, "", *because))
    later = [
        rows.scalar(sa.select(sa.func.min(schedules.c.at)).where(schedules.c.at > now_ns)),
        rows.scalar(sa.select(sa.func.min(aliases.c.expires_at)).where(aliases.c.expires_at > now_ns)),
    ]
    return sorted(found), min((time for time in later if time is not None), default=None)
