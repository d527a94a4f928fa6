"""What a run logs arrives in batches, once and whole, also when the service is away for a while."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from rollforward.buffer import Buffer
from rollforward.connection import Connection
from rollforward.errors import InvalidRequest, NotFound, PreconditionFailed, Unavailable
from rollforward.run import Run, start_run
from rollforward.series import unpack
from rollforward.writer import Writer
from tests.unit.client.conftest import Serve, Service

RUN = "0123456789abcdef" * 2


class Tracking(Service):
    """Keeps what it is sent; answers the next batches with the errors in `failures`."""

    def __init__(self) -> None:
        self.batches: list[v1.LogBatchRequest] = []
        self.failures: list[grpc.StatusCode] = []
        self.failed: list[v1.LogBatchRequest] = []
        self.endings: list[v1.FinishRunRequest] = []
        self.started: list[v1.StartRunRequest] = []
        self.experiments: dict[str, str] = {}
        self.away = False
        self.lock = threading.Lock()
        self.arrived = threading.Event()

    def LogBatch(self, request: v1.LogBatchRequest, context: Any) -> v1.LogBatchResponse:  # noqa: N802
        with self.lock:
            self.arrived.set()
            code = grpc.StatusCode.UNAVAILABLE if self.away else self.failures.pop(0) if self.failures else None
            (self.batches if code is None else self.failed).append(request)
        if code is not None:
            context.abort(code, "no")
        return v1.LogBatchResponse(position=len(self.batches))

    def FinishRun(self, request: v1.FinishRunRequest, _context: Any) -> v1.FinishRunResponse:  # noqa: N802
        self.endings.append(request)
        return v1.FinishRunResponse()

    def GetExperiment(self, request: v1.GetExperimentRequest, context: Any) -> v1.GetExperimentResponse:  # noqa: N802
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


@pytest.fixture
def tracking() -> Tracking:
    return Tracking()


@pytest.fixture
def link(serve: Serve, tracking: Tracking) -> Connection:
    return serve(tracking, v1.add_TrackingServiceServicer_to_server)


@pytest.fixture
def run(link: Connection) -> Iterator[Run]:
    live = Run(link, RUN, "1", "rf-1")
    yield live
    live.finish()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60),
    st.dictionaries(st.sampled_from("pqrs"), st.text(max_size=30), max_size=4),
    st.integers(1, 400),
)
def test_batches_are_small_and_lose_nothing(points: list[tuple[str, int]], labels: dict[str, str], limit: int) -> None:
    buffer = Buffer(RUN)
    for key, value in points:
        buffer.add_point(key, 1, 2, value)
    buffer.add_params(labels)
    buffer.add_tags(labels)
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    series: list[v1.Series] = []
    while buffer.count.total:
        batch = buffer.take(limit)
        assert batch.content.total > 0
        assert batch.content.total == 1 or batch.request.ByteSize() <= limit + len(RUN) * 2 + 16
        params.update(batch.request.params)
        tags.update(batch.request.tags)
        series.extend(batch.request.series)
    assert buffer.size == 0
    assert params == tags == labels
    for key in "abc":
        sent = unpack(chunk for chunk in series if chunk.key == key)
        assert list(sent.values) == [value for name, value in points if name == key]


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


def test_large_logs_are_cut_into_batches(link: Connection, tracking: Tracking) -> None:
    writer = Writer(link, RUN, batch_bytes=5_000, buffer_bytes=20_000)
    for step in range(5_000):
        writer.add_points([("loss", float(step))], step, 0)
    writer.close()
    assert tracking.values("loss") == [float(step) for step in range(5_000)]
    assert all(batch.ByteSize() <= 5_200 for batch in tracking.batches)


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
    run = Run(link, RUN, "1", "rf-1")
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


def test_what_is_refused_is_raised_at_the_end_and_the_run_failed(link: Connection, tracking: Tracking) -> None:
    tracking.failures = [grpc.StatusCode.NOT_FOUND]
    with pytest.raises(NotFound) as refused, Run(link, RUN, "1", "rf-1") as run:
        run.log_metrics({"loss": 1.0, "accuracy": 2.0})
    assert (refused.value.metadata["points"], refused.value.metadata["labels"]) == ("2", "0")
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FAILED]


def test_a_refused_parameter_takes_no_points_with_it(link: Connection, tracking: Tracking) -> None:
    tracking.failures = [grpc.StatusCode.FAILED_PRECONDITION]
    run = Run(link, RUN, "1", "rf-1")
    run.log_params({"p": 1})
    run.log_metric("loss", 1.0)
    with pytest.raises(PreconditionFailed):
        run.flush()
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]


def train(run: Run, error: BaseException | None) -> None:
    run.log_metric("loss", 1)
    if error is not None:
        raise error


def fill(writer: Writer) -> None:
    for step in range(1000):
        writer.add_points([("loss", 1.0)], step, 0)


def test_a_full_buffer_makes_logging_wait_and_then_refuse(serve: Serve, tracking: Tracking) -> None:
    tracking.away = True
    link = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=0.3)
    writer = Writer(link, RUN, buffer_bytes=100)
    with pytest.raises(Unavailable) as full:
        fill(writer)
    assert full.value.reason == "BUFFER_FULL"
    with pytest.raises(Unavailable):
        writer.close()


def test_a_connection_that_is_closed_below_a_run_loses_nothing_silently(link: Connection) -> None:
    writer = Writer(link, RUN)
    link.close()
    writer.add_points([("loss", 1.0)], 0, 0)
    with pytest.raises(InvalidRequest) as closed:
        writer.close()
    assert (closed.value.reason, closed.value.metadata["points"]) == ("CONNECTION_CLOSED", "1")


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
    run = start_run("fraud", name="rf-100", tags={"n": 1}, connection=link)
    with nullcontext() if error is None else pytest.raises(type(error)), run:
        train(run, error)
    assert [ending.status for ending in tracking.endings] == [status]
    assert tracking.values("loss") == [1.0]
    assert tracking.started[0].experiment_id == tracking.experiments["fraud"]
    assert tracking.started[0].tags == {"n": "1"}
    with pytest.raises(InvalidRequest) as ended:
        run.log_metric("loss", 1)
    assert ended.value.reason == "RUN_ENDED"


def test_the_blocks_own_error_is_not_hidden(serve: Serve, tracking: Tracking) -> None:
    tracking.away = True
    link = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=0.3)
    run = Run(link, RUN, "1", "rf-1")
    with pytest.raises(ZeroDivisionError), pytest.warns(RuntimeWarning), run:
        train(run, ZeroDivisionError())


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
        ("\udc80", 1.0, 0, "INVALID_KEY"),
        ("loss ", 1.0, 0, "INVALID_KEY"),
        ("lo\nss", 1.0, 0, "INVALID_KEY"),
        ("e\u0301", 1.0, 0, "INVALID_KEY"),
    ],
)
def test_a_wrong_point_is_refused_at_once(key: Any, value: Any, step: Any, reason: str, run: Run) -> None:
    with pytest.raises(InvalidRequest) as refused:
        run.log_metric(key, value, step=step)
    assert refused.value.reason == reason


def test_wrong_labels_are_refused_at_once_and_whole(run: Run, tracking: Tracking) -> None:
    refused_labels: list[tuple[dict[str, object], str]] = [
        ({"ok": 1, "": 2}, "INVALID_KEY"),
        ({"ok": 1, "p": "x" * 6_001}, "INVALID_VALUE"),
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
