"""The calls that deliver a range of a journal: the same range always yields the same calls."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward._journal.records import (
    NO_CONTEXT,
    Artifact,
    Call,
    Count,
    PointContext,
    Points,
    Record,
    Start,
    frames,
    parse,
    single_point,
)
from rollforward._series import POINT_BYTES, Columns

if TYPE_CHECKING:
    from collections.abc import Iterator

# Half of what one event may hold, so that names and frames always fit.
BATCH_BYTES: Final = 500_000

# Lengths, tags and map entries around a name, in bytes, generously.
_FRAME_BYTES: Final = 48


class DeliveryStep(NamedTuple):
    """One action, and how many records it delivers."""

    action: Start | Artifact | Call
    content: Count


class Batch(NamedTuple):
    """The steps that deliver a range of a segment log."""

    steps: list[DeliveryStep]
    end: int
    """Where the range ends, in bytes from its beginning."""


def read_batch(
    data: bytes, run_id: str, seed: str, *, max_bytes: int = BATCH_BYTES, fixed_bytes: int = 0
) -> Batch | None:
    """Return the next batch of the frames in `data`; None if there is no complete frame.

    Args:
        data: Frames.
        run_id: The run that the records belong to.
        seed: The name of the range, from which the request ids are derived.
        max_bytes: The approximate size of a batch.
        fixed_bytes: The size of a range that was written to the cursor before; 0 for a new range.

    Raises:
        ValueError: A later version of this library wrote the records.
    """
    builder = _BatchBuilder(run_id)
    end = 0
    for payload, after in frames(data):
        # Nearly all records are single points.
        if (point := single_point(payload)) is not None:
            builder.add_point(*point)
            end = after
            if builder.size >= max_bytes and not fixed_bytes:
                break
            continue
        record = parse(payload)
        if isinstance(record, Points | v1.LogBatchRequest):
            builder.add(record)
        elif end == 0:
            return Batch([_single(record)], fixed_bytes or after)
        else:
            break
        end = after
        if builder.size >= max_bytes and not fixed_bytes:
            break
    if not end:
        return None
    end = fixed_bytes or end
    return Batch(list(builder.steps(f"{seed}/{end}")), end)


def content_of(data: bytes) -> Count:
    """Count the records in the frames of `data`."""
    total = Count(0, 0)
    while (batch := read_batch(data, "", "")) is not None:
        for step in batch.steps:
            total = total.plus(step.content)
        data = data[batch.end :]
    return total


class _BatchBuilder:
    """Labels and points that are sent together."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._size = 0
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._removed: dict[str, None] = {}
        self._columns: dict[tuple[bytes, PointContext], Columns] = {}
        # The columns without a context, by name alone: a shorter path for nearly all points.
        self._plain: dict[bytes, Columns] = {}
        self._points = self._labels = 0

    @property
    def size(self) -> int:
        """The approximate size of the requests, in bytes."""
        return self._size + self._points * POINT_BYTES

    def add_point(self, step: int, timestamp: int, value: float, name: bytes) -> None:
        columns = self._plain.get(name)
        if columns is None:
            columns = self._plain[name] = self._columns_of(name, NO_CONTEXT)
        columns.steps.append(step)
        columns.timestamps.append(timestamp)
        columns.values.append(value)
        self._points += 1

    def add(self, record: Points | v1.LogBatchRequest) -> None:
        if isinstance(record, Points):
            self._add_points(record)
        else:
            self._add_labels(record)

    def steps(self, seed: str) -> Iterator[DeliveryStep]:
        # Separate requests: a rejected parameter must not reject points.
        if self._labels:
            request = v1.LogBatchRequest(
                run_id=self._run_id, params=self._params, tags=self._tags, removed_tags=list(self._removed)
            )
            yield self._step(request, f"{seed}/labels", Count(0, self._labels))
        if self._points:
            series = [_series(columns, name, context) for (name, context), columns in self._columns.items()]
            request = v1.LogBatchRequest(run_id=self._run_id, series=series)
            yield self._step(request, f"{seed}/points", Count(self._points, 0))

    def _step(self, request: v1.LogBatchRequest, seed: str, content: Count) -> DeliveryStep:
        request.request_id = hashlib.sha256(seed.encode()).hexdigest()[:32]
        return DeliveryStep(Call("LogBatch", request), content)

    def _add_points(self, record: Points) -> None:
        for name, value in record.values:
            self._columns_of(name, record.context).append(record.step, record.timestamp, value)
        self._points += len(record.values)

    def _columns_of(self, name: bytes, context: PointContext) -> Columns:
        columns = self._columns.get((name, context))
        if columns is None:
            columns = self._columns[name, context] = Columns()
            self._size += len(name) + _FRAME_BYTES + sum(map(len, context))
        return columns

    def _add_labels(self, record: v1.LogBatchRequest) -> None:
        self._params.update(record.params)
        for key, value in record.tags.items():
            self._tags[key] = value
            self._removed.pop(key, None)
        for key in record.removed_tags:
            self._tags.pop(key, None)
            self._removed[key] = None
        self._labels += len(record.params) + len(record.tags) + len(record.removed_tags)
        self._size += record.ByteSize() + (len(record.params) + len(record.tags)) * _FRAME_BYTES


def _single(record: Record) -> DeliveryStep:
    assert isinstance(record, Start | Call | Artifact)  # noqa: S101 - the builder takes the others
    return DeliveryStep(record, Count(0, 0, 1))


def _series(columns: Columns, name: bytes, context: PointContext) -> v1.Series:
    series = columns.take(name.decode(), len(columns))
    series.model_id, series.dataset_name, series.dataset_digest = context
    return series


def split(step: DeliveryStep) -> list[DeliveryStep]:
    """Split a rejected step into steps of one label or series each; return no steps if it has only one."""
    request = step.action.request
    if not isinstance(request, v1.LogBatchRequest):
        return []
    parts = [
        *(v1.LogBatchRequest(params={key: value}) for key, value in request.params.items()),
        *(v1.LogBatchRequest(tags={key: value}) for key, value in request.tags.items()),
        *(v1.LogBatchRequest(removed_tags=[key]) for key in request.removed_tags),
        *(v1.LogBatchRequest(series=[series]) for series in request.series),
    ]
    return [_part(part, request) for part in parts] if len(parts) > 1 else []


def _part(part: v1.LogBatchRequest, whole: v1.LogBatchRequest) -> DeliveryStep:
    points = sum(len(series.values) // 8 for series in part.series)
    content = part.SerializeToString(deterministic=True)
    part.run_id = whole.run_id
    part.request_id = hashlib.sha256(whole.request_id.encode() + content).hexdigest()[:32]
    return DeliveryStep(Call("LogBatch", part), Count(points, 0 if points else 1))
