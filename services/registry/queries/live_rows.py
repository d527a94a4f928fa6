"""Everything that the registry's live view keeps in memory, as of one position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from eventstore import moment_of
from rollforward import v1
from services.registry.projection.tables import alias_changes, aliases, model_tags, models, names
from services.registry.queries.policies import policies


class LiveRows(NamedTuple):
    """The state that the live view keeps in memory, as of one position.

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


def live_rows(connection: sa.Connection) -> LiveRows:
    """Read the state that the live view keeps in memory."""
    position, time = moment_of(connection)
    changed = sa.select(aliases.c.origin, aliases.c.alias, alias_changes.c.change)
    changed = changed.join(alias_changes, alias_changes.c.position == aliases.c.position)
    tags: dict[str, dict[str, str]] = {}
    for row in connection.execute(sa.select(model_tags)):
        tags.setdefault(row.origin, {})[row.key] = row.value
    current_policies = policies(connection)
    named = connection.execute(sa.select(names.c.name, names.c.origin, names.c.position)).all()
    return LiveRows(
        position=position,
        time=time,
        names={row.name: row.origin for row in named},
        taken={row.name: row.position for row in named},
        current={row.origin: row.name for row in connection.execute(sa.select(models.c.origin, models.c.name))},
        changes={(row.origin, row.alias): v1.AliasChange.FromString(row.change) for row in connection.execute(changed)},
        tags=tags,
        policies=current_policies.policies,
        policy_revision=current_policies.revision,
    )
