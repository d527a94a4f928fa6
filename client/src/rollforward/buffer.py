"""What a run logged and has not sent yet, and how it is cut into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward.connection import new_request_id
from rollforward.series import POINT_BYTES, Columns

if TYPE_CHECKING:
    from collections.abc import Mapping

# Lengths, tags and map entries around a name, in bytes, generously.
_FRAME_BYTES: Final = 48


class Count(NamedTuple):
    """How much was logged."""

    points: int
    """Metric points."""
    labels: int
    """Parameters and tags."""

    @property
    def total(self) -> int:
        """Points, parameters and tags together."""
        return self.points + self.labels

    def plus(self, other: Count) -> Count:
        """Both together."""
        return Count(self.points + other.points, self.labels + other.labels)


class Batch(NamedTuple):
    """One request, which stays the same however often it is sent."""

    request: v1.LogBatchRequest
    content: Count


class Buffer:
    """Parameters, tags and metric points in memory; not safe for threads, its writer guards it."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._columns: dict[str, Columns] = {}
        self._points = 0
        self.size = 0
        """About how many bytes wait to be sent."""

    @property
    def count(self) -> Count:
        """How much waits to be sent."""
        return Count(self._points, len(self._params) + len(self._tags))

    def add_point(self, key: str, step: int, timestamp: int, value: float) -> None:
        """Add a point of a metric."""
        columns = self._columns.get(key)
        if columns is None:
            columns = self._columns[key] = Columns()
            self.size += _name_bytes(key)
        columns.append(step, timestamp, value)
        self._points += 1
        self.size += POINT_BYTES

    def add_params(self, params: Mapping[str, str]) -> None:
        """Add parameters."""
        self._add_labels(self._params, params)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Add tags; one that waits already gets the new value."""
        self._add_labels(self._tags, tags)

    def take(self, limit: int) -> Batch:
        """Cut off the next batch, of about `limit` bytes at most.

        Parameters and tags travel apart from points: a parameter that is refused takes no points with it.
        """
        return self._take_labels(limit) if self._params or self._tags else self._take_points(limit)

    def _add_labels(self, waiting: dict[str, str], labels: Mapping[str, str]) -> None:
        for key, value in labels.items():
            if key in waiting:
                self.size -= _label_bytes(key, waiting[key])
            waiting[key] = value
            self.size += _label_bytes(key, value)

    def _take_labels(self, limit: int) -> Batch:
        params = self._cut_labels(self._params, limit)
        room = limit - sum(_label_bytes(*label) for label in params.items())
        # At least one label, however small the limit.
        tags = self._cut_labels(self._tags, room) if room > 0 or not params else {}
        request = v1.LogBatchRequest(run_id=self._run_id, params=params, tags=tags, request_id=new_request_id())
        return Batch(request, Count(0, len(params) + len(tags)))

    def _cut_labels(self, waiting: dict[str, str], limit: int) -> dict[str, str]:
        taken: dict[str, str] = {}
        for key, value in waiting.items():
            size = _label_bytes(key, value)
            if taken and size > limit:
                break
            taken[key] = value
            limit -= size
            self.size -= size
        for key in taken:
            del waiting[key]
        return taken

    def _take_points(self, limit: int) -> Batch:
        series: list[v1.Series] = []
        count = 0
        for key in list(self._columns):
            room = (limit - _name_bytes(key)) // POINT_BYTES
            if series and room < 1:
                break
            taken = self._take_series(key, max(1, room))
            series.append(taken)
            count += len(taken.values) // 8
            limit -= _name_bytes(key) + 3 * len(taken.values)
        request = v1.LogBatchRequest(run_id=self._run_id, series=series, request_id=new_request_id())
        return Batch(request, Count(count, 0))

    def _take_series(self, key: str, most: int) -> v1.Series:
        columns = self._columns[key]
        count = min(most, len(columns))
        series = columns.take(key, count)
        self._points -= count
        self.size -= count * POINT_BYTES
        if not columns:
            del self._columns[key]
            self.size -= _name_bytes(key)
        return series


def _name_bytes(key: str) -> int:
    return len(key.encode()) + _FRAME_BYTES


def _label_bytes(key: str, value: str) -> int:
    return len(key.encode()) + len(value.encode()) + _FRAME_BYTES
