"""Tracking against a plain list of points: summaries and histories are what was logged, however it was cut up."""

from __future__ import annotations

import asyncio
import math
import tempfile
import uuid
from collections.abc import Awaitable, Sequence
from functools import cmp_to_key
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eventstore.event import Metadata, NewEvent
from eventstore.memory import MemoryStore
from eventstore.projection import Projector
from eventstore.rows import Database
from eventstore.tail import Tail
from rollforward import v1
from services import tracking
from services.registry import runs as known
from services.series import Points, pack
from services.tracking import queries
from services.tracking.decider import EXPERIMENTS, RUNS
from services.tracking.projection import TrackingProjection

T = TypeVar("T")
Point = tuple[int, int, float]

RUN_IDS = ("a" * 32, "b" * 32)
KEYS = ("loss", "acc")
NAN, INF = math.nan, math.inf
few = st.tuples(st.integers(-1, 3), st.integers(0, 2), st.sampled_from([NAN, -INF, -1.0, 0.5, 1.0, INF]))
columns = st.lists(few, min_size=1, max_size=4)


def order(one: Point, other: Point) -> int:
    """By step, by time, by value, NaN first."""
    keys = [
        (step, time, not math.isnan(value), 0.0 if math.isnan(value) else value) for step, time, value in (one, other)
    ]
    return (keys[0] > keys[1]) - (keys[0] < keys[1])


def text(points: Sequence[Point]) -> list[str]:
    """Points in a form in which NaN is equal to NaN."""
    return [repr(point) for point in points]


def summary(points: Sequence[Point]) -> list[str]:
    """What the contract says of a metric with these points: last, step, time, least, greatest, how many."""
    step, time, value = max(points, key=cmp_to_key(order))
    numbers = [point[2] for point in points if not math.isnan(point[2])] or [NAN]
    return [repr(one) for one in (value, step, time, min(numbers), max(numbers), len(points))]


class Tracking(RuleBasedStateMachine):
    """Random batches, restarts and rebuilds over a log in memory and rows in SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._home = tempfile.TemporaryDirectory()
        self._log = MemoryStore("tracking", tracking.EVENTS)
        self._points: dict[tuple[str, str], list[Point]] = {}
        self._params: dict[str, dict[str, str]] = {run_id: {} for run_id in RUN_IDS}
        self._tags: dict[str, dict[str, str]] = {run_id: {} for run_id in RUN_IDS}

    def run(self, job: Awaitable[T]) -> T:
        """Does a job on the loop."""
        return self._loop.run_until_complete(_awaited(job))

    @initialize()
    def begin(self) -> None:
        """Two runs of one experiment."""
        self._append(v1.ExperimentCreated(experiment_id="1", name="e"))
        for run_id in RUN_IDS:
            self._append(v1.RunStarted(run_id=run_id, experiment_id="1"))
        self.start()

    def start(self) -> None:
        """Opens the rows, the first time or again."""
        database = Database(self._home.name)
        self._tail = Tail(self._log)
        self._rows = Projector(self._tail, TrackingProjection(), database)
        self._known = Projector(self._tail, known.RunsProjection(), database)
        self.run(self._tail.start())
        self.run(self._rows.start())
        self.run(self._known.start())

    def stop(self) -> None:
        """Closes the rows."""
        for part in (self._rows, self._known, self._tail):
            self.run(part.stop())

    def teardown(self) -> None:
        """Stops everything."""
        self.stop()
        self._loop.close()
        self._home.cleanup()

    @rule(
        run_id=st.sampled_from(RUN_IDS),
        batch=st.lists(st.tuples(st.sampled_from(KEYS), columns), min_size=1, max_size=3),
    )
    def log_metrics(self, run_id: str, batch: list[tuple[str, list[Point]]]) -> None:
        """Points are logged, some of them late, repeated or out of order."""
        series = []
        for key, points in batch:
            self._points.setdefault((run_id, key), []).extend(points)
            steps, times, values = (np.array(column) for column in zip(*points, strict=True))
            series.append(pack(key, Points(steps, times, values.astype(float))))
        self._append(v1.MetricsLogged(run_id=run_id, series=series))

    @rule(run_id=st.sampled_from(RUN_IDS), key=st.sampled_from("xyz"), value=st.sampled_from("12"))
    def log_words(self, run_id: str, key: str, value: str) -> None:
        """A parameter is logged once, a tag again and again."""
        new = {} if key in self._params[run_id] else {key: value}
        self._params[run_id] |= new
        self._tags[run_id][key] = value
        self._append(v1.RunLogged(run_id=run_id, params=new, tags={key: value}))

    @rule()
    def restart(self) -> None:
        """The process ends and starts again."""
        self.stop()
        self.start()

    @rule(which=st.booleans())
    def rebuild(self, which: bool) -> None:
        """The rows are rebuilt, and are equal."""

        async def work() -> Sequence[Any]:
            return [step async for step in (self._rows if which else self._known).rebuild()]

        last = self.run(work())[-1]
        assert last.live_digest == last.rebuilt_digest != ""

    @invariant()
    def runs_are_what_was_logged(self) -> None:
        """Parameters, tags and summaries, as tracking shows them and as a gate sees them."""
        self._catch_up()
        for run_id in RUN_IDS:
            run = self.run(self._rows.query(lambda rows, run_id=run_id: queries.run(rows, run_id)))  # type: ignore[misc]
            assert (dict(run.params), dict(run.tags)) == (self._params[run_id], self._tags[run_id])
            shown = {
                key: [repr(value) for value in (m.last, m.last_step, m.last_timestamp, m.min, m.max, m.count)]
                for key, m in run.metrics.items()
            }
            logged = {key: points for (of, key), points in self._points.items() if of == run_id}
            assert shown == {key: summary(points) for key, points in logged.items()}
            seen, _ = self.run(self._known.query(lambda rows, run_id=run_id: known.evidence(rows, run_id)))  # type: ignore[misc]
            assert {key: repr(value) for key, value in seen.metrics.items()} == {
                key: summary(points)[0] for key, points in logged.items()
            }
            assert dict(seen.params) == self._params[run_id]

    @invariant()
    def histories_are_what_was_logged(self) -> None:
        """By step, time and arrival."""
        self._catch_up()
        for (run_id, key), points in self._points.items():
            asked = (run_id, key)
            found = self.run(self._rows.query(lambda rows, asked=asked: queries.metric_history(rows, *asked)))  # type: ignore[misc]
            shown = list(zip(found.steps.tolist(), found.timestamps.tolist(), found.values.tolist(), strict=True))
            assert text(shown) == text(sorted(points, key=lambda point: point[:2]))

    def _catch_up(self) -> None:
        head = self.run(self._log.head())
        self.run(self._rows.wait_for(head))
        self.run(self._known.wait_for(head))

    def _append(self, fact: Message) -> None:
        decider: Any = EXPERIMENTS if isinstance(fact, v1.ExperimentCreated) else RUNS
        event_id = uuid.uuid4().hex
        event = NewEvent(decider.stream_of(fact), fact, Metadata("Zoë"), event_id, event_id)
        self.run(self._log.append([event]))


async def _awaited(job: Awaitable[T]) -> T:
    return await job


Tracking.TestCase.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTracking = Tracking.TestCase
