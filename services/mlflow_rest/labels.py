"""What MLflow keeps in tags and rollforward in fields of their own, and the tags that only this API reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

RUN_NAME = "mlflow.runName"
NOTE = "mlflow.note.content"
PARENT_RUN = "mlflow.parentRunId"
USER = "mlflow.user"

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


def iso(milliseconds: int) -> str:
    """Return a time as filters write it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def only_set(**fields: object) -> dict[str, object]:
    """Return the fields that have a value: MLflow leaves out the others."""
    return {name: value for name, value in fields.items() if value not in (None, [], "")}


def without(tags: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
    """Return tags without some keys."""
    dropped = set(keys)
    return {key: value for key, value in tags.items() if key not in dropped}
