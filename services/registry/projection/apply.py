"""The registry's rows: models and their names, versions, aliases and every change of them, schedules, policies.

A model is known by its *origin*, the name that it was created with, so that a new name changes one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import EPOCH_STREAM, RecordedEvent, insert_rows
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

Payload = Any
"""An event of one of the types that its writer is for."""


class RegistryProjection:
    """Computes the registry's rows."""

    name = "registry"
    version = 2
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
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
        pending.write(connection)
        insert_rows(connection, alias_changes, changes)
        insert_rows(connection, event_ids, others)


def _create_model(pending: Pending, event: RecordedEvent, payload: v1.ModelCreated) -> None:
    origin = origin_of(event.stream)
    row = {
        "name": payload.model,
        "description": payload.description,
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
    pending.put(names, (payload.model,), {"origin": origin, "position": event.position})
    _tag(pending, model_tags, (origin,), payload.tags)


def _take_name(pending: Pending, event: RecordedEvent, payload: v1.ModelNameTaken) -> None:
    pending.put(names, (payload.name,), {"origin": payload.origin, "position": event.position})


def _of_model(values: Callable[[RecordedEvent, Payload], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's model."""

    def write(pending: Pending, event: RecordedEvent, payload: Payload) -> None:
        pending.change(models, (origin_of(event.stream),), values(event, payload))

    return write


def _change_model_tags(pending: Pending, event: RecordedEvent, payload: v1.ModelTagsChanged) -> None:
    _change_tags(pending, model_tags, (origin_of(event.stream),), payload.changes)


def _register(pending: Pending, event: RecordedEvent, payload: v1.VersionRegistered) -> None:
    origin = origin_of(event.stream)
    row = {
        "digest": payload.digest,
        "run_id": payload.run_id,
        "description": payload.description,
        "status": v1.VERSION_STATUS_READY,
        "registered": _registered(event, payload).SerializeToString(deterministic=True),
        "created_at": event.time,
        "updated_at": event.time,
        "deleted_at": None,
        "revision": event.position,
        "changed": event.append_end,
    }
    pending.put(versions, (origin, payload.version), row)
    _tag(pending, version_tags, (origin, payload.version), payload.tags)
    pending.change(models, (origin,), {"latest_version": payload.version})


def _registered(event: RecordedEvent, payload: v1.VersionRegistered) -> v1.Version:
    """What is never changed of a version."""
    return v1.Version(
        version=payload.version,
        digest=payload.digest,
        run_id=payload.run_id,
        artifact_path=payload.artifact_path,
        evidence=payload.evidence if payload.HasField("evidence") else None,
        policy_evidence=payload.policy_evidence,
        copied_from=payload.copied_from if payload.HasField("copied_from") else None,
        created_at=timestamp(event.time),
        actor=event.metadata.actor,
        revision=event.position,
    )


def new_version(event: RecordedEvent) -> v1.Version:
    """Return a version as it is right after the event that registered it."""
    payload = event.data
    assert isinstance(payload, v1.VersionRegistered)  # noqa: S101
    version = _registered(event, payload)
    version.model, version.description, version.status = payload.model, payload.description, v1.VERSION_STATUS_READY
    version.tags.update(payload.tags)
    version.updated_at.CopyFrom(version.created_at)
    return version


def _of_version(values: Callable[[RecordedEvent, Payload], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's version."""

    def write(pending: Pending, event: RecordedEvent, payload: Payload) -> None:
        changed = {"updated_at": event.time, "changed": event.append_end, **values(event, payload)}
        pending.change(versions, (origin_of(event.stream), payload.version), changed)

    return write


_touch_version = _of_version(lambda _event, _payload: {})


def _change_version_tags(pending: Pending, event: RecordedEvent, payload: v1.VersionTagsChanged) -> None:
    _change_tags(pending, version_tags, (origin_of(event.stream), payload.version), payload.changes)
    _touch_version(pending, event, payload)


def _tag(pending: Pending, table: sa.Table, owner: Key, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        pending.put(table, (*owner, key), {"value": value})


def _change_tags(pending: Pending, table: sa.Table, owner: Key, changes: Payload) -> None:
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


def _schedule(pending: Pending, event: RecordedEvent, payload: v1.AliasMoveScheduled) -> None:
    row = {
        "event_id": event.id,
        "origin": origin_of(event.stream),
        "alias": payload.alias,
        "version": payload.to_version,
        "at": nanoseconds(payload.at),
        "expected_revision": payload.expected_revision if payload.HasField("expected_revision") else None,
        "actor": event.metadata.actor,
        "reason": event.metadata.reason,
        "created_at": event.time,
        "revision": event.position,
    }
    pending.put(schedules, (payload.schedule_id,), row)


def _end_schedule(
    pending: Pending, _: RecordedEvent, payload: v1.AliasMoved | v1.AliasScheduleCancelled | v1.AliasScheduleRefused
) -> None:
    if payload.schedule_id:
        pending.remove(schedules, (payload.schedule_id,))


def _set_policy(pending: Pending, event: RecordedEvent, payload: v1.PolicySet) -> None:
    row = {"policy": payload.to.SerializeToString(deterministic=True), "revision": event.append_end}
    pending.put(policies_table, (payload.to.name,), row)


def _remove_policy(pending: Pending, event: RecordedEvent, payload: v1.PolicyRemoved) -> None:
    pending.put(policies_table, (payload.policy.name,), {"policy": None, "revision": event.append_end})


Writer = Callable[[Pending, RecordedEvent, Payload], None]

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
    v1.ModelRenamed: _of_model(lambda _, payload: {"name": payload.to_name}),
    v1.ModelNameTaken: _take_name,
    v1.ModelDescribed: _of_model(lambda _, payload: {"description": payload.to_description}),
    v1.ModelTagsChanged: _change_model_tags,
    v1.ModelDeleted: _of_model(lambda event, _: {"deleted_at": event.time}),
    v1.ModelRestored: _of_model(lambda *_: {"deleted_at": None}),
    v1.RegistrationGateSet: _of_model(lambda _, payload: {"gate": payload.to_expression}),
    v1.VersionRegistered: _register,
    v1.VersionRefused: None,
    v1.VersionDescribed: _of_version(lambda _, payload: {"description": payload.to_description}),
    v1.VersionTagsChanged: _change_version_tags,
    v1.VersionStatusChanged: _of_version(lambda _, payload: {"status": payload.to_status}),
    v1.VersionDeleted: _of_version(lambda event, _: {"deleted_at": event.time}),
    v1.VersionRestored: _of_version(lambda *_: {"deleted_at": None}),
    v1.PolicySet: _set_policy,
    v1.PolicyRemoved: _remove_policy,
    v1.LogEpochBegan: None,
}
