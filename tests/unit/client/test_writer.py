"""What a run logs arrives in batches, once and whole, also when the service is away for a while."""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import grpc
import pytest

import rollforward as rf
from rollforward import v1
from rollforward.connection import Connection
from rollforward.errors import InvalidRequest, PreconditionFailed, Unavailable
from rollforward.journal import Head
from rollforward.journal_records import Count, framed_point
from rollforward.run import Run
from rollforward.series import unpack
from rollforward.writer import Writer
from tests.unit.client.conftest import Serve, Service

RUN = "0123456789abcdef" * 2
MODEL = f"m-{RUN}"


class Tracking(Service):
    """Keeps what it is sent; answers the next batches with the errors in `failures`."""

    def __init__(self) -> None:
        self.batches: list[v1.LogBatchRequest] = []
        self.failures: list[grpc.StatusCode] = []
        self.failed: list[v1.LogBatchRequest] = []
        self.endings: list[v1.FinishRunRequest] = []
        self.started: list[v1.StartRunRequest] = []
        self.experiments: dict[str, str] = {}
        self.attended: list[str] = []
        self.others: list[Any] = []
        self.away = False
        self.refused: set[str] = set()
        self.status = v1.RUN_STATUS_RUNNING
        self.lock = threading.Lock()
        self.arrived = threading.Event()

    def LogBatch(self, request: v1.LogBatchRequest, context: Any) -> v1.LogBatchResponse:  # noqa: N802
        with self.lock:
            self.arrived.set()
            code = grpc.StatusCode.UNAVAILABLE if self.away else self.failures.pop(0) if self.failures else None
            if code is None and self.refused & {*request.params, *request.tags, *(one.key for one in request.series)}:
                code = grpc.StatusCode.FAILED_PRECONDITION
            (self.batches if code is None else self.failed).append(request)
        if code is not None:
            context.abort(code, "no")
        return v1.LogBatchResponse(position=len(self.batches))

    def FinishRun(self, request: v1.FinishRunRequest, _context: Any) -> v1.FinishRunResponse:  # noqa: N802
        self.endings.append(request)
        return v1.FinishRunResponse()

    def LogLineage(self, request: v1.LogLineageRequest, _context: Any) -> v1.LogLineageResponse:  # noqa: N802
        self.others.append(request)
        return v1.LogLineageResponse()

    def DescribeRun(self, request: v1.DescribeRunRequest, _context: Any) -> v1.DescribeRunResponse:  # noqa: N802
        self.others.append(request)
        return v1.DescribeRunResponse()

    def ResumeRun(self, request: v1.ResumeRunRequest, _context: Any) -> v1.ResumeRunResponse:  # noqa: N802
        self.others.append(request)
        return v1.ResumeRunResponse()

    def GetRun(self, request: v1.GetRunRequest, context: Any) -> v1.GetRunResponse:  # noqa: N802
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        found = v1.Run(run_id=request.run_id, experiment_id="7", name="known", status=self.status, params={"p": "1"})
        return v1.GetRunResponse(run=found)

    def AttendRun(self, request: v1.AttendRunRequest, context: Any) -> Iterator[v1.AttendRunResponse]:  # noqa: N802
        self.attended.append(request.run_id)
        ended = threading.Event()
        context.add_callback(ended.set)
        yield v1.AttendRunResponse(patience_seconds=60)
        ended.wait()
        self.attended.remove(request.run_id)

    def GetExperiment(self, request: v1.GetExperimentRequest, context: Any) -> v1.GetExperimentResponse:  # noqa: N802
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        if request.name not in self.experiments:
            context.abort(grpc.StatusCode.NOT_FOUND, "no")
        found = v1.Experiment(experiment_id=self.experiments[request.name])
        return v1.GetExperimentResponse(experiment=found)

    def CreateExperiment(self, request: v1.CreateExperimentRequest, _context: Any) -> v1.CreateExperimentResponse:  # noqa: N802
        self.experiments[request.name] = str(len(self.experiments) + 1)
        return v1.CreateExperimentResponse(experiment_id=self.experiments[request.name])

    def StartRun(self, request: v1.StartRunRequest, _context: Any) -> v1.StartRunResponse:  # noqa: N802
        self.started.append(request)
        return v1.StartRunResponse()

    def values(self, key: str) -> list[float]:
        return list(unpack(series for batch in self.batches for series in batch.series if series.key == key).values)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's journals are."""
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path / "journal"))
    return tmp_path / "journal"


@pytest.fixture
def tracking() -> Tracking:
    return Tracking()


@pytest.fixture
def link(serve: Serve, tracking: Tracking) -> Connection:
    return serve(tracking, v1.add_TrackingServiceServicer_to_server)


def open_run(link: Connection, **options: Any) -> Run:
    """A run that the service is taken to know."""
    return Run(open_writer(link, **options), link, RUN, experiment_id="1", name="rf-1")


def open_writer(link: Connection, **options: Any) -> Writer:
    return Writer(link, Head(RUN, link.address, link.actor), **options)


@pytest.fixture
def run(link: Connection) -> Iterator[Run]:
    live = open_run(link)
    yield live
    live.finish()


def until(condition: Any, seconds: float = 20.0) -> None:
    """Returns once a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def left(place: Path) -> list[Path]:
    """What journals have left behind."""
    return list(place.rglob("*"))


def test_points_travel_together_and_in_order(run: Run, tracking: Tracking) -> None:
    for step in range(1000):
        run.log_metrics({"loss": step / 2, "accuracy": float("nan")}, step=step)
    run.flush()
    assert tracking.values("loss") == [step / 2 for step in range(1000)]
    assert len(tracking.values("accuracy")) == 1000
    assert len(tracking.batches) < 20
    assert len({batch.request_id for batch in tracking.batches}) == len(tracking.batches)


def test_a_quiet_run_sends_what_it_has_after_a_while(run: Run, tracking: Tracking) -> None:
    run.log_metric("loss", 1)
    assert tracking.arrived.wait(20)


def test_large_logs_are_cut_into_batches(run: Run, tracking: Tracking, place: Path) -> None:
    for step in range(50_000):
        run.log_metric("loss", step, step)
    run.finish()
    assert tracking.values("loss") == [float(step) for step in range(50_000)]
    assert 1 < len(tracking.batches) < 20
    assert all(batch.ByteSize() <= 500_100 for batch in tracking.batches)
    run.flush()
    assert left(place) == []


def test_the_same_batch_is_sent_until_it_is_answered(run: Run, tracking: Tracking) -> None:
    tracking.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    run.log_metric("loss", 1.0)
    run.flush()
    sent = {batch.SerializeToString() for batch in [*tracking.failed, *tracking.batches]}
    assert (len(tracking.failed), len(sent)) == (2, 1)


def test_what_was_not_delivered_in_time_is_counted_and_still_delivered_later(
    link: Connection, tracking: Tracking
) -> None:
    tracking.away = True
    run = open_run(link)
    run.log_metrics({"loss": 1.0, "accuracy": 2.0})
    run.log_params({"p": 1})
    with pytest.raises(Unavailable) as late:
        run.flush(timeout=0.2)
    assert late.value.reason == "NOT_DELIVERED"
    assert (late.value.metadata["points"], late.value.metadata["labels"]) == ("2", "1")
    tracking.away = False
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]


def test_what_is_refused_is_raised_by_flush_and_takes_nothing_else_with_it(run: Run, tracking: Tracking) -> None:
    tracking.refused = {"loss", "p"}
    run.log_metrics({"loss": 1.0, "accuracy": 2.0})
    run.log_params({"p": 1, "q": 2})
    run.set_tags({"t": 3})
    run.remove_tag("u")
    with pytest.raises(PreconditionFailed) as refused:
        run.flush()
    assert (refused.value.metadata["points"], refused.value.metadata["labels"]) == ("1", "1")
    assert tracking.values("accuracy") == [2.0]
    assert [dict(batch.params) for batch in tracking.batches if batch.params] == [{"q": "2"}]
    assert [dict(batch.tags) for batch in tracking.batches if batch.tags] == [{"t": "3"}]
    assert [list(batch.removed_tags) for batch in tracking.batches if batch.removed_tags] == [["u"]]
    sent = [*tracking.batches, *tracking.failed]
    assert len({batch.request_id for batch in sent}) == len(sent)
    run.flush()


def test_what_is_refused_is_warned_of_at_the_end_and_stands_at_the_run(link: Connection, tracking: Tracking) -> None:
    tracking.refused = {"loss", "accuracy"}
    with pytest.warns(RuntimeWarning), open_run(link) as run:
        run.log_metrics({"loss": 1.0, "accuracy": 2.0})
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert [dict(batch.tags) for batch in tracking.batches] == [
        {"rollforward.not_logged": "2 points, 0 labels, 0 calls"}
    ]


def test_a_refused_parameter_takes_no_points_with_it(link: Connection, tracking: Tracking) -> None:
    tracking.failures = [grpc.StatusCode.FAILED_PRECONDITION]
    run = open_run(link)
    run.log_params({"p": 1})
    run.log_metric("loss", 1.0)
    with pytest.raises(PreconditionFailed):
        run.flush()
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]


def test_a_defect_of_the_service_that_stays_holds_nothing_else_up(link: Connection, tracking: Tracking) -> None:
    tracking.failures = [grpc.StatusCode.INTERNAL] * 6
    writer = open_writer(link, interval=0.01)
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    until(lambda: not tracking.failures)
    writer.add_points(framed_point(0, 0, 2.0, b"loss"), 1)
    outcome = writer.close()
    assert (outcome.missing, outcome.lost) == (Count(0, 0), Count(1, 0))
    assert tracking.values("loss") == [2.0]


def test_who_may_not_write_keeps_what_he_has(link: Connection, tracking: Tracking, place: Path) -> None:
    tracking.failures = [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED]
    run = open_run(link)
    run.log_metric("loss", 1.0)
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert len({batch.request_id for batch in [*tracking.failed, *tracking.batches]}) == 1
    assert left(place) == []


def train(run: Run, error: BaseException | None) -> None:
    run.log_metric("loss", 1)
    if error is not None:
        raise error


def log_steps(run: Run, count: int) -> None:
    """Logs the points 0, 1, 2..."""
    for step in range(count):
        run.log_metric("loss", step, step)


def test_what_has_no_room_is_counted_and_never_raised(serve: Serve, tracking: Tracking) -> None:
    tracking.away = True
    link = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=0.3)
    run = open_run(link, disk_bytes=100_000)
    with pytest.warns(RuntimeWarning):
        log_steps(run, 10_000)
    with pytest.raises(Unavailable) as full:
        run.flush(timeout=0.1)
    assert full.value.reason == "JOURNAL_FULL"
    dropped = int(full.value.metadata["points"])
    assert 5_000 < dropped < 10_000
    tracking.away = False
    run.finish()
    assert tracking.values("loss")[: 10_000 - dropped] == [float(step) for step in range(10_000 - dropped)]


def test_a_connection_that_is_closed_below_a_run_leaves_everything_to_sync(
    link: Connection, tracking: Tracking, place: Path
) -> None:
    writer = open_writer(link)
    link.close()
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    outcome = writer.close(0.3)
    assert outcome.missing == Count(1, 0)
    assert outcome.failure is not None
    assert outcome.failure.reason == "CONNECTION_CLOSED"
    (synced,) = rf.sync(place)
    assert (synced.state, synced.delivered, tracking.values("loss")) == ("delivered", Count(1, 0), [1.0])
    assert left(place) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, v1.RUN_STATUS_FINISHED),
        (SystemExit(0), v1.RUN_STATUS_FINISHED),
        (SystemExit(2), v1.RUN_STATUS_FAILED),
        (ValueError(), v1.RUN_STATUS_FAILED),
        (KeyboardInterrupt(), v1.RUN_STATUS_KILLED),
    ],
)
def test_a_run_ends_as_its_block_does(
    error: BaseException | None, status: v1.RunStatus.ValueType, link: Connection, tracking: Tracking
) -> None:
    run = rf.start_run("fraud", name="rf-100", tags={"n": 1}, description="why", connection=link)
    with nullcontext() if error is None else pytest.raises(type(error)), run:
        train(run, error)
    assert [ending.status for ending in tracking.endings] == [status]
    assert tracking.values("loss") == [1.0]
    assert tracking.started[0].experiment_id == tracking.experiments["fraud"]
    assert tracking.started[0].tags == {"n": "1"}
    assert tracking.started[0].description == "why"
    assert tracking.started[0].source.runtime
    with pytest.warns(RuntimeWarning):
        run.log_metric("loss", 1)
    with pytest.raises(InvalidRequest) as ended:
        run.set_tags({"t": 1})
    assert ended.value.reason == "RUN_ENDED"


def test_the_blocks_own_error_is_not_hidden(serve: Serve, tracking: Tracking, place: Path) -> None:
    tracking.away = True
    link = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=0.3)
    run = open_run(link)
    with pytest.raises(ZeroDivisionError), pytest.warns(RuntimeWarning), run:
        train(run, ZeroDivisionError())
    tracking.away = False
    until(lambda: rf.sync(place) == [] or tracking.endings)
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FAILED]
    assert tracking.values("loss") == [1.0]


def test_many_threads_may_log(run: Run, tracking: Tracking) -> None:
    def work(number: int) -> None:
        for step in range(500):
            run.log_metric(f"m{number}", step, step=step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.flush()
    assert all(tracking.values(f"m{number}") == list(range(500)) for number in range(4))


class Tensor:
    """Something that is a number, as the arrays of numeric libraries are."""

    def __float__(self) -> float:
        return 0.5

    def __index__(self) -> int:
        return 3


def test_whatever_is_a_number_is_a_value(run: Run, tracking: Tracking) -> None:
    run.log_metric("m", 1)
    run.log_metric("m", float("inf"), step=-(2**63))
    run.log_metric("m", Tensor(), step=Tensor(), timestamp=0)
    run.flush()
    assert Counter(tracking.values("m")) == Counter([1.0, float("inf"), 0.5])


@pytest.mark.parametrize(
    ("key", "value", "step", "reason"),
    [
        ("m", "0.5", 0, "INVALID_VALUE"),
        ("m", True, 0, "INVALID_VALUE"),
        ("m", None, 0, "INVALID_VALUE"),
        ("m", 1j, 0, "INVALID_VALUE"),
        ("m", 10**400, 0, "INVALID_VALUE"),
        ("m", 1.0, 1.5, "INVALID_STEP"),
        ("m", 1.0, True, "INVALID_STEP"),
        ("m", 1.0, 2**63, "INVALID_STEP"),
        ("", 1.0, 0, "INVALID_KEY"),
        ("k" * 251, 1.0, 0, "INVALID_KEY"),
        (7, 1.0, 0, "INVALID_KEY"),
        ("../a", 1.0, 0, "INVALID_KEY"),
        ("/a", 1.0, 0, "INVALID_KEY"),
        ("a//b", 1.0, 0, "INVALID_KEY"),
        ("a/", 1.0, 0, "INVALID_KEY"),
        (".", 1.0, 0, "INVALID_KEY"),
        ("a%", 1.0, 0, "INVALID_KEY"),
        ("\udc80", 1.0, 0, "INVALID_KEY"),
        ("lo\nss", 1.0, 0, "INVALID_KEY"),
        ("e\u0301", 1.0, 0, "INVALID_KEY"),
    ],
)
def test_a_wrong_point_is_counted_and_never_raised(
    key: Any, value: Any, step: Any, reason: str, run: Run, tracking: Tracking
) -> None:
    with pytest.warns(RuntimeWarning):
        run.log_metric(key, value, step=step)
    with pytest.warns(RuntimeWarning) if reason == "INVALID_STEP" else nullcontext():
        run.log_metrics({"good": 1.0, key: value}, step=step)
    with pytest.raises(InvalidRequest) as refused:
        run.flush()
    good = 0 if reason == "INVALID_STEP" else 1
    assert (refused.value.reason, refused.value.metadata["points"]) == (reason, str(3 - good))
    assert tracking.values("good") == [1.0] * good
    assert tracking.values("m") == []


def test_wrong_labels_are_refused_at_once_and_whole(run: Run, tracking: Tracking) -> None:
    refused_labels: list[tuple[dict[str, object], str]] = [
        ({"ok": 1, "": 2}, "INVALID_KEY"),
        ({"ok": 1, "p": "x" * 6_001}, "INVALID_VALUE"),
        ({"ok": 1, "p": "\0"}, "INVALID_VALUE"),
    ]
    for labels, reason in refused_labels:
        with pytest.raises(InvalidRequest) as refused:
            run.log_params(labels)
        assert refused.value.reason == reason
    run.log_params({"p": 1})
    run.log_params({"p": "1"})
    with pytest.raises(PreconditionFailed) as changed:
        run.log_params({"q": 1, "p": 2})
    assert changed.value.reason == "PARAM_CHANGED"
    run.set_tags({"t": 1})
    run.set_tags({"t": 2})
    run.flush()
    logged = [dict(batch.params) for batch in tracking.batches if batch.params]
    assert all(params == {"p": "1"} for params in logged)
    assert [dict(batch.tags) for batch in tracking.batches if batch.tags][-1] == {"t": "2"}
    run.remove_tag("t")
    run.flush()
    assert list(tracking.batches[-1].removed_tags) == ["t"]


class Broken:
    """A number of a library that fails in a way of its own."""

    def __float__(self) -> float:
        raise RuntimeError("the device is gone")


def test_no_number_raises_into_training(run: Run) -> None:
    with pytest.warns(RuntimeWarning):
        run.log_metric("m", Broken())
    with pytest.warns(RuntimeWarning):
        run.log_metric([], 1.0)  # type: ignore[arg-type]
    with pytest.warns(RuntimeWarning):
        run.log_metrics(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as refused:
        run.flush()
    assert (refused.value.reason, refused.value.metadata["points"]) == ("INVALID_VALUE", "3")


def test_a_run_starts_and_ends_without_the_service_and_all_comes_later(
    serve: Serve, tracking: Tracking, place: Path
) -> None:
    tracking.away = True
    link = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=0.3)
    run = rf.start_run("fraud", connection=link)
    run.log_params({"p": 1})
    run.log_metric("loss", 0.5)
    with pytest.warns(RuntimeWarning):
        run.finish()
    assert (tracking.started, tracking.batches) == ([], [])
    tracking.away = False
    until(lambda: rf.sync(place) == [] or tracking.endings)
    assert [start.run_id for start in tracking.started] == [run.run_id]
    assert tracking.started[0].experiment_id == tracking.experiments["fraud"]
    assert tracking.values("loss") == [0.5]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert left(place) == []


def test_an_outage_during_the_job_is_bridged(link: Connection, tracking: Tracking, place: Path) -> None:
    tracking.away = True
    run = open_run(link)
    for step in range(100):
        run.log_metric("loss", step, step)
    until(lambda: tracking.failed)
    tracking.away = False
    run.finish()
    assert tracking.values("loss") == [float(step) for step in range(100)]
    assert left(place) == []


def test_an_offline_run_sends_nothing_until_it_is_synced(link: Connection, tracking: Tracking, place: Path) -> None:
    with rf.start_run("fraud", offline=True, connection=link) as run:
        run.log_params({"p": 1})
        run.log_metric("loss", 0.5)
        run.flush()
    assert (tracking.started, tracking.batches, tracking.endings, tracking.experiments) == ([], [], [], {})
    (synced,) = rf.sync(place)
    assert (synced.run_id, synced.state, synced.delivered) == (run.run_id, "delivered", Count(1, 1, 2))
    assert not tracking.started[0].heartbeat
    assert tracking.values("loss") == [0.5]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert rf.sync(place) == []
    assert left(place) == []


def test_a_sync_that_breaks_off_goes_on_with_the_same_requests(
    link: Connection, tracking: Tracking, place: Path
) -> None:
    with rf.start_run("fraud", offline=True, connection=link) as run:
        run.log_metric("loss", 0.5)
    tracking.failures = [grpc.StatusCode.UNAUTHENTICATED]
    (broken,) = rf.sync(place)
    assert (broken.state, broken.reason) == ("undelivered", "UNAUTHENTICATED")
    assert broken.waiting_bytes > 0
    (synced,) = rf.sync(place)
    assert synced.state == "delivered"
    assert tracking.failed == tracking.batches
    assert len(tracking.started) == 1


def test_a_service_that_is_away_is_waited_for_once(serve: Serve, tracking: Tracking, place: Path) -> None:
    link = serve(tracking, v1.add_TrackingServiceServicer_to_server)
    for _ in range(20):
        with rf.start_run("fraud", offline=True, connection=link):
            pass
    tracking.away = True
    begun = time.monotonic()
    found = rf.sync(place, timeout=0.5)
    assert time.monotonic() - begun < 5
    assert [one.state for one in found] == ["undelivered"] * 20
    tracking.away = False
    assert [one.state for one in rf.sync(place)] == ["delivered"] * 20


def test_a_journal_that_does_not_say_whose_it_is_stays_and_is_named(place: Path) -> None:
    folder = place / RUN / "0"
    folder.mkdir(parents=True)
    (folder / "head.json").write_text("{")
    (found,) = rf.sync(place)
    assert (found.run_id, found.state, found.reason) == (RUN, "undelivered", "INVALID_JOURNAL")
    assert folder.exists()


def test_what_lives_is_left_alone_by_sync(run: Run, place: Path) -> None:
    run.log_metric("loss", 1.0)
    (synced,) = rf.sync(place)
    assert (synced.run_id, synced.state) == (RUN, "alive")


@pytest.mark.parametrize(
    ("heartbeat", "worker", "status", "ends"),
    [
        (False, False, v1.RUN_STATUS_RUNNING, 1),
        (True, False, v1.RUN_STATUS_RUNNING, 0),
        (True, False, v1.RUN_STATUS_LOST, 1),
        (False, True, v1.RUN_STATUS_RUNNING, 0),
        (False, False, v1.RUN_STATUS_FINISHED, 0),
        (False, False, v1.RUN_STATUS_KILLED, 0),
    ],
)
def test_a_dead_jobs_run_is_ended_if_nobody_else_does(
    heartbeat: bool,
    worker: bool,
    status: v1.RunStatus.ValueType,
    ends: int,
    link: Connection,
    tracking: Tracking,
    place: Path,
) -> None:
    tracking.status = status
    writer = Writer(link, Head(RUN, link.address, link.actor, worker, heartbeat), offline=True)
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    writer.close()
    (synced,) = rf.sync(place)
    assert synced.state == "delivered"
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FAILED] * ends


def test_a_dead_jobs_run_goes_on_when_the_job_was_started_again(
    link: Connection, tracking: Tracking, place: Path
) -> None:
    dead = open_writer(link, offline=True)
    dead.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    dead.close()
    again = open_run(link)
    assert sorted(one.state for one in rf.sync(place)) == ["alive", "delivered"]
    assert tracking.endings == []
    again.finish()


def test_lineage_and_descriptions_are_logged_in_order(run: Run, tracking: Tracking) -> None:
    data = v1.Dataset(name="transactions", digest="abc")
    run.log_input(data, context="training")
    run.log_output(MODEL, step=3)
    run.describe("why")
    run.log_metric("loss", 1.0, model_id=MODEL, dataset=data)
    run.flush()
    read, made, described = tracking.others
    assert read.inputs[0] == v1.DatasetInput(dataset=data, tags={"context": "training"})
    assert made.outputs[0] == v1.ModelOutput(model_id=MODEL, step=3)
    assert (described.description, described.run_id) == ("why", RUN)
    (series,) = tracking.batches[0].series
    assert (series.model_id, series.dataset_name, series.dataset_digest) == (MODEL, "transactions", "abc")
    with pytest.raises(InvalidRequest) as nameless:
        run.log_input(v1.Dataset(name="transactions"))
    assert nameless.value.reason == "INVALID_DATASET"


def test_the_job_is_in_touch_as_long_as_it_runs(link: Connection, tracking: Tracking) -> None:
    with rf.start_run("fraud", connection=link) as run:
        until(lambda: tracking.attended == [run.run_id])
        assert tracking.started[0].heartbeat
    until(lambda: not tracking.attended)
    with rf.start_run("fraud", heartbeat=False, connection=link):
        assert not tracking.started[1].heartbeat


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"experiment": ""}, "INVALID_NAME"),
        ({"experiment": "e", "name": "n" * 501}, "INVALID_NAME"),
        ({"experiment": "e", "name": " n"}, "INVALID_NAME"),
        ({"experiment": "e", "run_id": "A" * 32}, "INVALID_RUN_ID"),
        ({"experiment": "e", "resume": True}, "INVALID_ARGUMENTS"),
        ({"experiment": "e", "tags": {"": 1}}, "INVALID_KEY"),
        ({"experiment": "e", "description": "d" * 20_001}, "INVALID_DESCRIPTION"),
    ],
)
def test_a_start_that_could_never_be_delivered_is_refused_offline_too(
    options: dict[str, Any], reason: str, link: Connection, place: Path
) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        rf.start_run(**options, offline=True, connection=link)
    assert wrong.value.reason == reason
    assert left(place) == []


def test_points_about_what_cannot_be_are_refused_here(run: Run, tracking: Tracking) -> None:
    with pytest.warns(RuntimeWarning):
        run.log_metric("loss", 1.0, model_id="gpt")
    with pytest.warns(RuntimeWarning):
        run.log_metric("loss", 1.0, dataset=v1.Dataset(name="d" * 501, digest="x"))
    with pytest.raises(InvalidRequest) as refused:
        run.flush()
    assert (refused.value.reason, refused.value.metadata["points"]) == ("INVALID_MODEL_ID", "2")
    assert tracking.batches == []


def test_a_nested_run_names_its_parent(link: Connection, tracking: Tracking) -> None:
    with rf.start_run("fraud", connection=link) as outer, rf.start_run("fraud", nested=True, connection=link) as inner:
        assert rf.current_run() is inner
        assert tracking.started[1].parent_run_id == outer.run_id
    assert rf.current_run() is None
    with pytest.raises(InvalidRequest) as alone:
        rf.start_run("fraud", nested=True, connection=link)
    assert alone.value.reason == "INVALID_ARGUMENTS"


def test_a_worker_delivers_and_lets_the_run_go_on(link: Connection, tracking: Tracking) -> None:
    with rf.resume_run(RUN, worker=True, connection=link) as run:
        run.log_metric("loss", 1.0)
        assert (run.name, run.experiment_id) == ("known", "7")
        with pytest.raises(PreconditionFailed) as changed:
            run.log_param("p", 2)
        assert changed.value.reason == "PARAM_CHANGED"
    assert tracking.values("loss") == [1.0]
    assert tracking.endings == []
    with rf.resume_run(RUN, connection=link):
        pass
    assert len(tracking.endings) == 1


def test_a_run_that_is_handed_to_another_process_is_a_workers_there(
    run: Run, link: Connection, tracking: Tracking
) -> None:
    with pickle.loads(pickle.dumps(run)) as other:  # noqa: S301 - its own
        other.log_metric("loss", 1.0)
        assert (other.run_id, other.worker) == (RUN, True)
    assert tracking.values("loss") == [1.0]
    assert tracking.endings == []
    other.connection.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ROLLFORWARD_OFFLINE", "maybe"),
        ("ROLLFORWARD_SYSTEM_METRICS", "2"),
        ("ROLLFORWARD_JOURNAL_BYTES", "1 GiB"),
    ],
)
def test_settings_are_read_strictly(
    variable: str, value: str, link: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidRequest) as wrong:
        rf.start_run("fraud", connection=link)
    assert wrong.value.reason == "INVALID_SETTING"


def test_without_a_place_for_journals_all_stays_in_memory_until_it_is_delivered(
    link: Connection, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning):
        run = rf.start_run("fraud", connection=link)
    run.log_metric("loss", 1.0)
    run.log_params({"p": 1})
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
