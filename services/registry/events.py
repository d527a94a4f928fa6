"""The events of the registry log, by what they are about.

Rules, folds and rows match on these unions: an event that one of them does not handle fails the type check.
"""

from __future__ import annotations

from typing import TypeAlias, cast, get_args

from google.protobuf.message import Message

from rollforward import v1

AliasChange: TypeAlias = v1.AliasMoved | v1.AliasRemoved
AliasEvent: TypeAlias = (
    AliasChange
    | v1.AliasKept
    | v1.AliasMoveRefused
    | v1.AliasMoveScheduled
    | v1.AliasScheduleCancelled
    | v1.AliasScheduleRefused
)
VersionChange: TypeAlias = (
    v1.VersionTagsChanged | v1.VersionDescribed | v1.VersionStatusChanged | v1.VersionDeleted | v1.VersionRestored
)
ModelChange: TypeAlias = (
    v1.ModelTagsChanged
    | v1.ModelDescribed
    | v1.ModelRenamed
    | v1.ModelDeleted
    | v1.ModelRestored
    | v1.RegistrationGateSet
)
ModelEvent: TypeAlias = (
    AliasEvent
    | v1.VersionRegistered
    | v1.VersionRefused
    | VersionChange
    | v1.ModelCreated
    | v1.ModelNameTaken
    | ModelChange
)
PolicyEvent: TypeAlias = v1.PolicySet | v1.PolicyRemoved
RegistryEvent: TypeAlias = ModelEvent | PolicyEvent | v1.LogEpochBegan

REGISTRY_EVENTS: tuple[type[Message], ...] = get_args(RegistryEvent)
"""The types of all events of the log; those that come most often are first."""

# Looking a type up is several times faster than trying each type of a large union.
_REGISTRY_TYPES = frozenset(REGISTRY_EVENTS)
_MODEL_TYPES = frozenset(get_args(ModelEvent))


def registry_event(data: Message) -> RegistryEvent:
    """Return an event's payload as an event of this log.

    Raises:
        TypeError: It is of another log.
    """
    if type(data) in _REGISTRY_TYPES:
        return cast("RegistryEvent", data)
    raise TypeError(f"expected an event of the registry log, got {type(data).__name__}")


def model_event(data: Message) -> ModelEvent:
    """Return an event's payload as an event of a model.

    Raises:
        TypeError: It is not one.
    """
    if type(data) in _MODEL_TYPES:
        return cast("ModelEvent", data)
    raise TypeError(f"expected an event of a model, got {type(data).__name__}")


def policy_event(data: Message) -> PolicyEvent:
    """Return an event's payload as an event of the policies.

    Raises:
        TypeError: It is not one.
    """
    if isinstance(data, PolicyEvent):
        return data
    raise TypeError(f"expected an event of the policies, got {type(data).__name__}")
