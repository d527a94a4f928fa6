"""The names of models' streams in the registry log, which several services read."""

_PREFIX = "model/"


def model_stream(origin: str) -> str:
    """Return the stream of a model, from the name that it was created with."""
    return _PREFIX + origin


def origin_of(stream: str) -> str:
    """Return the name that a stream's model was created with."""
    return stream.removeprefix(_PREFIX)
