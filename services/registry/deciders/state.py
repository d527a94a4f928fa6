"""What deciding about a model takes, folded from its stream."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from rpds import HashTrieMap

from eventstore import RecordedEvent
from rollforward import v1
from services.registry.events import ModelChange, VersionChange, model_event
from services.timestamps import nanoseconds

Tags: TypeAlias = "HashTrieMap[str, str]"


@dataclass(frozen=True, slots=True)
class Version:
    """A version: what it is, and whether it can be used. `revision` is that of its registration."""

    digest: str
    run_id: str = ""
    artifact_path: str = ""
    description: str = ""
    tags: Tags = field(default_factory=HashTrieMap)
    status: v1.VersionStatus.ValueType = v1.VERSION_STATUS_READY
    deleted: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which version an alias names since `revision` (version 0: none); when it ends by itself, in ns since 1970."""

    version: int = 0
    revision: int = 0
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """A move that is still to come."""

    alias: str
    version: int
    expected_revision: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """A model, or a name without one.

    Attributes:
        name: What the model is called now; empty when this stream has no model of its own.
        origin_of_name: The stream is of a name that another model was given: the name which that one was created with.
    """

    name: str = ""
    origin_of_name: str = ""
    deleted: bool = False
    description: str = ""
    gate: str = ""
    tags: Tags = field(default_factory=HashTrieMap)
    versions: HashTrieMap[int, Version] = field(default_factory=HashTrieMap)
    aliases: HashTrieMap[str, Assignment] = field(default_factory=HashTrieMap)
    schedules: HashTrieMap[str, Schedule] = field(default_factory=HashTrieMap)

    def alias(self, name: str) -> Assignment:
        """Return the alias's assignment; without one, a version of 0."""
        return self.aliases.get(name) or Assignment()

    def digest(self, version: int) -> str:
        """Return a version's digest; empty for version 0, and for one that was never registered."""
        known = self.versions.get(version)
        return known.digest if known else ""

    def names_of(self, version: int) -> list[str]:
        """Return the aliases that name a version now."""
        return sorted(alias for alias, current in self.aliases.items() if current.version == version)

    def scheduled_for(self, version: int | None = None) -> list[str]:
        """Return the aliases that schedules will move to a version, or to any."""
        waiting = self.schedules.values()
        return sorted({schedule.alias for schedule in waiting if version is None or schedule.version == version})


def evolve(state: State, event: RecordedEvent) -> State:  # noqa: C901, PLR0911 - a case each
    """Return the state after an event."""
    payload = model_event(event.data)
    match payload:
        case v1.AliasMoved():
            return _moved(state, payload, event)
        case v1.AliasRemoved():
            return _removed(state, payload, event)
        case v1.AliasKept() | v1.AliasMoveRefused() | v1.VersionRefused():
            return state
        case v1.VersionRegistered():
            return _registered(state, payload, event)
        case v1.AliasMoveScheduled():
            return _scheduled(state, payload, event)
        case v1.AliasScheduleCancelled() | v1.AliasScheduleRefused():
            return replace(state, schedules=state.schedules.discard(payload.schedule_id))
        case v1.ModelCreated():
            return _created(state, payload)
        case v1.ModelNameTaken():
            return replace(state, origin_of_name=payload.origin)
        case _:
            return _changed(state, payload)


def _changed(state: State, payload: ModelChange | VersionChange) -> State:
    if isinstance(payload, VersionChange):
        version = _changed_version(state.versions[payload.version], payload)
        return replace(state, versions=state.versions.insert(payload.version, version))
    return _changed_model(state, payload)


def _changed_model(state: State, payload: ModelChange) -> State:
    match payload:
        case v1.ModelTagsChanged():
            return replace(state, tags=_tagged(state.tags, payload))
        case v1.ModelDescribed():
            return replace(state, description=payload.to_description)
        case v1.ModelRenamed():
            return replace(state, name=payload.to_name)
        case v1.ModelDeleted():
            return replace(state, deleted=True)
        case v1.ModelRestored():
            return replace(state, deleted=False)
        case v1.RegistrationGateSet():
            return replace(state, gate=payload.to_expression)
        case _:
            assert_never(payload)


def _changed_version(version: Version, payload: VersionChange) -> Version:
    match payload:
        case v1.VersionTagsChanged():
            return replace(version, tags=_tagged(version.tags, payload))
        case v1.VersionDescribed():
            return replace(version, description=payload.to_description)
        case v1.VersionStatusChanged():
            return replace(version, status=payload.to_status)
        case v1.VersionDeleted():
            return replace(version, deleted=True)
        case v1.VersionRestored():
            return replace(version, deleted=False)
        case _:
            assert_never(payload)


def _created(state: State, payload: v1.ModelCreated) -> State:
    return replace(state, name=payload.model, description=payload.description, tags=HashTrieMap(dict(payload.tags)))


def _registered(state: State, payload: v1.VersionRegistered, event: RecordedEvent) -> State:
    tags = HashTrieMap(dict(payload.tags))
    new = Version(
        payload.digest, payload.run_id, payload.artifact_path, payload.description, tags, revision=event.append_end
    )
    return replace(state, versions=state.versions.insert(payload.version, new))


def _tagged(tags: Tags, payload: v1.ModelTagsChanged | v1.VersionTagsChanged) -> Tags:
    for change in payload.changes:
        tags = tags.insert(change.key, change.to_value) if change.HasField("to_value") else tags.discard(change.key)
    return tags


def _moved(state: State, payload: v1.AliasMoved, event: RecordedEvent) -> State:
    expires_at = nanoseconds(payload.expires_at) if payload.HasField("expires_at") else None
    aliases = state.aliases.insert(payload.alias, Assignment(payload.to_version, event.append_end, expires_at))
    return replace(state, aliases=aliases, schedules=state.schedules.discard(payload.schedule_id))


def _removed(state: State, payload: v1.AliasRemoved, event: RecordedEvent) -> State:
    return replace(state, aliases=state.aliases.insert(payload.alias, Assignment(0, event.append_end)))


def _scheduled(state: State, payload: v1.AliasMoveScheduled, event: RecordedEvent) -> State:
    expected = payload.expected_revision if payload.HasField("expected_revision") else None
    schedule = Schedule(payload.alias, payload.to_version, expected, event.metadata.reason)
    return replace(state, schedules=state.schedules.insert(payload.schedule_id, schedule))
