"""Serving's view of the registry: which version each alias assigns, and every name of every model.

A model's *origin* is the name that it was created with. It permanently names the model's stream and its assignments.
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
    """The projection of the newest assignment of every alias, and of the names of models."""

    name = "serving-assignments"
    version = 3
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Apply events of the registry log to the rows."""
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
    """Return the assignment that a change of an alias makes, for pods that follow it as `target`."""
    if isinstance(payload := event.data, v1.AliasMoved):
        return v1.Assignment(
            target=target, version=payload.to_version, digest=payload.to_digest, revision=event.append_end
        )
    return v1.Assignment(target=target, revision=event.append_end)


def origins(connection: sa.Connection, names: Iterable[str]) -> Mapping[str, str]:
    """Return the origin of the model that has or had each name; a name that no model was renamed to is an origin."""
    wanted = sorted(set(names))
    rows = connection.execute(sa.select(model_names).where(model_names.c.name.in_(wanted)))
    return {name: name for name in wanted} | {row.name: row.origin for row in rows}


def names_of(connection: sa.Connection, name: str) -> list[str]:
    """Return all names of the model that has or had a name; none when there is no such model."""
    origin = sa.select(model_names.c.origin).where(model_names.c.name == name).scalar_subquery()
    return list(connection.scalars(sa.select(model_names.c.name).where(model_names.c.origin == origin)))


def current(connection: sa.Connection, names: Iterable[str]) -> Mapping[str, str]:
    """Return the current name of the model that has or had each name; a name without a model stays as it is."""
    wanted = sorted(set(names))
    joined = sa.join(model_names, current_names, model_names.c.origin == current_names.c.origin)
    statement = sa.select(model_names.c.name, current_names.c.name.label("now")).select_from(joined)
    rows = connection.execute(statement.where(model_names.c.name.in_(wanted)))
    return {name: name for name in wanted} | {row.name: row.now for row in rows}


def snapshot(connection: sa.Connection, targets: Sequence[v1.Target]) -> tuple[list[v1.Assignment], int]:
    """Return the assignment of each target, by any name of its model, and the registry position of the result."""
    origin = origins(connection, (target.model for target in targets))
    keys = [(origin[target.model], target.alias) for target in targets]
    pairs = sa.tuple_(assignments.c.origin, assignments.c.alias).in_(keys)
    rows = {(row.origin, row.alias): row for row in connection.execute(sa.select(assignments).where(pairs))}
    current_assignments = [_assignment(target, rows.get(key)) for target, key in zip(targets, keys, strict=True)]
    return current_assignments, position_of(connection)


def _assignment(target: v1.Target, row: sa.Row[tuple[object, ...]] | None) -> v1.Assignment:
    if row is None:
        return v1.Assignment(target=target)
    return v1.Assignment(target=target, version=row.version, digest=row.digest, revision=row.revision)
