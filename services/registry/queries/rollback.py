"""Queries for rollbacks: past assignments of many aliases, in a few statements for any number of them."""

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
"""The number of keys in one statement."""

Key = tuple[str, str]
"""An alias: its model's origin, and its name."""


class CurrentAssignment(NamedTuple):
    """An alias's current assignment: `version` is 0 if it was removed, `stream_revision` is that of its model."""

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
    """The facts about a version that decide whether it can be restored."""

    digest: str
    deleted: bool
    status: int
    run_id: str


_CURRENT = (
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
    """Return all matching aliases that were ever set, ordered by model and alias."""
    wanted = _CURRENT.where(_may_match(models.c.name, models_glob), _may_match(aliases.c.alias, aliases_glob))
    model, alias = matcher(models_glob), matcher(aliases_glob)
    return [CurrentAssignment(*row) for row in connection.execute(wanted) if model(row[1]) and alias(row[2])]


def _may_match(column: sa.ColumnElement[str], glob: str) -> sa.ColumnElement[bool]:
    """Return a condition on names, which begin with the part before the first wildcard, so that few rows are read."""
    start = literal_start(glob)
    if start == glob:
        return column == glob
    return sa.func.substr(column, 1, len(start)) == start if start else sa.true()


def assignments_at(connection: sa.Connection, keys: Iterable[Key], position: int) -> dict[Key, v1.AliasChange]:
    """Return the last change of each alias up to a position; aliases not set until then are left out."""
    past = alias_changes.alias("past")
    return _changes(connection, keys, past, past.c.position <= position, past.c.revision <= position)


def previous_holders(connection: sa.Connection, keys: Iterable[Key]) -> dict[Key, v1.AliasChange]:
    """Return the newest change of each alias to a version other than its current one."""
    past = alias_changes.alias("past")
    return _changes(connection, keys, past, past.c.to_version > 0, past.c.to_version != aliases.c.version)


def _changes(
    connection: sa.Connection, keys: Iterable[Key], past: Any, *conditions: sa.ColumnElement[bool]
) -> dict[Key, v1.AliasChange]:
    """Return the newest change of each alias that meets the conditions."""
    same = (past.c.origin == aliases.c.origin, past.c.alias == aliases.c.alias)
    newest = sa.select(past.c.position).where(*same, *conditions).order_by(past.c.position.desc()).limit(1)
    statement = sa.select(aliases.c.origin, aliases.c.alias, alias_changes.c.change).select_from(aliases)
    at = newest.correlate(aliases).scalar_subquery()
    statement = statement.join(alias_changes, alias_changes.c.position == at)
    changes: dict[Key, v1.AliasChange] = {}
    for chunk in _chunks(keys):
        for row in connection.execute(statement.where(sa.tuple_(aliases.c.origin, aliases.c.alias).in_(chunk))):
            changes[row.origin, row.alias] = v1.AliasChange.FromString(row.change)
    return changes


def last_assigned(connection: sa.Connection, holders: Mapping[Key, int]) -> dict[Key, int]:
    """Return when (ns since 1970) the given version of each alias last lost it; aliases without a time are left out."""
    changes, ended_at = alias_changes.c, {}
    for chunk in _chunks((*key, version) for key, version in holders.items()):
        columns = (sa.column("origin", TEXT), sa.column("alias", TEXT), sa.column("version", sa.BigInteger))
        asked = sa.values(*columns).data(chunk).cte("asked")
        same = (
            changes.origin == asked.c.origin,
            changes.alias == asked.c.alias,
            changes.from_version == asked.c.version,
        )
        newest = sa.select(changes.time).where(*same).order_by(changes.position.desc()).limit(1)
        ended_time = newest.correlate(asked).scalar_subquery().label("ended")
        for row in connection.execute(sa.select(asked.c.origin, asked.c.alias, ended_time)):
            if row.ended is not None:
                ended_at[row.origin, row.alias] = row.ended
    return ended_at


def versions_of(connection: sa.Connection, keys: Collection[tuple[str, int]]) -> dict[tuple[str, int], KnownVersion]:
    """Return versions by origin and number; versions that were never registered are left out."""
    known = versions.c
    statement = sa.select(known.origin, known.version, known.digest, known.deleted_at, known.status, known.run_id)
    known_versions: dict[tuple[str, int], KnownVersion] = {}
    for chunk in _chunks(keys):
        for row in connection.execute(statement.where(sa.tuple_(known.origin, known.version).in_(chunk))):
            is_deleted = row.deleted_at is not None
            known_versions[row.origin, row.version] = KnownVersion(row.digest, is_deleted, row.status, row.run_id)
    return known_versions


def _chunks(keys: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(keys)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def event_position(connection: sa.Connection, event_id: str) -> int | None:
    """Return the last position before the append that an event belongs to; None when the log has no such event."""
    tables = (alias_changes, event_ids)  # every event is in one of them
    revisions = [connection.scalar(sa.select(table.c.revision).where(table.c.event_id == event_id)) for table in tables]
    revision = next((known for known in revisions if known is not None), None)
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
