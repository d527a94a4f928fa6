"""The registry: models, versions, aliases and policies. It owns the registry log.

A stream is one model's, ``model/<the name that it was created with>``, or that of all policies.
"""

from eventstore import EventTypes
from rollforward import v1

EVENTS = EventTypes(
    [
        v1.ModelCreated,
        v1.ModelRenamed,
        v1.ModelNameTaken,
        v1.ModelDescribed,
        v1.ModelTagsChanged,
        v1.ModelDeleted,
        v1.ModelRestored,
        v1.RegistrationGateSet,
        v1.VersionRegistered,
        v1.VersionRefused,
        v1.VersionDescribed,
        v1.VersionTagsChanged,
        v1.VersionStatusChanged,
        v1.VersionDeleted,
        v1.VersionRestored,
        v1.AliasMoved,
        v1.AliasMoveRefused,
        v1.AliasKept,
        v1.AliasRemoved,
        v1.AliasMoveScheduled,
        v1.AliasScheduleCancelled,
        v1.AliasScheduleRefused,
        v1.PolicySet,
        v1.PolicyRemoved,
        v1.LogEpochBegan,
    ],
)

POLICIES_STREAM = "policies"
_MODEL = "model/"


def model_stream(origin: str) -> str:
    """The stream of a model, from the name that it was created with."""
    return _MODEL + origin


def origin_of(stream: str) -> str:
    """The name that a stream's model was created with."""
    return stream.removeprefix(_MODEL)
