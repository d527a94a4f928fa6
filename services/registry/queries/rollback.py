"""What aliases were, many at once: what rollbacks are planned from, in a few statements whatever their number."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from eventstore import MAX_APPEND_EVENTS
from rollforward import v1
from services.listings.globs import literal_start, matcher
from services.registry.projection.tables import alias_changes, aliases, event_ids, models, versions
from services.sql.columns import TEXT

T = TypeVar("T")

CHUNK = 500
"""How many keys one statement is given."""

Key = tuple[str, str]
"""An alias: its model's origin, and its name."""


class CurrentAssignment(NamedTuple):
    """An alias as it stands: `version` 0 when it was removed, `stream_revision` what an append to its model expects."""

    origin: str
    model: str
    alias: str
    version: int
    revision: int
    position: int
    digest: str
    stream_revision: int
    model_deleted: bool


class KnownVersion(NamedTuple):
    """What bringing a version back depends on."""

    digest: str
    deleted: bool
    status: int
    run_id: str


_HELD = (
    sa.select(
        aliases.c.origin,
        models.c.name,
        aliases.c.alias,
        aliases.c.version,
        aliases.c.revision,
        aliases.c.position,
        sa.func.coalesce(versions.c.digest, ""),
        models.c.stream_revision,
        models.c.deleted_at.is_not(None),
    )
    .select_from(aliases)
    .join(models, models.c.origin == aliases.c.origin)
    .outerjoin(versions, sa.and_(versions.c.origin == aliases.c.origin, versions.c.version == aliases.c.version))
    .order_by(models.c.name, aliases.c.alias)
)


def assignments_in(connection: sa.Connection, models_glob: str, aliases_glob: str) -> list[CurrentAssignment]:
    """Every alias that ever was set and whose name and model's name match, by model and alias."""
    wanted = _HELD.where(_may_match(models.c.name, models_glob), _may_match(aliases.c.alias, aliases_glob))
    model, alias = matcher(models_glob), matcher(aliases_glob)
    return [CurrentAssignment(*row) for row in connection.execute(wanted) if model(row[1]) and alias(row[2])]


def _may_match(column: sa.ColumnElement[str], glob: str) -> sa.ColumnElement[bool]:
    """Return a condition on names, which begin with the part before the first wildcard, so that few rows are read."""
    start = literal_start(glob)
    if start == glob:
        return column == glob
    return sa.func.substr(column, 1, len(start)) == start if start else sa.true()


def assignments_at(connection: sa.Connection, keys: Iterable[Key], position: int) -> dict[Key, v1.AliasChange]:
    """By alias, its last change up to a position; an alias that was not yet set then has none."""
    past = alias_changes.alias("past")
    return _changes(connection, keys, past, past.c.position <= position, past.c.revision <= position)


def previous_holders(connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, v1.AliasChange]:
    """By alias, the newest change that gave it to another version than the one which holds it now."""
    past = alias_changes.alias("past")
    return _changes(connection, keys, past, past.c.to_version > 0, past.c.to_version != aliases.c.version)


def _changes(
    connection: sa.Connection, keys: Iterable[Key], past: Any, *conditions: sa.ColumnElement[bool]
) -> dict[Key, v1.AliasChange]:
    """By alias, the newest change that meets the conditions."""
    same = (past.c.origin == aliases.c.origin, past.c.alias == aliases.c.alias)
    newest = sa.select(past.c.position).where(*same, *conditions).order_by(past.c.position.desc()).limit(1)
    statement = sa.select(aliases.c.origin, aliases.c.alias, alias_changes.c.change).select_from(aliases)
    at = newest.correlate(aliases).scalar_subquery()
    statement = statement.join(alias_changes, alias_changes.c.position == at)
    found: dict[Key, v1.AliasChange] = {}
    for chunk in _chunks(keys):
        for row in connection.execute(statement.where(sa.tuple_(aliases.c.origin, aliases.c.alias).in_(chunk))):
            found[row.origin, row.alias] = v1.AliasChange.FromString(row.change)
    return found


def last_held(connection: sa.Connection, holders: Mapping[Key, int]) -> dict[Key, int]:
    """By alias, when (ns since 1970) the given version last stopped holding it; none when it never did."""
    changes, found = alias_changes.c, {}
    for chunk in _chunks((*key, version) for key, version in holders.items()):
        columns = (sa.column("origin", TEXT), sa.column("alias", TEXT), sa.column("version", sa.BigInteger))
        asked = sa.values(*columns).data(chunk).cte("asked")
        same = (
            changes.origin == asked.c.origin,
            changes.alias == asked.c.alias,
            changes.from_version == asked.c.version,
        )
        newest = sa.select(changes.time).where(*same).order_by(changes.position.desc()).limit(1)
        ended = newest.correlate(asked).scalar_subquery().label("ended")
        for row in connection.execute(sa.select(asked.c.origin, asked.c.alias, ended)):
            if row.ended is not None:
                found[row.origin, row.alias] = row.ended
    return found


def versions_of(connection: sa.Connection, keys: Collection[tuple[str, int]]) -> dict[tuple[str, int], KnownVersion]:
    """By origin and number, what is known of versions; those that never were are left out."""
    known = versions.c
    statement = sa.select(known.origin, known.version, known.digest, known.deleted_at, known.status, known.run_id)
    found: dict[tuple[str, int], KnownVersion] = {}
    for chunk in _chunks(keys):
        for row in connection.execute(statement.where(sa.tuple_(known.origin, known.version).in_(chunk))):
            is_deleted = row.deleted_at is not None
            found[row.origin, row.version] = KnownVersion(row.digest, is_deleted, row.status, row.run_id)
    return found


def _chunks(keys: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(keys)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def event_position(connection: sa.Connection, event_id: str) -> int | None:
    """Return the last position before the append that an event belongs to; None when the log has no such event."""
    tables = (alias_changes, event_ids)  # every event is in one of them
    found = [connection.scalar(sa.select(table.c.revision).where(table.c.event_id == event_id)) for table in tables]
    revision = next((one for one in found if one is not None), None)
    if revision is None:
        return None
    firsts: list[int | None] = [
        connection.scalar(
            sa.select(sa.func.min(table.c.position))
            .where(table.c.position.between(revision - MAX_APPEND_EVENTS, revision))
            .where(table.c.revision == revision)
        )
        for table in tables
    ]
    return min(first for first in firsts if first is not None) - 1
