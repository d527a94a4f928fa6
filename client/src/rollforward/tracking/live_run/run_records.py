"""The journal records of a run's calls, and the error for records that were not delivered."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from rollforward import v1
from rollforward._journal import records
from rollforward._journal.records import PointContext
from rollforward._validation import checked_model_id, is_prose
from rollforward.errors import InvalidRequest, RollforwardError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rollforward._journal.writer import DeliveryResult

# So many points fit into an event, whatever their names.
_POINTS: Final = 400
# The size limit of an event.
_EVENT_BYTES: Final = 1_000_000
# The limits of a dataset's fields, in characters.
_DATASET: Final = {"name": 500, "digest": 36, "source_type": 100, "source": 65_535}
_DATASET_NAME_BYTES: Final = 1_500


def point_records(
    step: int, timestamp: int, values: Sequence[tuple[bytes, float]], context: PointContext
) -> Iterator[tuple[bytes, int]]:
    """Yield records of points of one step and time, each with its number of points."""
    for at in range(0, len(values), _POINTS):
        some = values[at : at + _POINTS]
        yield records.points(step, timestamp, some, context), len(some)


def label_records(
    params: Mapping[str, str], tags: Mapping[str, str], removed: Sequence[str]
) -> Iterator[tuple[bytes, int]]:
    """Yield records of parameters and tags, each with its number of labels."""
    yield from _label_records("params", params)
    yield from _label_records("tags", tags)
    if removed:
        yield records.labels(v1.LogBatchRequest(removed_tags=removed)), len(removed)


def undelivered(result: DeliveryResult, run_id: str) -> RollforwardError:
    """Return the error for lost records, else for those that are not delivered yet."""
    cause = result.failure or Unavailable("NOT_DELIVERED", "not delivered within the timeout")
    count = result.lost if result.lost.total else result.missing
    kind, reason = (type(cause), cause.reason) if result.lost.total else (Unavailable, "NOT_DELIVERED")
    names = ("points", "labels", "calls")
    counts = {name: str(number) for name, number in zip(names, count, strict=True)}
    metadata = {**cause.metadata, "run_id": run_id, **counts}
    state = "not logged" if result.lost.total else "not delivered yet"
    message = f"run {run_id}: {count.describe()} {state}: {cause.message or cause.reason}"
    return kind(reason, message, metadata, cause.details)


def _label_records(field: str, labels: Mapping[str, str]) -> Iterator[tuple[bytes, int]]:
    remaining = iter(labels.items())
    # A label has at most 8,000 characters of 4 bytes, and so many labels fit into a record.
    while some := dict(islice(remaining, records.RECORD_BYTES // 33_000)):
        yield records.labels(v1.LogBatchRequest(**{field: some})), len(some)  # type: ignore[arg-type]


def checked_size(payload: bytes) -> bytes:
    """Return a record, after checking that it fits into an event.

    Raises:
        InvalidRequest: MESSAGE_TOO_LARGE.
    """
    if len(payload) > _EVENT_BYTES:
        message = f"too large to log at once: {len(payload)} bytes, expected at most {_EVENT_BYTES}"
        raise InvalidRequest("MESSAGE_TOO_LARGE", message, {"size": str(len(payload)), "limit": str(_EVENT_BYTES)})
    return payload


def checked_dataset(dataset: v1.Dataset) -> v1.Dataset:
    """Return a dataset, after checking its fields.

    Its name has 1 to 500 characters and at most 1,500 bytes, its digest 1 to 36 characters, its source at most 65,535.

    Raises:
        InvalidRequest: INVALID_DATASET.
    """
    texts = {name: getattr(dataset, name) for name in _DATASET}
    too_long = len(dataset.name.encode()) > _DATASET_NAME_BYTES or any(
        len(texts[name]) > limit for name, limit in _DATASET.items()
    )
    if too_long or not (dataset.name and dataset.digest):
        message = (
            "invalid dataset: expected a name of 1 to 500 characters (at most 1,500 bytes), a digest of 1 to 36 "
            "and a source of at most 65,535 characters"
        )
        raise InvalidRequest("INVALID_DATASET", message, {"dataset": dataset.name[:100]})
    if not (dataset.name.isprintable() and dataset.digest.isprintable() and all(map(is_prose, texts.values()))):
        message = "invalid dataset: expected a printable name and digest, and a source without control characters"
        raise InvalidRequest("INVALID_DATASET", message, {"dataset": dataset.name[:100]})
    return dataset


def point_context(model_id: str, dataset: v1.Dataset | None) -> PointContext:
    """Return the context of points.

    Raises:
        InvalidRequest: INVALID_MODEL_ID, INVALID_DATASET.
    """
    named = checked_model_id(model_id) if model_id else ""
    return PointContext(named, "", "") if dataset is None else PointContext(named, *_named(checked_dataset(dataset)))


def _named(dataset: v1.Dataset) -> tuple[str, str]:
    return dataset.name, dataset.digest
