"""The registry's rows: models and their names, versions, aliases and every change of them, schedules, policies.

A model is known by its *origin*, the name that it was created with, so that a new name changes one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import sqlalchemy as sa

from eventstore import EPOCH_STREAM, RecordedEvent, insert_rows
from rollforward import v1
from services.registry import POLICIES_STREAM, origin_of
from services.registry.events import (
    AliasChange,
    ModelChange,
    ModelEvent,
    PolicyEvent,
    RegistryEvent,
    VersionChange,
    registry_event,
)
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


class RegistryProjection:
    """Computes the registry's rows."""

    name = "registry"
    version = 2
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Write what events mean."""
        pending = Pending()
        changes: list[tuple[object, ...]] = []
        others: list[tuple[object, ...]] = []
        for event in events:
            # Most events are changes of aliases: they need no search for their type.
            if isinstance(payload := event.data, AliasChange):
                if isinstance(payload, v1.AliasMoved):
                    _end_schedule(pending, payload)
                changes.append(_change_alias(pending, event))
            else:
                _apply(pending, event, registry_event(payload))
                others.append((event.position, event.id, event.append_end))
            if event.stream not in _OF_NO_MODEL:
                touched = {"revision": event.append_end, "stream_revision": event.position, "updated_at": event.time}
                pending.change(models, (origin_of(event.stream),), touched)
        pending.write(connection)
        insert_rows(connection, alias_changes, changes)
        insert_rows(connection, event_ids, others)


def _apply(pending: Pending, event: RecordedEvent, payload: RegistryEvent) -> None:
    """Write what an event means, other than a change of an alias."""
    if not isinstance(payload, PolicyEvent | v1.LogEpochBegan):
        _apply_to_model(pending, event, payload)
        return
    match payload:
        case v1.PolicySet():
            _set_policy(pending, event, payload)
        case v1.PolicyRemoved():
            _remove_policy(pending, event, payload)
        case v1.LogEpochBegan():
            pass
        case _:
            assert_never(payload)


def _apply_to_model(pending: Pending, event: RecordedEvent, payload: ModelEvent) -> None:
    match payload:
        case v1.VersionRegistered():
            _register(pending, event, payload)
        case v1.ModelCreated():
            _create_model(pending, event, payload)
        case v1.ModelNameTaken():
            _take_name(pending, event, payload)
        case v1.AliasMoveScheduled():
            _schedule(pending, event, payload)
        case v1.AliasScheduleCancelled() | v1.AliasScheduleRefused():
            _end_schedule(pending, payload)
        case (
            v1.AliasMoved()
            | v1.AliasRemoved()  # written by `_change_alias`
            | v1.AliasKept()
            | v1.AliasMoveRefused()
            | v1.VersionRefused()
        ):
            pass
        case _:
            _change(pending, event, payload)


def _change(pending: Pending, event: RecordedEvent, payload: ModelChange | VersionChange) -> None:
    origin = origin_of(event.stream)
    if isinstance(payload, VersionChange):
        changed = _change_version(pending, event, payload)
        row = {"updated_at": event.time, "changed": event.append_end, **changed}
        pending.change(versions, (origin, payload.version), row)
    else:
        pending.change(models, (origin,), _change_model(pending, event, payload))


def _change_model(pending: Pending, event: RecordedEvent, payload: ModelChange) -> Mapping[str, object]:
    """Write what an event means for a model, and return the columns that it changes."""
    match payload:
        case v1.ModelTagsChanged():
            _change_tags(pending, model_tags, (origin_of(event.stream),), payload.changes)
            return {}
        case v1.ModelDescribed():
            return {"description": payload.to_description}
        case v1.ModelRenamed():
            return {"name": payload.to_name}
        case v1.ModelDeleted():
            return {"deleted_at": event.time}
        case v1.ModelRestored():
            return {"deleted_at": None}
        case v1.RegistrationGateSet():
            return {"gate": payload.to_expression}
        case _:
            assert_never(payload)


def _change_version(pending: Pending, event: RecordedEvent, payload: VersionChange) -> Mapping[str, object]:
    """Write what an event means for a version, and return the columns that it changes."""
    match payload:
        case v1.VersionTagsChanged():
            _change_tags(pending, version_tags, (origin_of(event.stream), payload.version), payload.changes)
            return {}
        case v1.VersionDescribed():
            return {"description": payload.to_description}
        case v1.VersionStatusChanged():
            return {"status": payload.to_status}
        case v1.VersionDeleted():
            return {"deleted_at": event.time}
        case v1.VersionRestored():
            return {"deleted_at": None}
        case _:
            assert_never(payload)


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
    """Return what is never changed of a version."""
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


def _tag(pending: Pending, table: sa.Table, owner: Key, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        pending.put(table, (*owner, key), {"value": value})


def _change_tags(pending: Pending, table: sa.Table, owner: Key, changes: Iterable[v1.TagChange]) -> None:
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
    pending: Pending, payload: v1.AliasMoved | v1.AliasScheduleCancelled | v1.AliasScheduleRefused
) -> None:
    if payload.schedule_id:
        pending.remove(schedules, (payload.schedule_id,))


def _set_policy(pending: Pending, event: RecordedEvent, payload: v1.PolicySet) -> None:
    row = {"policy": payload.to.SerializeToString(deterministic=True), "revision": event.append_end}
    pending.put(policies_table, (payload.to.name,), row)


def _remove_policy(pending: Pending, event: RecordedEvent, payload: v1.PolicyRemoved) -> None:
    pending.put(policies_table, (payload.policy.name,), {"policy": None, "revision": event.append_end})
