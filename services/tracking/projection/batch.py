"""A batch of events on its way into rows, and what is known of the rows without asking them."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import RecordedEvent
from rollforward import v1
from services.series.columns import Columns, columns
from services.series.latest import Latest
from services.sql.write_buffer import Pending
from services.tracking import EVENTS
from services.tracking.projection.open_chunks import OpenSeries, SeriesKey
from services.tracking.projection.series_writer import grow
from services.tracking.projection.tables import model_metrics, models, runs

KNOWN_IDS = 100_000
"""How many ids of runs, and of logged models, are kept in memory with their numbers."""

_OF_RUNS, _OF_MODELS = EVENTS.with_field("run_id"), EVENTS.with_field("model_id")
_UNKNOWN = -1
_ASKED = 500
_ENOUGH_BYTES = 3_000_000  # of a column of points: 24 bytes of memory for each of them


@dataclass(slots=True)
class Memory:
    """A cache of what is known of the rows at a position of the log."""

    position: int = _UNKNOWN
    runs: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)
    models: OrderedDict[str, int] = field(default_factory=OrderedDict)
    series: OpenSeries = field(default_factory=OpenSeries)

    def leave(self) -> None:
        """Invalidate it until its position is known again."""
        self.position = _UNKNOWN

    def trim(self) -> None:
        """Forget the least recently used ids."""
        while len(self.runs) > KNOWN_IDS:
            self.runs.popitem(last=False)
        while len(self.models) > KNOWN_IDS:
            self.models.popitem(last=False)


class Batch:
    """The changes of rows by a batch of events; `pending` has those of all tables but the series."""

    def __init__(self, connection: sa.Connection, memory: Memory, events: Sequence[RecordedEvent]) -> None:
        self.pending = Pending()
        self._points: dict[SeriesKey, list[Columns]] = defaultdict(list)
        self._experiments: dict[int, int] = {}
        self._about_models: list[tuple[int, int, v1.Series]] = []
        self._size = 0
        self._rows = connection
        self._memory = memory
        self._find_runs({data.run_id for data in _data(events, _OF_RUNS)})
        self._find_models({data.model_id for data in _data(events, _OF_MODELS)})

    def run(self, run_id: str) -> int | None:
        """Return a run's number; None if rows know of no such run."""
        known = self._memory.runs.get(run_id)
        return known[0] if known else None

    def model(self, model_id: str) -> int | None:
        """Return a logged model's number; None if rows know of no such model."""
        return self._memory.models.get(model_id)

    def add_run(self, run_id: str, number: int, experiment: int) -> None:
        """Add a run that started."""
        self._memory.runs[run_id] = (number, experiment)

    def add_model(self, model_id: str, number: int) -> None:
        """Add a logged model that was created."""
        self._memory.models[model_id] = number

    def add_points(self, position: int, payload: v1.MetricsLogged) -> None:
        """Add points of a run; points about a logged model count for the model too, if it was created."""
        known = self._memory.runs.get(payload.run_id)
        if known is None:
            return
        number, experiment = known
        self._experiments[number] = experiment
        for series in payload.series:
            added = columns(series)
            self._points[number, series.key].append(added)
            self._size += len(added[0])
            if series.model_id:
                self._about_models.append((position, number, series))
        if self._size > _ENOUGH_BYTES:
            self._write_points()

    def write(self) -> None:
        """Write the batch."""
        self._write_points()
        self.pending.write(self._rows)
        self._memory.trim()

    def _write_points(self) -> None:
        if self._points:
            grow(self._rows, self._memory.series, self._points, self._experiments)
        if self._about_models:
            self._write_model_metrics()
        self._points.clear()
        self._about_models.clear()
        self._size = 0

    def _write_model_metrics(self) -> None:
        self._find_models({series.model_id for _, _, series in self._about_models})
        latest = Latest()
        for position, run, series in self._about_models:
            model = self.model(series.model_id)
            # A model's number is the position that it began at.
            if model and model < position:
                latest.add((model, series.key, run, series.dataset_name, series.dataset_digest), series)
        latest.write(self._rows, model_metrics)

    def _find_runs(self, asked: Set[str]) -> None:
        missing = _missing(self._memory.runs, asked)
        statement = sa.select(runs.c.run_id, runs.c.run, runs.c.experiment)
        for run_id, number, experiment in _found(self._rows, statement, runs.c.run_id, missing):
            self._memory.runs[run_id] = (number, experiment)

    def _find_models(self, asked: Set[str]) -> None:
        missing = _missing(self._memory.models, asked)
        statement = sa.select(models.c.model_id, models.c.model)
        for model_id, number in _found(self._rows, statement, models.c.model_id, missing):
            self._memory.models[model_id] = number


def _data(events: Sequence[RecordedEvent], types: Set[type[Message]]) -> Iterable[Any]:
    return (event.data for event in events if type(event.data) in types)


def _missing(known: OrderedDict[str, Any], asked: Iterable[str]) -> Sequence[str]:
    missing = []
    for name in asked:
        if name in known:
            known.move_to_end(name)
        else:
            missing.append(name)
    return missing


def _found(
    connection: sa.Connection, statement: sa.Select[Any], column: sa.Column[str], ids: Sequence[str]
) -> Iterable[Any]:
    for at in range(0, len(ids), _ASKED):
        yield from connection.execute(statement.where(column.in_(ids[at : at + _ASKED])))
