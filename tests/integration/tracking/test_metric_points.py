"""Histories, pages and intervals of metric points, on both databases, against plain lists of points."""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.errors import Rejected
from eventstore.event import Metadata, NewEvent
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import tracking
from services.series.columns import Points, pack, unpack
from services.tracking.projection.apply import TrackingProjection
from services.tracking.projection.tables import CHUNK_POINTS, PIECE_POINTS, metrics, runs
from services.tracking.queries import metric_history as statements
from services.tracking.queries import metric_intervals as drawings
from tests.servers.postgres import PostgresServer

T = TypeVar("T")
Point = tuple[int, int, float]

LOWEST, HIGHEST = -(2**63), 2**63 - 1
NAN, INF = math.nan, math.inf
INT64 = st.integers(LOWEST, HIGHEST)
SIZES = st.sampled_from([1, 2, PIECE_POINTS - 1, PIECE_POINTS + 1, 700, CHUNK_POINTS, 3 * CHUNK_POINTS + 5])


class Tracking:
    """The rows of tracking behind a log in memory; each run is a new one."""

    def __init__(self, place: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._log = MemoryStore("tracking", tracking.EVENTS)
        self._tail = Tail(self._log)
        self.rows = Projector(self._tail, TrackingProjection(), Database(place))
        self.do(self._tail.start())
        self.do(self.rows.start())

    def do(self, job: Coroutine[Any, Any, T]) -> T:
        """Does a job on the loop."""
        return self._loop.run_until_complete(job)

    def all(self, answers: AsyncGenerator[T]) -> list[T]:
        """All answers of a stream."""

        async def work() -> list[T]:
            return [answer async for answer in answers]

        return self.do(work())

    def stop(self) -> None:
        """Stops it."""
        self.do(self.rows.stop())
        self.do(self._tail.stop())
        self._loop.close()

    def start_run(self) -> str:
        """A new run."""
        run_id = uuid.uuid4().hex
        self._append(v1.RunStarted(run_id=run_id, experiment_id="1"))
        return run_id

    def log(self, run_id: str, key: str, points: Sequence[Point]) -> None:
        """Logs points at once; returns when they are in the rows."""
        self._append(v1.MetricsLogged(run_id=run_id, series=[packed(key, points)]))

    def history(self, run_id: str, key: str, **steps: int) -> list[Point]:
        """All points of a metric."""
        request = v1.GetMetricHistoryRequest(run_id=run_id, key=key, **steps)
        found = [unpacked(response.series) for response in self.all(statements.history(self.rows, request))]
        assert all(0 < len(part) <= statements.HISTORY_POINTS for part in found)
        return list(itertools.chain(*found))

    def page(self, run_id: str, key: str, size: int = 0, token: str = "") -> v1.ListMetricPointsResponse:
        """A page of a metric's points."""
        request = v1.ListMetricPointsRequest(run_id=run_id, key=key, page_size=size, page_token=token)
        return self.do(self.rows.query(lambda connection: statements.page(connection, request)))

    def intervals(self, run_ids: Sequence[str], keys: Sequence[str], **how: Any) -> list[v1.GetMetricIntervalsResponse]:
        """Metrics in intervals."""
        request = v1.GetMetricIntervalsRequest(run_ids=run_ids, keys=keys, **how)
        return self.all(drawings.intervals(self.rows, request))

    def _append(self, payload: Message) -> None:
        event_id = uuid.uuid4().hex
        event = NewEvent("runs", payload, Metadata("Zoë"), event_id, event_id)
        (position,) = self.do(self._log.append([event]))
        self.do(self.rows.wait_for(position))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """Tracking over either database."""
    if request.param == "sqlite":
        yield from running(str(tmp_path_factory.mktemp("rows")))
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        with server.database() as url:
            yield from running(url)


def running(place: str) -> Iterator[Tracking]:
    """Tracking over a database, until the tests are done."""
    started = Tracking(place)
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories are put in order by few points at a time, and few intervals are counted at once."""
    monkeypatch.setattr(statements, "WINDOW_POINTS", 1500)
    monkeypatch.setattr(statements, "HISTORY_POINTS", 999)
    monkeypatch.setattr(drawings, "MAX_BUCKETS", 700)


def packed(key: str, points: Sequence[Point]) -> v1.Series:
    """Points as they are logged."""
    steps, times, values = zip(*points, strict=True)
    return pack(key, Points(np.array(steps, np.int64), np.array(times, np.int64), np.array(values, float)))


def unpacked(series: v1.Series) -> list[Point]:
    """Points as they are answered."""
    points = unpack(series)
    return list(zip(points.steps.tolist(), points.timestamps.tolist(), points.values.tolist(), strict=True))


def text(points: Sequence[Point]) -> list[str]:
    """Points in a form in which NaN is equal to NaN."""
    return [repr(point) for point in points]


def in_order(points: Sequence[Point]) -> list[Point]:
    """By step and time; points alike in both as they came."""
    return sorted(points, key=lambda point: point[:2])


@st.composite
def stretches(draw: st.DrawFn) -> list[Point]:
    """Points as a job logs them at once: steps on, back or at a stand; times too."""
    size, stride = draw(SIZES), draw(st.sampled_from([-1, 0, 1, 1, 7]))
    first, began, pace = draw(st.integers(-3000, 3000)), draw(st.integers(0, 9)), draw(st.sampled_from([-1, 0, 1]))
    kinds = draw(st.lists(st.sampled_from([NAN, -INF, -0.0, 0.25, -3.5, 1e9, INF]), min_size=1, max_size=3))
    return [(first + stride * at, began + pace * at, kinds[at % len(kinds)]) for at in range(size)]


far = st.lists(st.tuples(INT64, INT64, st.floats()), min_size=1, max_size=20)
batches = st.lists(st.one_of(stretches(), stretches(), far), min_size=1, max_size=6)


@settings(max_examples=40)
@given(logged=batches, size=st.sampled_from([1, 600, 1024, 5000]), steps=st.tuples(INT64, st.integers(-2000, 2000)))
def test_histories_and_pages_have_all_points_in_order(
    system: Tracking, logged: list[list[Point]], size: int, steps: tuple[int, int]
) -> None:
    run_id = system.start_run()
    for batch in logged:
        system.log(run_id, "loss", batch)
    expected = in_order([point for batch in logged for point in batch])
    assert text(system.history(run_id, "loss")) == text(expected)
    low, high = sorted(steps)
    part = [point for point in expected if low <= point[0] <= high]
    assert text(system.history(run_id, "loss", from_step=low, to_step=high)) == text(part)
    assert text(paged(system, run_id, size, limit=4)) == text(expected[: 4 * size])


def paged(system: Tracking, run_id: str, size: int, limit: int) -> list[Point]:
    """The points of the first pages."""
    found: list[Point] = []
    token = ""
    for _ in range(limit):
        page = system.page(run_id, "loss", size, token)
        found += unpacked(page.series)
        if not (token := page.next_page_token):
            break
    return found


def test_pages_go_on_where_they_were_while_later_points_come(system: Tracking) -> None:
    run_id, found, token, step = system.start_run(), list[Point](), "", 0
    logged: list[Point] = []
    for size in (10, 50, 1, 63, 900, 2000, 5):
        news = [(step + at, 0, float(at)) for at in range(size)]
        step, logged = step + size, logged + news
        system.log(run_id, "loss", news)
        page = system.page(run_id, "loss", 7, token)
        found += unpacked(page.series)
        token = page.next_page_token
    assert found == logged[: len(found)]
    assert len(found) == 49


def test_a_history_is_of_the_moment_it_was_asked_for(system: Tracking) -> None:
    run_id = system.start_run()
    logged = [(at % 7, 0, float(at)) for at in range(2 * CHUNK_POINTS - 3)]
    system.log(run_id, "loss", logged)
    answers = statements.history(system.rows, v1.GetMetricHistoryRequest(run_id=run_id, key="loss"))

    found = unpacked(system.do(anext(answers)).series)
    # Its pieces become a whole chunk while it is read.
    system.log(run_id, "loss", [(at % 7, 0, 0.5) for at in range(PIECE_POINTS)])
    found += [point for response in system.all(answers) for point in unpacked(response.series)]
    assert found == in_order(logged)


@settings(max_examples=60)
@given(
    logged=st.lists(batches, min_size=1, max_size=3),
    count=st.sampled_from([0, 1, 2, 7, 320, 10_000]),
    axis=st.sampled_from([v1.METRIC_AXIS_STEP, v1.METRIC_AXIS_TIME, v1.METRIC_AXIS_UNSPECIFIED]),
    bounds=st.lists(st.one_of(st.none(), INT64, st.integers(-50, 5000)), min_size=2, max_size=2),
)
def test_intervals_say_of_points_what_a_loop_over_them_says(
    system: Tracking,
    logged: list[list[list[Point]]],
    count: int,
    axis: v1.MetricAxis.ValueType,
    bounds: Sequence[int | None],
) -> None:
    if None not in bounds:
        bounds = sorted(bound for bound in bounds if bound is not None)
    run_ids = [system.start_run() for _ in logged]
    for run_id, series in zip(run_ids, logged, strict=True):
        for batch in series:
            system.log(run_id, "loss", batch)
    how = {name: bound for name, bound in zip(("from", "to"), bounds, strict=True) if bound is not None}
    found = system.intervals(run_ids[::-1], ["none", "loss"], intervals=count, axis=axis, **how)
    points = {run_id: list(itertools.chain(*series)) for run_id, series in zip(run_ids, logged, strict=True)}
    check(found, points, count or 320, int(axis == v1.METRIC_AXIS_TIME), bounds)


@pytest.mark.parametrize("axis", [v1.METRIC_AXIS_STEP, v1.METRIC_AXIS_TIME])
def test_a_chart_of_more_chunks_than_are_counted_at_once_has_all_points(
    system: Tracking, axis: v1.MetricAxis.ValueType
) -> None:
    count = 38 * CHUNK_POINTS + 7
    luck = np.random.default_rng(1)
    values = luck.choice([NAN, INF, -INF, -0.0, 0.5, -3.0, 1e9], count, p=[0.1, 0.001, 0.001, 0.1, 0.4, 0.298, 0.1])
    kinds = {
        "even": np.arange(count) * 50 - 1000,
        "falling": -np.arange(count),
        "repeated": np.arange(count) // 700,
        "apart": np.where(np.arange(count) % 2, np.arange(count), HIGHEST - np.arange(count)),
        "mixed": luck.permutation(count),
    }
    points = {}
    for steps in kinds.values():
        run_id = system.start_run()
        places = (steps, np.arange(count)) if axis == v1.METRIC_AXIS_STEP else (np.arange(count), steps)
        points[run_id] = list(zip(*(column.tolist() for column in places), values.tolist(), strict=True))
        system.log(run_id, "loss", points[run_id])
        for bounds in ([None, None], [-20, 5000]):
            how = {name: bound for name, bound in zip(("from", "to"), bounds, strict=True) if bound is not None}
            found = system.intervals([run_id], ["loss"], axis=axis, **how)
            check(found, {run_id: points[run_id]}, 320, int(axis == v1.METRIC_AXIS_TIME), bounds)
    found = system.intervals(list(points), ["loss"], axis=axis, intervals=100)
    check(found, points, 100, int(axis == v1.METRIC_AXIS_TIME), [None, None])


def test_metrics_come_one_after_the_other_with_the_runs_that_have_them_in_the_order_asked_for(
    system: Tracking,
) -> None:
    run_ids = [system.start_run() for _ in range(3)]
    for run_id, key in ((run_ids[0], "a"), (run_ids[2], "a"), (run_ids[1], "b"), (run_ids[2], "b")):
        system.log(run_id, key, [(0, 0, 1.0), (9, 0, 1.0)])
    asked = [run_ids[2], run_ids[0], run_ids[1], run_ids[2]]
    for count in (1, 200, 400, 700):  # all at once, and in more and more parts
        found = [(one.key, one.run_id) for one in system.intervals(asked, ["b", "c", "a", "b"], intervals=count)]
        assert found == [("b", run_ids[2]), ("b", run_ids[1]), ("a", run_ids[2]), ("a", run_ids[0])]


def test_all_runs_are_drawn_over_the_same_while_points_come(system: Tracking) -> None:
    run_ids = [system.start_run() for _ in range(2)]
    for run_id in run_ids:
        system.log(run_id, "loss", [(0, 0, 1.0), (9, 0, 1.0)])
    asked = v1.GetMetricIntervalsRequest(run_ids=run_ids, keys=["loss"], intervals=700)  # a run at a time
    answers = drawings.intervals(system.rows, asked)
    found = [system.do(anext(answers))]
    system.log(run_ids[1], "loss", [(-5, 0, 1.0), (20, 0, 1.0)])
    found += system.all(answers)
    assert [(getattr(one, "from"), one.to, one.run_id) for one in found] == [(0, 9, run_id) for run_id in run_ids]


def check(
    found: Sequence[v1.GetMetricIntervalsResponse],
    points: dict[str, list[Point]],
    count: int,
    axis: int,
    bounds: Sequence[int | None],
) -> None:
    """Compares intervals with points."""
    places = [place_of(point, axis) for series in points.values() for point in series]
    low = min(places) if bounds[0] is None else bounds[0]
    high = max(places) if bounds[1] is None else bounds[1]
    expected = {run_id: cut(series, low, high, count, axis) for run_id, series in points.items()}
    assert {one.run_id for one in found} == {run_id for run_id, intervals in expected.items() if intervals}
    for one in found:
        assert (one.key, getattr(one, "from"), one.to, one.intervals) == ("loss", low, high, count)
        intervals = expected[one.run_id]
        assert np.frombuffer(one.numbers, "<u4").tolist() == sorted(intervals)
        columns = (one.counts, one.min, one.max, one.mean)
        rows = zip(
            *(np.frombuffer(column, kind).tolist() for column, kind in zip(columns, "Qddd", strict=True)), strict=True
        )
        for number, row in zip(sorted(intervals), rows, strict=True):
            agree(row, intervals[number])


def agree(row: tuple[Any, ...], values: Sequence[float]) -> None:
    """Whether an interval's figures are those of its values."""
    known = [value for value in values if not math.isnan(value)]
    assert row[0] == len(values)
    assert repr(row[1:3]) == repr((min(known) + 0.0, max(known) + 0.0) if known else (NAN, NAN))
    with np.errstate(all="ignore"):
        mean = float(np.sum(known) / len(known)) if known else NAN
    size = max(map(abs, known), default=0.0)
    assert repr(row[3]) == repr(mean) or math.isclose(row[3], mean, rel_tol=1e-9, abs_tol=size * 1e-9) or size > 1e300


def cut(points: Sequence[Point], low: int, high: int, count: int, axis: int) -> dict[int, list[float]]:
    """The values of each interval that has any."""
    found: dict[int, list[float]] = {}
    for point in points:
        if low <= place_of(point, axis) <= high:
            interval = (place_of(point, axis) - low) * count // max(high - low, 1)
            found.setdefault(min(interval, count - 1), []).append(point[2])
    return found


def place_of(point: Point, axis: int) -> int:
    """A point's step, or its time."""
    return point[1] if axis else point[0]


def test_a_question_that_is_too_large_or_not_one_is_refused(system: Tracking) -> None:
    run_id = system.start_run()
    system.log(run_id, "loss", [(0, 0, 1.0)])
    refusals: dict[str, list[dict[str, Any]]] = {
        "TOO_MANY_SERIES": [
            {"run_ids": [run_id] * 1001},
            {"keys": ["k"] * 101},
            {"run_ids": [run_id] * 101, "keys": ["k"] * 100},
        ],
        "INVALID_INTERVALS": [{"intervals": 10_001}, {"from": 1, "to": 0}],
        "RUN_NOT_FOUND": [
            {"run_ids": [run_id, "f" * 32]},
            {"run_ids": [run_id, "f" * 32], "intervals": 700},  # in several parts
            {"run_ids": [run_id, "f" * 32], "keys": []},
        ],
    }
    for reason, requests in refusals.items():
        for request in requests:
            with pytest.raises(Rejected) as refused:
                system.intervals(**{"run_ids": [run_id], "keys": ["loss"], **request})
            assert refused.value.reason == reason
    for reason, asked in {"RUN_NOT_FOUND": ("f" * 32, "loss"), "METRIC_NOT_FOUND": (run_id, "acc")}.items():
        for statement in (system.history, system.page):
            with pytest.raises(Rejected) as refused:
                statement(*asked)
            assert refused.value.reason == reason
    with pytest.raises(Rejected) as refused:
        system.page(run_id, "loss", 1, "e30=")
    assert refused.value.reason == "INVALID_PAGE"


def test_a_range_without_points_has_an_empty_history(system: Tracking) -> None:
    run_id = system.start_run()
    system.log(run_id, "loss", [(0, 0, 1.0), (9, 0, 1.0)])
    assert system.history(run_id, "loss", from_step=1, to_step=8) == []
    assert system.intervals([run_id], ["loss"], **{"from": 1, "to": 8}) == []


def test_points_that_are_no_numbers_leave_the_least_and_the_greatest_as_they_are(system: Tracking) -> None:
    run_id = system.start_run()
    numbers = [(at, 0, float(at)) for at in range(1, PIECE_POINTS)]
    for points in ([(0, 0, NAN)], numbers, [(0, 0, NAN)]):  # the last one is a piece of its own
        system.log(run_id, "loss", points)
    statement = sa.select(metrics.c.least, metrics.c.greatest, metrics.c.points).join(runs, runs.c.run == metrics.c.run)
    found = system.do(
        system.rows.query(lambda connection: connection.execute(statement.where(runs.c.run_id == run_id)).one())
    )
    assert tuple(found) == (1.0, PIECE_POINTS - 1, PIECE_POINTS + 1)
