"""The registry's rows: models, versions, aliases and every change of an alias."""

from __future__ import annotations

from typing import assert_never

import sqlalchemy as sa

from eventstore.event import RecordedEvent
from rollforward import v1
from services.registry.decider import RegistryEvent
from services.times import timestamp

tables = sa.MetaData()

models = sa.Table(
    "models",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("gate", sa.Text, nullable=False),
    sa.Column("latest_version", sa.Integer, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

versions = sa.Table(
    "versions",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("artifact_path", sa.Text, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("evidence", sa.LargeBinary),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

alias_changes = sa.Table(
    "alias_changes",
    tables,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("alias", sa.Text, nullable=False),
    sa.Column("change", sa.LargeBinary, nullable=False),
    sa.Index("alias_changes_by_alias", "model", "alias", "revision"),
)

aliases = sa.Table(
    "aliases",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("alias", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

# Made once: to make a statement takes longer than to run it.
_TOUCH = sa.update(models).where(models.c.name == sa.bindparam("of")).values(revision=sa.bindparam("at"))
_MOVE = (
    sa.update(aliases)
    .where(aliases.c.model == sa.bindparam("of"), aliases.c.alias == sa.bindparam("named"))
    .values(version=sa.bindparam("to"), revision=sa.bindparam("at"))
)
_SET, _RECORD = sa.insert(aliases), sa.insert(alias_changes)


class RegistryProjection:
    """Computes the registry's rows."""

    name = "registry"
    version = 1
    tables = tables

    def apply(self, rows: sa.Connection, event: RecordedEvent) -> None:
        """Writes what an event means."""
        fact: RegistryEvent = event.data  # type: ignore[assignment]
        match fact:
            case v1.ModelCreated():
                _create_model(rows, event, fact)
            case v1.RegistrationGateSet():
                rows.execute(sa.update(models).where(models.c.name == fact.model).values(gate=fact.to_expression))
            case v1.VersionRegistered():
                _register_version(rows, event, fact)
            case v1.AliasMoved() | v1.AliasRemoved():
                _change_alias(rows, change_of(event))
            case _:
                assert_never(fact)
        rows.execute(_TOUCH, {"of": fact.model, "at": event.position})


def _create_model(rows: sa.Connection, event: RecordedEvent, fact: v1.ModelCreated) -> None:
    row = {
        "name": fact.model,
        "description": fact.description,
        "tags": dict(sorted(fact.tags.items())),
        "gate": "",
        "latest_version": 0,
        "created_at": event.time,
        "actor": event.metadata.actor,
        "revision": event.position,
    }
    rows.execute(sa.insert(models), row)


def _register_version(rows: sa.Connection, event: RecordedEvent, fact: v1.VersionRegistered) -> None:
    row = {
        "model": fact.model,
        "version": fact.version,
        "digest": fact.digest,
        "run_id": fact.run_id,
        "artifact_path": fact.artifact_path,
        "description": fact.description,
        "tags": dict(sorted(fact.tags.items())),
        "evidence": fact.evidence.SerializeToString(deterministic=True) if fact.HasField("evidence") else None,
        "created_at": event.time,
        "actor": event.metadata.actor,
        "revision": event.position,
    }
    rows.execute(sa.insert(versions), row)
    rows.execute(sa.update(models).where(models.c.name == fact.model).values(latest_version=fact.version))


def _change_alias(rows: sa.Connection, change: v1.AliasChange) -> None:
    key = {"model": change.model, "alias": change.alias}
    body = change.SerializeToString(deterministic=True)
    rows.execute(_RECORD, key | {"revision": change.revision, "change": body})
    held = {"of": change.model, "named": change.alias, "to": change.to_version, "at": change.revision}
    if not rows.execute(_MOVE, held).rowcount:
        rows.execute(_SET, key | {"version": change.to_version, "revision": change.revision})


def change_of(event: RecordedEvent) -> v1.AliasChange:
    """An event that changes an alias, as watchers and readers of the history see it."""
    fact = event.data
    assert isinstance(fact, (v1.AliasMoved, v1.AliasRemoved))  # noqa: S101
    change = v1.AliasChange(
        revision=event.position,
        event_id=event.id,
        time=timestamp(event.time),
        actor=event.metadata.actor,
        reason=event.metadata.reason,
        model=fact.model,
        alias=fact.alias,
        from_version=fact.from_version,
        cause=fact.cause,
        request_id=event.metadata.request_id,
    )
    if isinstance(fact, v1.AliasMoved):
        change.to_version, change.to_digest = fact.to_version, fact.to_digest
        change.restored_revision = fact.restored_revision
    return change
