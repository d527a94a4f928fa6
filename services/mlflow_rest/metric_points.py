"""Metric points between MLflow's list of objects and our columns."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rollforward import v1
from services.mlflow_rest.parameters import Parameters
from services.mlflow_rest.run_views import number


class SeriesKey(NamedTuple):
    """What tells one series of a run from another."""

    key: str
    model_id: str
    dataset_name: str
    dataset_digest: str


class Point(NamedTuple):
    """A point: its series, step, time in ms since 1970, and value."""

    series: SeriesKey
    step: int
    timestamp: int
    value: float


def points_of(entries: Iterable[Parameters]) -> list[Point]:
    """Return the points that a request lists. Raises `MlflowError` as `Parameters.text`."""
    return [
        Point(
            SeriesKey(
                entry.text("key", empty=False),
                entry.text("model_id", ""),
                entry.text("dataset_name", ""),
                entry.text("dataset_digest", ""),
            ),
            entry.integer("step", 0),
            entry.integer("timestamp"),
            entry.number("value"),
        )
        for entry in entries
    ]


def series_of(points: Sequence[Point]) -> list[v1.Series]:
    """Return points as columns, a series each."""
    grouped: dict[SeriesKey, list[Point]] = {}
    for point in points:
        grouped.setdefault(point.series, []).append(point)
    return [
        v1.Series(
            **key._asdict(),
            steps=struct.pack(f"<{len(group)}q", *(point.step for point in group)),
            timestamps=struct.pack(f"<{len(group)}q", *(point.timestamp for point in group)),
            values=struct.pack(f"<{len(group)}d", *(point.value for point in group)),
        )
        for key, group in grouped.items()
    ]


def shown(series: v1.Series, key: str, **more: str) -> list[dict[str, Any]]:
    """Return the points of a series as MLflow lists them, each with `more`."""
    count = len(series.values) // 8
    steps, timestamps = struct.unpack(f"<{count}q", series.steps), struct.unpack(f"<{count}q", series.timestamps)
    values = struct.unpack(f"<{count}d", series.values)
    return [
        {"key": key, "value": number(value), "timestamp": timestamp, "step": step, **more}
        for step, timestamp, value in zip(steps, timestamps, values, strict=True)
    ]
