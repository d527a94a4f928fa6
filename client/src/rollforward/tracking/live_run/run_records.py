"""What a run's calls become in its journal, and what is said of that which could not be delivered."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from rollforward import v1
from rollforward._journal import records
from rollforward._journal.records import About
from rollforward._validation import checked_model_id, is_prose
from rollforward.errors import InvalidRequest, RollforwardError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rollforward._journal.writer import Outcome

# So many fit into an event with a batch before them, whatever their names.
_POINTS: Final = 400
# What one event may hold.
_EVENT_BYTES: Final = 1_000_000
# What a dataset's texts may have at most, in characters.
_DATASET: Final = {"name": 500, "digest": 36, "source_type": 100, "source": 65_535}
_DATASET_NAME_BYTES: Final = 1_500


def point_records(
    step: int, timestamp: int, values: Sequence[tuple[bytes, float]], about: About
) -> Iterator[tuple[bytes, int]]:
    """Yield records of points with one time, each with its number of points."""
    for at in range(0, len(values), _POINTS):
        some = values[at : at + _POINTS]
        yield records.points(step, timestamp, some, about), len(some)


def label_records(
    params: Mapping[str, str], tags: Mapping[str, str], removed: Sequence[str]
) -> Iterator[tuple[bytes, int]]:
    """Yield records of parameters and tags, each with its number of labels."""
    yield from _label_records("params", params)
    yield from _label_records("tags", tags)
    if removed:
        yield records.labels(v1.LogBatchRequest(removed_tags=removed)), len(removed)


def undelivered(outcome: Outcome, run_id: str) -> RollforwardError:
    """Return the error for what could not be logged, else for what is not delivered yet."""
    cause = outcome.failure or Unavailable("NOT_DELIVERED", "there was no time for it")
    about = outcome.lost if outcome.lost.total else outcome.missing
    kind, reason = (type(cause), cause.reason) if outcome.lost.total else (Unavailable, "NOT_DELIVERED")
    names = ("points", "labels", "calls")
    counts = {name: str(count) for name, count in zip(names, about, strict=True)}
    metadata = {**cause.metadata, "run_id": run_id, **counts}
    what = "not logged" if outcome.lost.total else "not delivered yet"
    message = f"run {run_id}: {about.in_words()} {what}: {cause.message or cause.reason}"
    return kind(reason, message, metadata, cause.details)


def _label_records(field: str, labels: Mapping[str, str]) -> Iterator[tuple[bytes, int]]:
    waiting = iter(labels.items())
    # A label has at most 8,000 characters of 4 bytes: so many fit into a record.
    while some := dict(islice(waiting, records.RECORD_BYTES // 33_000)):
        yield records.labels(v1.LogBatchRequest(**{field: some})), len(some)  # type: ignore[arg-type]


def checked_size(payload: bytes) -> bytes:
    """Return a record that fits into an event.

    Raises:
        InvalidRequest: MESSAGE_TOO_LARGE.
    """
    if len(payload) > _EVENT_BYTES:
        message = f"{len(payload)} bytes are more than the {_EVENT_BYTES} that can be logged at once"
        raise InvalidRequest("MESSAGE_TOO_LARGE", message, {"size": str(len(payload)), "limit": str(_EVENT_BYTES)})
    return payload


def checked_dataset(dataset: v1.Dataset) -> v1.Dataset:
    """Return a dataset whose texts are short enough.

    Its name has 1 to 500 characters and at most 1,500 bytes, its digest 1 to 36 characters, its source at most 65,535.

    Raises:
        InvalidRequest: INVALID_DATASET.
    """
    texts = {name: getattr(dataset, name) for name in _DATASET}
    too_long = len(dataset.name.encode()) > _DATASET_NAME_BYTES or any(
        len(texts[n]) > most for n, most in _DATASET.items()
    )
    if too_long or not (dataset.name and dataset.digest):
        message = (
            "a dataset has a name of 1 to 500 characters and 1,500 bytes and a digest of 1 to 36; "
            "its source has at most 65,535"
        )
        raise InvalidRequest("INVALID_DATASET", message, {"dataset": dataset.name[:100]})
    if not (dataset.name.isprintable() and dataset.digest.isprintable() and all(map(is_prose, texts.values()))):
        message = "a dataset's name and digest are printable, its source is without control characters"
        raise InvalidRequest("INVALID_DATASET", message, {"dataset": dataset.name[:100]})
    return dataset


def about(model_id: str, dataset: v1.Dataset | None) -> About:
    """Return what points are about.

    Raises:
        InvalidRequest: INVALID_MODEL_ID, INVALID_DATASET.
    """
    named = checked_model_id(model_id) if model_id else ""
    return About(named, "", "") if dataset is None else About(named, *_named(checked_dataset(dataset)))


def _named(dataset: v1.Dataset) -> tuple[str, str]:
    return dataset.name, dataset.digest
