"""What serving knows of the registry, from its log: which version each alias assigns."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from eventstore.event import RecordedEvent
from eventstore.rows import checkpoint
from rollforward import v1

tables = sa.MetaData()

assignments = sa.Table(
    "assignments",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)


class AssignmentsProjection:
    """Keeps the newest assignment of every alias."""

    name = "serving-assignments"
    version = 1
    tables = tables

    def apply(self, rows: sa.Connection, event: RecordedEvent) -> None:
        """Writes what an event of the registry log means to serving."""
        new = assignment_of(event)
        if new is None:
            return
        model, alias = new.target.model, new.target.alias
        rows.execute(sa.delete(assignments).where(assignments.c.model == model, assignments.c.alias == alias))
        row = {"version": new.version, "digest": new.digest, "revision": new.revision}
        rows.execute(sa.insert(assignments), {"model": model, "alias": alias} | row)


def assignment_of(event: RecordedEvent) -> v1.Assignment | None:
    """The assignment that an event of the registry log makes; None for all other events."""
    match event.data:
        case v1.AliasMoved() as fact:
            target = v1.Target(model=fact.model, alias=fact.alias)
            return v1.Assignment(target=target, version=fact.to_version, digest=fact.to_digest, revision=event.position)
        case v1.AliasRemoved() as fact:
            return v1.Assignment(target=v1.Target(model=fact.model, alias=fact.alias), revision=event.position)
        case _:
            return None


def snapshot(rows: sa.Connection, wanted: Sequence[v1.Target]) -> tuple[list[v1.Assignment], int]:
    """The assignment of each alias wanted, and the registry position that this holds at."""
    pairs = sa.tuple_(assignments.c.model, assignments.c.alias).in_([(one.model, one.alias) for one in wanted])
    held = {(row.model, row.alias): row for row in rows.execute(sa.select(assignments).where(pairs))}
    found = [_assignment(one, held.get((one.model, one.alias))) for one in wanted]
    return found, rows.scalar(sa.select(checkpoint.c.position)) or 0


def _assignment(target: v1.Target, row: sa.Row[tuple[object, ...]] | None) -> v1.Assignment:
    if row is None:
        return v1.Assignment(target=target)
    return v1.Assignment(target=target, version=row.version, digest=row.digest, revision=row.revision)
