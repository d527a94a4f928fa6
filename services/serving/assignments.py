"""What serving knows of the registry, from its log: which version each alias assigns, and every name of every model.

A model's *origin* is the name that it was created with. Its stream is named by it for ever, and so are its assignments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from eventstore import RecordedEvent, position_of
from rollforward import v1
from services.model_streams import origin_of
from services.sql.write_buffer import Pending

tables = sa.MetaData()

assignments = sa.Table(
    "assignments",
    tables,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

model_names = sa.Table(
    "model_names",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("origin", sa.Text, nullable=False),
)

current_names = sa.Table(
    "current_names",
    tables,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
)


class AssignmentsProjection:
    """Keeps the newest assignment of every alias, and whose name a name is."""

    name = "serving-assignments"
    version = 3
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Write what events of the registry log mean to serving."""
        pending = Pending()
        for event in events:
            origin = origin_of(event.stream)
            match event.data:
                case v1.AliasMoved() | v1.AliasRemoved() as payload:
                    new = assignment_of(event, v1.Target(alias=payload.alias))
                    row = {"version": new.version, "digest": new.digest, "revision": new.revision}
                    pending.put(assignments, (origin, payload.alias), row)
                case v1.ModelCreated() as payload:
                    pending.put(model_names, (payload.model,), {"origin": origin})
                    pending.put(current_names, (origin,), {"name": payload.model})
                case v1.ModelNameTaken() as payload:
                    pending.put(model_names, (payload.name,), {"origin": payload.origin})
                case v1.ModelRenamed() as payload:
                    pending.put(current_names, (origin,), {"name": payload.to_name})
                case _:
                    pass
        pending.write(connection)


def assignment_of(event: RecordedEvent, target: v1.Target) -> v1.Assignment:
    """Return what a change of an alias assigns to those who follow it as `target`."""
    if isinstance(payload := event.data, v1.AliasMoved):
        return v1.Assignment(
            target=target, version=payload.to_version, digest=payload.to_digest, revision=event.append_end
        )
    return v1.Assignment(target=target, revision=event.append_end)


def origins(connection: sa.Connection, names: Iterable[str]) -> Mapping[str, str]:
    """By name, the origin of the model that has or had it; a name that no model was renamed to is an origin itself."""
    wanted = sorted(set(names))
    found = connection.execute(sa.select(model_names).where(model_names.c.name.in_(wanted)))
    return {name: name for name in wanted} | {row.name: row.origin for row in found}


def names_of(connection: sa.Connection, name: str) -> list[str]:
    """Return all names of the model that has or had a name; none when there is no such model."""
    origin = sa.select(model_names.c.origin).where(model_names.c.name == name).scalar_subquery()
    return list(connection.scalars(sa.select(model_names.c.name).where(model_names.c.origin == origin)))


def current(connection: sa.Connection, names: Iterable[str]) -> Mapping[str, str]:
    """Return, by any name of a model, its name now; a name without a model stands for itself."""
    wanted = sorted(set(names))
    joined = sa.join(model_names, current_names, model_names.c.origin == current_names.c.origin)
    statement = sa.select(model_names.c.name, current_names.c.name.label("now")).select_from(joined)
    found = connection.execute(statement.where(model_names.c.name.in_(wanted)))
    return {name: name for name in wanted} | {row.name: row.now for row in found}


def snapshot(connection: sa.Connection, wanted: Sequence[v1.Target]) -> tuple[list[v1.Assignment], int]:
    """Return the assignment of each alias wanted, by any name of its model, and the registry position of the result."""
    origin = origins(connection, (one.model for one in wanted))
    keys = [(origin[one.model], one.alias) for one in wanted]
    pairs = sa.tuple_(assignments.c.origin, assignments.c.alias).in_(keys)
    held = {(row.origin, row.alias): row for row in connection.execute(sa.select(assignments).where(pairs))}
    found = [_assignment(one, held.get(key)) for one, key in zip(wanted, keys, strict=True)]
    return found, position_of(connection)


def _assignment(target: v1.Target, row: sa.Row[tuple[object, ...]] | None) -> v1.Assignment:
    if row is None:
        return v1.Assignment(target=target)
    return v1.Assignment(target=target, version=row.version, digest=row.digest, revision=row.revision)
