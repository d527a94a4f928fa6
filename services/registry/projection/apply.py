"""The registry's rows: models and their names, versions, aliases and every change of them, schedules, policies.

A model is known by its *origin*, the name that it was created with, so that a new name changes one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore.epochs import EPOCH_STREAM
from eventstore.event import RecordedEvent
from eventstore.projections.bulk_insert import insert_rows
from rollforward import v1
from services.registry import POLICIES_STREAM, origin_of
from services.registry.projection.tables import (
    alias_changes,
    aliases,
    event_ids,
    model_tags,
    models,
    names,
    policies_table,
    schedules,
    tables,
    version_tags,
    versions,
)
from services.registry.projection.views import change_of
from services.sql.write_buffer import Key, Pending
from services.timestamps import nanoseconds, timestamp

_OF_NO_MODEL = (POLICIES_STREAM, EPOCH_STREAM)

Fact = Any
"""An event of one of the types that its writer is for."""


class RegistryProjection:
    """Computes the registry's rows."""

    name = "registry"
    version = 2
    tables = tables

    def apply(self, rows: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Writes what events mean."""
        pending = Pending()
        changes: list[tuple[object, ...]] = []
        others: list[tuple[object, ...]] = []
        for event in events:
            if write := _WRITERS[type(event.data)]:
                write(pending, event, event.data)
            if isinstance(event.data, _CHANGES):
                changes.append(_change_alias(pending, event))
            else:
                others.append((event.position, event.id, event.append_end))
            if event.stream not in _OF_NO_MODEL:
                touched = {"revision": event.append_end, "stream_revision": event.position, "updated_at": event.time}
                pending.change(models, (origin_of(event.stream),), touched)
        pending.write(rows)
        insert_rows(rows, alias_changes, changes)
        insert_rows(rows, event_ids, others)


def _create_model(pending: Pending, event: RecordedEvent, fact: v1.ModelCreated) -> None:
    origin = origin_of(event.stream)
    row = {
        "name": fact.model,
        "description": fact.description,
        "gate": "",
        "latest_version": 0,
        "actor": event.metadata.actor,
        "created_at": event.time,
        "created": event.position,
        "updated_at": event.time,
        "deleted_at": None,
        "revision": event.append_end,
        "stream_revision": event.position,
    }
    pending.put(models, (origin,), row)
    pending.put(names, (fact.model,), {"origin": origin, "position": event.position})
    _tag(pending, model_tags, (origin,), fact.tags)


def _take_name(pending: Pending, event: RecordedEvent, fact: v1.ModelNameTaken) -> None:
    pending.put(names, (fact.name,), {"origin": fact.origin, "position": event.position})


def _of_model(values: Callable[[RecordedEvent, Fact], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's model."""

    def write(pending: Pending, event: RecordedEvent, fact: Fact) -> None:
        pending.change(models, (origin_of(event.stream),), values(event, fact))

    return write


def _change_model_tags(pending: Pending, event: RecordedEvent, fact: v1.ModelTagsChanged) -> None:
    _change_tags(pending, model_tags, (origin_of(event.stream),), fact.changes)


def _register(pending: Pending, event: RecordedEvent, fact: v1.VersionRegistered) -> None:
    origin = origin_of(event.stream)
    row = {
        "digest": fact.digest,
        "run_id": fact.run_id,
        "description": fact.description,
        "status": v1.VERSION_STATUS_READY,
        "registered": _registered(event, fact).SerializeToString(deterministic=True),
        "created_at": event.time,
        "updated_at": event.time,
        "deleted_at": None,
        "revision": event.position,
        "changed": event.append_end,
    }
    pending.put(versions, (origin, fact.version), row)
    _tag(pending, version_tags, (origin, fact.version), fact.tags)
    pending.change(models, (origin,), {"latest_version": fact.version})


def _registered(event: RecordedEvent, fact: v1.VersionRegistered) -> v1.Version:
    """What is never changed of a version."""
    return v1.Version(
        version=fact.version,
        digest=fact.digest,
        run_id=fact.run_id,
        artifact_path=fact.artifact_path,
        evidence=fact.evidence if fact.HasField("evidence") else None,
        policy_evidence=fact.policy_evidence,
        copied_from=fact.copied_from if fact.HasField("copied_from") else None,
        created_at=timestamp(event.time),
        actor=event.metadata.actor,
        revision=event.position,
    )


def new_version(event: RecordedEvent) -> v1.Version:
    """Return a version as it is right after the event that registered it."""
    fact = event.data
    assert isinstance(fact, v1.VersionRegistered)  # noqa: S101
    version = _registered(event, fact)
    version.model, version.description, version.status = fact.model, fact.description, v1.VERSION_STATUS_READY
    version.tags.update(fact.tags)
    version.updated_at.CopyFrom(version.created_at)
    return version


def _of_version(values: Callable[[RecordedEvent, Fact], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's version."""

    def write(pending: Pending, event: RecordedEvent, fact: Fact) -> None:
        changed = {"updated_at": event.time, "changed": event.append_end, **values(event, fact)}
        pending.change(versions, (origin_of(event.stream), fact.version), changed)

    return write


_touch_version = _of_version(lambda _event, _fact: {})


def _change_version_tags(pending: Pending, event: RecordedEvent, fact: v1.VersionTagsChanged) -> None:
    _change_tags(pending, version_tags, (origin_of(event.stream), fact.version), fact.changes)
    _touch_version(pending, event, fact)


def _tag(pending: Pending, table: sa.Table, owner: Key, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        pending.put(table, (*owner, key), {"value": value})


def _change_tags(pending: Pending, table: sa.Table, owner: Key, changes: Fact) -> None:
    for change in changes:
        if change.HasField("to_value"):
            pending.put(table, (*owner, change.key), {"value": change.to_value})
        else:
            pending.remove(table, (*owner, change.key))


def _change_alias(pending: Pending, event: RecordedEvent) -> tuple[object, ...]:
    """Set an alias, and return the row of `alias_changes`, in the order of its columns."""
    origin, change = origin_of(event.stream), change_of(event)
    row = {
        "version": change.to_version,
        "revision": change.revision,
        "position": change.position,
        "expires_at": nanoseconds(change.expires_at) if change.HasField("expires_at") else None,
    }
    pending.put(aliases, (origin, change.alias), row)
    return (
        event.position,
        event.append_end,
        origin,
        change.alias,
        event.time,
        event.metadata.actor,
        change.from_version,
        change.to_version,
        change.cause,
        event.id,
        change.SerializeToString(deterministic=True),
    )


def _schedule(pending: Pending, event: RecordedEvent, fact: v1.AliasMoveScheduled) -> None:
    row = {
        "event_id": event.id,
        "origin": origin_of(event.stream),
        "alias": fact.alias,
        "version": fact.to_version,
        "at": nanoseconds(fact.at),
        "expected_revision": fact.expected_revision if fact.HasField("expected_revision") else None,
        "actor": event.metadata.actor,
        "reason": event.metadata.reason,
        "created_at": event.time,
        "revision": event.position,
    }
    pending.put(schedules, (fact.schedule_id,), row)


def _end_schedule(
    pending: Pending, _: RecordedEvent, fact: v1.AliasMoved | v1.AliasScheduleCancelled | v1.AliasScheduleRefused
) -> None:
    if fact.schedule_id:
        pending.remove(schedules, (fact.schedule_id,))


def _set_policy(pending: Pending, event: RecordedEvent, fact: v1.PolicySet) -> None:
    row = {"policy": fact.to.SerializeToString(deterministic=True), "revision": event.append_end}
    pending.put(policies_table, (fact.to.name,), row)


def _remove_policy(pending: Pending, event: RecordedEvent, fact: v1.PolicyRemoved) -> None:
    pending.put(policies_table, (fact.policy.name,), {"policy": None, "revision": event.append_end})


Writer = Callable[[Pending, RecordedEvent, Fact], None]

_CHANGES = (v1.AliasMoved, v1.AliasRemoved)

# By type, what writes an event down; None for those that are written together with others only.
_WRITERS: Mapping[type[Message], Writer | None] = {
    v1.AliasMoved: _end_schedule,
    v1.AliasRemoved: None,
    v1.AliasMoveRefused: None,
    v1.AliasKept: None,
    v1.AliasMoveScheduled: _schedule,
    v1.AliasScheduleCancelled: _end_schedule,
    v1.AliasScheduleRefused: _end_schedule,
    v1.ModelCreated: _create_model,
    v1.ModelRenamed: _of_model(lambda _, fact: {"name": fact.to_name}),
    v1.ModelNameTaken: _take_name,
    v1.ModelDescribed: _of_model(lambda _, fact: {"description": fact.to_description}),
    v1.ModelTagsChanged: _change_model_tags,
    v1.ModelDeleted: _of_model(lambda event, _: {"deleted_at": event.time}),
    v1.ModelRestored: _of_model(lambda *_: {"deleted_at": None}),
    v1.RegistrationGateSet: _of_model(lambda _, fact: {"gate": fact.to_expression}),
    v1.VersionRegistered: _register,
    v1.VersionRefused: None,
    v1.VersionDescribed: _of_version(lambda _, fact: {"description": fact.to_description}),
    v1.VersionTagsChanged: _change_version_tags,
    v1.VersionStatusChanged: _of_version(lambda _, fact: {"status": fact.to_status}),
    v1.VersionDeleted: _of_version(lambda event, _: {"deleted_at": event.time}),
    v1.VersionRestored: _of_version(lambda *_: {"deleted_at": None}),
    v1.PolicySet: _set_policy,
    v1.PolicyRemoved: _remove_policy,
    v1.LogEpochBegan: None,
}
