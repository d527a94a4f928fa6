"""What MLflow keeps in tags and rollforward in fields of their own, and the tags that only this API reads."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.timestamp_pb2 import Timestamp

RUN_NAME = "mlflow.runName"
NOTE = "mlflow.note.content"
PARENT_RUN = "mlflow.parentRunId"

MAX_PARAM_LENGTH = 6_000
MAX_TAG_LENGTH = 8_000

_MLFLOW_CONTEXT, _CONTEXT = "mlflow.data.context", "context"

HIDDEN = "rollforward.mlflow."
"""Tags that begin so hold what has no field of its own, and are not shown to MLflow's clients."""

ARTIFACT_LOCATION = f"{HIDDEN}artifact_location"
SOURCE = f"{HIDDEN}source"
MODEL_ID = f"{HIDDEN}model_id"
RUN_ID = f"{HIDDEN}run_id"
RUN_LINK = f"{HIDDEN}run_link"


def tags_shown(tags: Mapping[str, str], **fields: str) -> list[dict[str, str]]:
    """Return tags in MLflow's form; `fields` are by tag what fields of their own hold, and count more."""
    shown = {key: value for key, value in tags.items() if not key.startswith(HIDDEN)}
    return pairs({**shown, **{key: value for key, value in fields.items() if value}})


def shortened_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return parameters cut to the length that is kept, as MLflow does: a job must not fail for a long one."""
    return {key: value[:MAX_PARAM_LENGTH] for key, value in params.items()}


def shortened_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return a run's tags cut to the length that is kept, as MLflow does."""
    return {key: value[:MAX_TAG_LENGTH] for key, value in tags.items()}


def dataset_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a dataset's use by our names: what the dataset was used for is found by searches."""
    return {_CONTEXT if key == _MLFLOW_CONTEXT else key: value for key, value in tags.items()}


def dataset_tags_shown(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the tags of a dataset's use by MLflow's names."""
    return pairs({_MLFLOW_CONTEXT if key == _CONTEXT else key: value for key, value in tags.items()})


def pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a mapping as MLflow lists it."""
    return [{"key": key, "value": value} for key, value in sorted(values.items())]


def milliseconds(timestamp: Timestamp) -> int:
    """Return a time in milliseconds since 1970."""
    return timestamp.seconds * 1000 + timestamp.nanos // 1_000_000


def timestamp(milliseconds: int) -> Timestamp:
    """Return the time of so many milliseconds since 1970."""
    seconds, rest = divmod(milliseconds, 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def only_set(**fields: object) -> dict[str, object]:
    """Return the fields that have a value: MLflow leaves out the others."""
    return {name: value for name, value in fields.items() if value not in (None, [], "")}
