"""Histories, pages and intervals of metric points, on both databases, compared with plain lists of points."""

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
    """The rows of tracking over a log in memory."""

    def __init__(self, location: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._log = MemoryStore("tracking", tracking.EVENTS)
        self._tail = Tail(self._log)
        self.rows = Projector(self._tail, TrackingProjection(), Database(location))
        self.do(self._tail.start())
        self.do(self.rows.start())

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop."""
        return self._loop.run_until_complete(coroutine)

    def all(self, responses: AsyncGenerator[T]) -> list[T]:
        """Return all responses of a stream."""

        async def work() -> list[T]:
            return [response async for response in responses]

        return self.do(work())

    def stop(self) -> None:
        """Stop the rows, the tail and the loop."""
        self.do(self.rows.stop())
        self.do(self._tail.stop())
        self._loop.close()

    def start_run(self) -> str:
        """Start a run; return its id."""
        run_id = uuid.uuid4().hex
        self._append(v1.RunStarted(run_id=run_id, experiment_id="1"))
        return run_id

    def log(self, run_id: str, key: str, points: Sequence[Point]) -> None:
        """Log points in one batch and wait until they are in the rows."""
        self._append(v1.MetricsLogged(run_id=run_id, series=[packed(key, points)]))

    def history(self, run_id: str, key: str, **steps: int) -> list[Point]:
        """Return all points of a metric."""
        request = v1.GetMetricHistoryRequest(run_id=run_id, key=key, **steps)
        parts = [unpacked(response.series) for response in self.all(statements.history(self.rows, request))]
        assert all(0 < len(part) <= statements.HISTORY_POINTS for part in parts)
        return list(itertools.chain(*parts))

    def page(self, run_id: str, key: str, size: int = 0, token: str = "") -> v1.ListMetricPointsResponse:
        """Return a page of a metric's points."""
        request = v1.ListMetricPointsRequest(run_id=run_id, key=key, page_size=size, page_token=token)
        return self.do(self.rows.query(lambda connection: statements.page(connection, request)))

    def intervals(
        self, run_ids: Sequence[str], keys: Sequence[str], **options: Any
    ) -> list[v1.GetMetricIntervalsResponse]:
        """Return metrics in intervals."""
        request = v1.GetMetricIntervalsRequest(run_ids=run_ids, keys=keys, **options)
        return self.all(drawings.intervals(self.rows, request))

    def _append(self, payload: Message) -> None:
        event_id = uuid.uuid4().hex
        event = NewEvent("runs", payload, Metadata("Zoë"), event_id, event_id)
        (position,) = self.do(self._log.append([event]))
        self.do(self.rows.wait_for(position))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracking]:
    """Yield tracking over each database."""
    if request.param == "sqlite":
        yield from running(str(tmp_path_factory.mktemp("rows")))
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        with server.database() as url:
            yield from running(url)


def running(location: str) -> Iterator[Tracking]:
    """Yield tracking over a database, and stop it after the tests."""
    started = Tracking(location)
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Order histories in small windows, and count few intervals at a time."""
    monkeypatch.setattr(statements, "WINDOW_POINTS", 1500)
    monkeypatch.setattr(statements, "HISTORY_POINTS", 999)
    monkeypatch.setattr(drawings, "MAX_BUCKETS", 700)


def packed(key: str, points: Sequence[Point]) -> v1.Series:
    """Pack points as they are logged."""
    steps, times, values = zip(*points, strict=True)
    return pack(key, Points(np.array(steps, np.int64), np.array(times, np.int64), np.array(values, float)))


def unpacked(series: v1.Series) -> list[Point]:
    """Unpack points of a response."""
    points = unpack(series)
    return list(zip(points.steps.tolist(), points.timestamps.tolist(), points.values.tolist(), strict=True))


def text(points: Sequence[Point]) -> list[str]:
    """Return points in a form in which NaN equals NaN."""
    return [repr(point) for point in points]


def in_order(points: Sequence[Point]) -> list[Point]:
    """Sort points by step and time, then by arrival."""
    return sorted(points, key=lambda point: point[:2])


@st.composite
def stretches(draw: st.DrawFn) -> list[Point]:
    """Draw points as a job logs them in a batch: steps and times increase, decrease or repeat."""
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
    """Return the points of the first pages."""
    points: list[Point] = []
    token = ""
    for _ in range(limit):
        page = system.page(run_id, "loss", size, token)
        points += unpacked(page.series)
        if not (token := page.next_page_token):
            break
    return points


def test_pages_continue_despite_later_points(system: Tracking) -> None:
    run_id, found, token, step = system.start_run(), list[Point](), "", 0
    logged: list[Point] = []
    for size in (10, 50, 1, 63, 900, 2000, 5):
        new_points = [(step + at, 0, float(at)) for at in range(size)]
        step, logged = step + size, logged + new_points
        system.log(run_id, "loss", new_points)
        page = system.page(run_id, "loss", 7, token)
        found += unpacked(page.series)
        token = page.next_page_token
    assert found == logged[: len(found)]
    assert len(found) == 49


def test_history_is_consistent_snapshot(system: Tracking) -> None:
    run_id = system.start_run()
    logged = [(at % 7, 0, float(at)) for at in range(2 * CHUNK_POINTS - 3)]
    system.log(run_id, "loss", logged)
    responses = statements.history(system.rows, v1.GetMetricHistoryRequest(run_id=run_id, key="loss"))

    found = unpacked(system.do(anext(responses)).series)
    # Open chunks are sealed while the history is read.
    system.log(run_id, "loss", [(at % 7, 0, 0.5) for at in range(PIECE_POINTS)])
    found += [point for response in system.all(responses) for point in unpacked(response.series)]
    assert found == in_order(logged)


@settings(max_examples=60)
@given(
    logged=st.lists(batches, min_size=1, max_size=3),
    count=st.sampled_from([0, 1, 2, 7, 320, 10_000]),
    axis=st.sampled_from([v1.METRIC_AXIS_STEP, v1.METRIC_AXIS_TIME, v1.METRIC_AXIS_UNSPECIFIED]),
    bounds=st.lists(st.one_of(st.none(), INT64, st.integers(-50, 5000)), min_size=2, max_size=2),
)
def test_intervals_equal_those_of_loop_over_points(
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
    options = {name: bound for name, bound in zip(("from", "to"), bounds, strict=True) if bound is not None}
    found = system.intervals(run_ids[::-1], ["none", "loss"], intervals=count, axis=axis, **options)
    points = {run_id: list(itertools.chain(*series)) for run_id, series in zip(run_ids, logged, strict=True)}
    check(found, points, count or 320, int(axis == v1.METRIC_AXIS_TIME), bounds)


@pytest.mark.parametrize("axis", [v1.METRIC_AXIS_STEP, v1.METRIC_AXIS_TIME])
def test_intervals_of_many_chunks_have_all_points(system: Tracking, axis: v1.MetricAxis.ValueType) -> None:
    count = 38 * CHUNK_POINTS + 7
    rng = np.random.default_rng(1)
    values = rng.choice([NAN, INF, -INF, -0.0, 0.5, -3.0, 1e9], count, p=[0.1, 0.001, 0.001, 0.1, 0.4, 0.298, 0.1])
    kinds = {
        "even": np.arange(count) * 50 - 1000,
        "falling": -np.arange(count),
        "repeated": np.arange(count) // 700,
        "apart": np.where(np.arange(count) % 2, np.arange(count), HIGHEST - np.arange(count)),
        "mixed": rng.permutation(count),
    }
    points = {}
    for steps in kinds.values():
        run_id = system.start_run()
        places = (steps, np.arange(count)) if axis == v1.METRIC_AXIS_STEP else (np.arange(count), steps)
        points[run_id] = list(zip(*(column.tolist() for column in places), values.tolist(), strict=True))
        system.log(run_id, "loss", points[run_id])
        for bounds in ([None, None], [-20, 5000]):
            options = {name: bound for name, bound in zip(("from", "to"), bounds, strict=True) if bound is not None}
            found = system.intervals([run_id], ["loss"], axis=axis, **options)
            check(found, {run_id: points[run_id]}, 320, int(axis == v1.METRIC_AXIS_TIME), bounds)
    found = system.intervals(list(points), ["loss"], axis=axis, intervals=100)
    check(found, points, 100, int(axis == v1.METRIC_AXIS_TIME), [None, None])


def test_intervals_are_in_order_of_requested_metrics_and_runs(
    system: Tracking,
) -> None:
    run_ids = [system.start_run() for _ in range(3)]
    for run_id, key in ((run_ids[0], "a"), (run_ids[2], "a"), (run_ids[1], "b"), (run_ids[2], "b")):
        system.log(run_id, key, [(0, 0, 1.0), (9, 0, 1.0)])
    requested = [run_ids[2], run_ids[0], run_ids[1], run_ids[2]]
    for count in (1, 200, 400, 700):  # in one part, then in more and more parts
        found = [
            (series.key, series.run_id) for series in system.intervals(requested, ["b", "c", "a", "b"], intervals=count)
        ]
        assert found == [("b", run_ids[2]), ("b", run_ids[1]), ("a", run_ids[2]), ("a", run_ids[0])]


def test_all_runs_have_same_bounds_despite_new_points(system: Tracking) -> None:
    run_ids = [system.start_run() for _ in range(2)]
    for run_id in run_ids:
        system.log(run_id, "loss", [(0, 0, 1.0), (9, 0, 1.0)])
    request = v1.GetMetricIntervalsRequest(run_ids=run_ids, keys=["loss"], intervals=700)  # one run at a time
    responses = drawings.intervals(system.rows, request)
    found = [system.do(anext(responses))]
    system.log(run_ids[1], "loss", [(-5, 0, 1.0), (20, 0, 1.0)])
    found += system.all(responses)
    assert [(getattr(series, "from"), series.to, series.run_id) for series in found] == [
        (0, 9, run_id) for run_id in run_ids
    ]


def check(
    found: Sequence[v1.GetMetricIntervalsResponse],
    points: dict[str, list[Point]],
    count: int,
    axis: int,
    bounds: Sequence[int | None],
) -> None:
    """Compare intervals with points."""
    places = [position_of(point, axis) for series in points.values() for point in series]
    low = min(places) if bounds[0] is None else bounds[0]
    high = max(places) if bounds[1] is None else bounds[1]
    expected = {run_id: cut(series, low, high, count, axis) for run_id, series in points.items()}
    assert {series.run_id for series in found} == {run_id for run_id, intervals in expected.items() if intervals}
    for series in found:
        assert (series.key, getattr(series, "from"), series.to, series.intervals) == ("loss", low, high, count)
        intervals = expected[series.run_id]
        assert np.frombuffer(series.numbers, "<u4").tolist() == sorted(intervals)
        columns = (series.counts, series.min, series.max, series.mean)
        rows = zip(
            *(np.frombuffer(column, kind).tolist() for column, kind in zip(columns, "Qddd", strict=True)), strict=True
        )
        for number, row in zip(sorted(intervals), rows, strict=True):
            check_interval(row, intervals[number])


def check_interval(row: tuple[Any, ...], values: Sequence[float]) -> None:
    """Fail unless an interval's numbers are those of its values."""
    known = [value for value in values if not math.isnan(value)]
    assert row[0] == len(values)
    assert repr(row[1:3]) == repr((min(known) + 0.0, max(known) + 0.0) if known else (NAN, NAN))
    with np.errstate(all="ignore"):
        mean = float(np.sum(known) / len(known)) if known else NAN
    size = max(map(abs, known), default=0.0)
    assert repr(row[3]) == repr(mean) or math.isclose(row[3], mean, rel_tol=1e-9, abs_tol=size * 1e-9) or size > 1e300


def cut(points: Sequence[Point], low: int, high: int, count: int, axis: int) -> dict[int, list[float]]:
    """Return the values of each interval that has any."""
    values: dict[int, list[float]] = {}
    for point in points:
        if low <= position_of(point, axis) <= high:
            interval = (position_of(point, axis) - low) * count // max(high - low, 1)
            values.setdefault(min(interval, count - 1), []).append(point[2])
    return values


def position_of(point: Point, axis: int) -> int:
    """Return a point's step or time."""
    return point[1] if axis else point[0]


def test_too_large_or_invalid_request_is_rejected(system: Tracking) -> None:
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
    for reason, arguments in {"RUN_NOT_FOUND": ("f" * 32, "loss"), "METRIC_NOT_FOUND": (run_id, "acc")}.items():
        for read in (system.history, system.page):
            with pytest.raises(Rejected) as refused:
                read(*arguments)
            assert refused.value.reason == reason
    with pytest.raises(Rejected) as refused:
        system.page(run_id, "loss", 1, "e30=")
    assert refused.value.reason == "INVALID_PAGE"


def test_range_without_points_has_empty_history(system: Tracking) -> None:
    run_id = system.start_run()
    system.log(run_id, "loss", [(0, 0, 1.0), (9, 0, 1.0)])
    assert system.history(run_id, "loss", from_step=1, to_step=8) == []
    assert system.intervals([run_id], ["loss"], **{"from": 1, "to": 8}) == []


def test_nan_points_do_not_change_min_and_max(system: Tracking) -> None:
    run_id = system.start_run()
    numbers = [(at, 0, float(at)) for at in range(1, PIECE_POINTS)]
    for points in ([(0, 0, NAN)], numbers, [(0, 0, NAN)]):  # the last one is in its own open chunk
        system.log(run_id, "loss", points)
    statement = sa.select(metrics.c.least, metrics.c.greatest, metrics.c.points).join(runs, runs.c.run == metrics.c.run)
    found = system.do(
        system.rows.query(lambda connection: connection.execute(statement.where(runs.c.run_id == run_id)).one())
    )
    assert tuple(found) == (1.0, PIECE_POINTS - 1, PIECE_POINTS + 1)
