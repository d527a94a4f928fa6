"""Tracking's rows in a real database, written append by append."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore.event import Metadata, RecordedEvent
from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from rollforward import v1
from services.series.columns import Points, pack
from services.timestamps import timestamp
from services.tracking.projection.apply import TrackingProjection

T = TypeVar("T")

SECOND = 1_000_000_000
"""One second, in nanoseconds."""

BEGAN = 1_700_000_000 * SECOND
"""The time of the first append; each later one is a second after the one before."""

BEGAN_MS = BEGAN // 1_000_000


class TrackingRows:
    """Rows, and the log that they are computed from."""

    def __init__(self, location: str) -> None:
        self._generations = Generations(TrackingProjection(), Database(location))
        self._rows = self._generations.create_live()
        self._experiments = 0
        self._runs = 0
        self._models = 0
        self.position = 0
        self.appends = 0

    def append(self, *payloads: Message, actor: str = "Zoë") -> None:
        """Apply one append, unless it is empty."""
        if not payloads:
            return
        end, time = self.position + len(payloads), BEGAN + self.appends * SECOND
        batch = [
            RecordedEvent("a stream", position, time, f"event-{position}", payload, Metadata(actor, ""), end)
            for position, payload in enumerate(payloads, self.position + 1)
        ]
        self._generations.apply(self._rows, self.position, batch)
        self.position, self.appends = end, self.appends + 1

    def experiment(self, name: str, **tags: str) -> str:
        """Create an experiment; return its id."""
        self._experiments += 1
        experiment_id = str(self._experiments)
        self.append(v1.ExperimentCreated(experiment_id=experiment_id, name=name, tags=tags))
        return experiment_id

    def run(self, experiment_id: str, *, start_ms: int | None = None, actor: str = "Zoë", **fields: object) -> str:
        """Start a run; return its id."""
        self._runs += 1
        run_id = f"{self._runs:032x}"
        payload = v1.RunStarted(run_id=run_id, experiment_id=experiment_id, **fields)  # type: ignore[arg-type]
        if start_ms is not None:
            payload.start_time.CopyFrom(timestamp(start_ms * 1_000_000))
        self.append(payload, actor=actor)
        return run_id

    def log(self, run_id: str, metrics: Mapping[str, float] = {}, **params: str) -> None:
        """Log metrics, one point each, and parameters."""
        payloads: list[Message] = []
        if metrics:
            payloads.append(
                v1.MetricsLogged(run_id=run_id, series=[point(key, value) for key, value in metrics.items()])
            )
        if params:
            payloads.append(v1.RunLogged(run_id=run_id, params=params))
        self.append(*payloads)

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self.append(v1.RunLogged(run_id=run_id, tags=tags))

    def model(self, experiment_id: str, name: str, **fields: object) -> str:
        """Create a logged model; return its id."""
        self._models += 1
        model_id = f"m-{self._models:032x}"
        payload = v1.LoggedModelCreated(model_id=model_id, experiment_id=experiment_id, name=name, **fields)  # type: ignore[arg-type]
        self.append(payload)
        return model_id

    def query(self, function: Callable[[sa.Connection], T]) -> T:
        """Run a query on the rows."""
        with self._rows.transaction() as connection:
            return function(connection)

    def plans(self, function: Callable[[sa.Connection], T]) -> tuple[T, list[str]]:
        """Run a query; return its result and the lines of the database's query plans, with current statistics."""
        with self._rows.writing() as connection:
            connection.exec_driver_sql("ANALYZE")
        statements: list[tuple[str, Any]] = []

        def record(_connection: sa.Connection, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            statements.append((statement, parameters))

        with self._rows.transaction() as connection:
            sa.event.listen(connection, "before_cursor_execute", record)
            result = function(connection)
            sa.event.remove(connection, "before_cursor_execute", record)
            explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN (COSTS OFF)"
            plans = [
                connection.exec_driver_sql(f"{explain} {statement}", parameters) for statement, parameters in statements
            ]
            return result, [str(row[-1]) for plan in plans for row in plan]

    def close(self) -> None:
        """Close all connections."""
        self._rows.close()


def point(key: str, value: float, *, step: int = 0, time_ms: int = 0, **fields: str) -> v1.Series:
    """Return a series of one point."""
    series = pack(key, Points(np.array([step]), np.array([time_ms]), np.array([value])))
    series.MergeFrom(v1.Series(**fields))  # type: ignore[arg-type]
    return series


@contextmanager
def tracking_rows(location: str) -> Iterator[TrackingRows]:
    """Yield new rows in a directory or a database."""
    rows = TrackingRows(location)
    try:
        yield rows
    finally:
        rows.close()
