"""Turns a range of a journal into the calls that deliver it: the same range always into the same calls."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward.journal_records import (
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
)
from rollforward.series import POINT_BYTES, Columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

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


def read_batch(data: bytes, run_id: str, seed: str, *, most: int = BATCH_BYTES, whole: bool = False) -> Batch | None:
    """The next batch of the frames in `data`, of about `most` bytes; None when there is no whole frame.

    With `whole` the range is all of `data`, as it was fixed before. `seed` is what the range is called: the calls'
    request ids follow from it. Raises ValueError for what a later version of this library wrote.
    """
    gathered = _Gathered(run_id)
    end = 0
    for payload, after in frames(data):
        record = parse(payload)
        if isinstance(record, Points | v1.LogBatchRequest):
            gathered.add(record)
        elif end == 0:
            return Batch([_single(record)], after)
        else:
            break
        end = after
        if gathered.size >= most and not whole:
            break
    return Batch(list(gathered.steps(f"{seed}/{end}")), end) if end else None


class _Gathered:
    """Labels and points that travel together."""

    def __init__(self, run_id: str) -> None:
        self.size = 0
        self._run_id = run_id
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._removed: dict[str, None] = {}
        self._columns: dict[tuple[bytes, About], Columns] = {}
        self._points = self._labels = 0

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
        step, timestamp, about = record.step, record.timestamp, record.about
        for name, value in record.values:
            columns = self._columns.get((name, about))
            if columns is None:
                columns = self._columns[name, about] = Columns()
                self.size += len(name) + _FRAME_BYTES + (0 if about is PLAIN else sum(map(len, about)))
            columns.append(step, timestamp, value)
        self._points += len(record.values)
        self.size += len(record.values) * POINT_BYTES

    def _add_labels(self, record: v1.LogBatchRequest) -> None:
        self._params.update(record.params)
        for key, value in record.tags.items():
            self._tags[key] = value
            self._removed.pop(key, None)
        for key in record.removed_tags:
            self._tags.pop(key, None)
            self._removed[key] = None
        self._labels += len(record.params) + len(record.tags) + len(record.removed_tags)
        self.size += record.ByteSize() + (len(record.params) + len(record.tags)) * _FRAME_BYTES


def _single(record: Record) -> Step:
    assert isinstance(record, Start | Call | Artifact)  # noqa: S101 - the others are gathered
    return Step(record, Count(0, 0, 1))


def _series(columns: Columns, name: bytes, about: About) -> v1.Series:
    series = columns.take(name.decode(), len(columns))
    series.model_id, series.dataset_name, series.dataset_digest = about
    return series


def request_of(step: Step) -> Message:
    """What a step sends in the end."""
    return step.action.request
