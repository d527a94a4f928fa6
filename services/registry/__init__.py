"""The registry: models, versions and aliases. It owns the registry log; a stream is one model's, ``model/<name>``."""

from eventstore.codec import EventTypes
from rollforward import v1

EVENTS = EventTypes(
    [v1.ModelCreated, v1.RegistrationGateSet, v1.VersionRegistered, v1.AliasMoved, v1.AliasRemoved],
)


def model_stream(model: str) -> str:
    """The stream of a model."""
    return f"model/{model}"
