"""Turns a range of a journal into the calls that deliver it: the same range always into the same calls."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward._journal.records import (
    PLAIN,
    About,
    Artifact,
    Call,
    Count,
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


class Step(NamedTuple):
    """One thing to do, and how much of what was logged it delivers."""

    action: Start | Artifact | Call
    content: Count


class Batch(NamedTuple):
    """What delivers a range."""

    steps: list[Step]
    end: int
    """Where the range ends, in bytes from its beginning."""


def read_batch(data: bytes, run_id: str, seed: str, *, most: int = BATCH_BYTES, whole: int = 0) -> Batch | None:
    """Return the next batch of the frames in `data`, of about `most` bytes; None without a whole frame.

    With `whole` the range is of so many bytes, as it was fixed before, whatever is left of them. `seed` is what the
    range is called: the calls' request ids follow from it. Raises ValueError for what a later version of this library
    wrote.
    """
    gathered = _Gathered(run_id)
    end = 0
    for payload, after in frames(data):
        # Most records by far.
        if (found := single_point(payload)) is not None:
            gathered.add_point(*found)
            end = after
            if gathered.size >= most and not whole:
                break
            continue
        record = parse(payload)
        if isinstance(record, Points | v1.LogBatchRequest):
            gathered.add(record)
        elif end == 0:
            return Batch([_single(record)], whole or after)
        else:
            break
        end = after
        if gathered.size >= most and not whole:
            break
    if not end:
        return None
    end = whole or end
    return Batch(list(gathered.steps(f"{seed}/{end}")), end)


def content_of(data: bytes) -> Count:
    """How much the frames in `data` hold."""
    found = Count(0, 0)
    while (batch := read_batch(data, "", "")) is not None:
        for step in batch.steps:
            found = found.plus(step.content)
        data = data[batch.end :]
    return found


class _Gathered:
    """Labels and points that travel together."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._size = 0
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._removed: dict[str, None] = {}
        self._columns: dict[tuple[bytes, About], Columns] = {}
        self._plain: dict[bytes, Columns] = {}
        self._points = self._labels = 0

    @property
    def size(self) -> int:
        """About how many bytes it takes to send them."""
        return self._size + self._points * POINT_BYTES

    def add_point(self, step: int, timestamp: int, value: float, name: bytes) -> None:
        columns = self._plain.get(name)
        if columns is None:
            columns = self._plain[name] = self._columns_of(name, PLAIN)
        columns.steps.append(step)
        columns.timestamps.append(timestamp)
        columns.values.append(value)
        self._points += 1

    def add(self, record: Points | v1.LogBatchRequest) -> None:
        if isinstance(record, Points):
            self._add_points(record)
        else:
            self._add_labels(record)

    def steps(self, seed: str) -> Iterator[Step]:
        # Apart: a parameter that is refused takes no points with it.
        if self._labels:
            request = v1.LogBatchRequest(
                run_id=self._run_id, params=self._params, tags=self._tags, removed_tags=list(self._removed)
            )
            yield self._step(request, f"{seed}/labels", Count(0, self._labels))
        if self._points:
            series = [_series(columns, name, about) for (name, about), columns in self._columns.items()]
            request = v1.LogBatchRequest(run_id=self._run_id, series=series)
            yield self._step(request, f"{seed}/points", Count(self._points, 0))

    def _step(self, request: v1.LogBatchRequest, seed: str, content: Count) -> Step:
        request.request_id = hashlib.sha256(seed.encode()).hexdigest()[:32]
        return Step(Call("LogBatch", request), content)

    def _add_points(self, record: Points) -> None:
        for name, value in record.values:
            self._columns_of(name, record.about).append(record.step, record.timestamp, value)
        self._points += len(record.values)

    def _columns_of(self, name: bytes, about: About) -> Columns:
        columns = self._columns.get((name, about))
        if columns is None:
            columns = self._columns[name, about] = Columns()
            self._size += len(name) + _FRAME_BYTES + sum(map(len, about))
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


def _single(record: Record) -> Step:
    assert isinstance(record, Start | Call | Artifact)  # noqa: S101 - the others are gathered
    return Step(record, Count(0, 0, 1))


def _series(columns: Columns, name: bytes, about: About) -> v1.Series:
    series = columns.take(name.decode(), len(columns))
    series.model_id, series.dataset_name, series.dataset_digest = about
    return series


def apart(step: Step) -> list[Step]:
    """Split a rejected step into steps of one label or series each; none when it has one only."""
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


def _part(part: v1.LogBatchRequest, whole: v1.LogBatchRequest) -> Step:
    points = sum(len(series.values) // 8 for series in part.series)
    what = part.SerializeToString(deterministic=True)
    part.run_id = whole.run_id
    part.request_id = hashlib.sha256(whole.request_id.encode() + what).hexdigest()[:32]
    return Step(Call("LogBatch", part), Count(points, 0 if points else 1))
