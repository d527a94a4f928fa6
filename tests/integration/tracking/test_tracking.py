"""The tracking service on a real system: the response of every call, and its rejections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed, RollforwardError
from services.series.columns import Points, pack, unpack
from services.tracking.queries.metric_history import HISTORY_POINTS
from tests.integration.up import ACTOR, SECONDS, Up, new_id

NAN = float("nan")
DIGEST = f"sha256:{'0' * 64}"


def headers_at_head(system: Up) -> tuple[tuple[str, str], ...]:
    """Return the headers of a read that waits for the head of the tracking log."""
    return (("rollforward-min-position", f"tracking={system.heads()['tracking']}"),)


def get(system: Up, run_id: str) -> v1.Run:
    """Return a run."""
    return system.tracking.GetRun(
        v1.GetRunRequest(run_id=run_id), metadata=headers_at_head(system), timeout=SECONDS
    ).run


def log(system: Up, run_id: str, points: Sequence[tuple[int, int, float]], key: str = "loss") -> int:
    """Log points in one batch."""
    steps, times, values = (np.array(column) for column in zip(*points, strict=True))
    batch = v1.LogBatchRequest(run_id=run_id, series=[pack(key, Points(steps, times, values.astype(float)))])
    return system.tracking.LogBatch(batch, timeout=SECONDS).position


@pytest.fixture
def run_id(system: Up) -> str:
    """Start a run."""
    return system.new_run()


def test_experiments_are_created_read_and_listed(system: Up) -> None:
    name = new_id()
    request = v1.CreateExperimentRequest(name=name, tags={"b": "1", "a": "2"})
    created = system.tracking.CreateExperiment(request, metadata=ACTOR, timeout=SECONDS)
    assert created.position == system.heads()["tracking"]
    by_name = v1.GetExperimentRequest(name=name)
    by_id = v1.GetExperimentRequest(experiment_id=created.experiment_id)
    found = system.tracking.GetExperiment(by_name, metadata=headers_at_head(system), timeout=SECONDS).experiment
    assert system.tracking.GetExperiment(by_id, timeout=SECONDS).experiment == found
    assert (found.name, found.actor, dict(found.tags)) == (name, "Zoë", {"a": "2", "b": "1"})
    second = system.new_experiment()
    assert int(second) == int(created.experiment_id) + 1
    pages: list[str] = []
    token = ""
    while not pages or token:
        listing = v1.ListExperimentsRequest(page_size=1, page_token=token)
        page = system.tracking.ListExperiments(listing, metadata=headers_at_head(system), timeout=SECONDS)
        pages += [experiment.experiment_id for experiment in page.experiments]
        token = page.next_page_token
    assert pages == [str(number) for number in range(int(second), 0, -1)]


def test_run_from_start_to_end(system: Up) -> None:
    run_id, experiment_id = new_id(), system.new_experiment()
    start = v1.StartRunRequest(
        run_id=run_id, experiment_id=experiment_id, name="rf-100", start_time=Timestamp(seconds=9), tags={"a": "1"}
    )
    system.tracking.StartRun(start, metadata=(*ACTOR, *headers_at_head(system)), timeout=SECONDS)
    batch = v1.LogBatchRequest(run_id=run_id, params={"depth": "3"}, tags={"a": "2", "b": ""})
    system.tracking.LogBatch(batch, timeout=SECONDS)
    digest = system.upload(b"1234567")
    artifact = v1.LogArtifactRequest(run_id=run_id, path="model/best", digest=digest)
    system.tracking.LogArtifact(artifact, timeout=SECONDS)
    assert get(system, run_id) == v1.Run(
        run_id=run_id,
        experiment_id=experiment_id,
        name="rf-100",
        status=v1.RUN_STATUS_RUNNING,
        start_time=Timestamp(seconds=9),
        params={"depth": "3"},
        tags={"a": "2", "b": ""},
        artifacts=[v1.RunArtifact(path="model/best", digest=digest, size_bytes=7, file_count=1)],
        actor="Zoë",
    )
    finish = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FAILED, end_time=Timestamp(seconds=10))
    position = system.tracking.FinishRun(finish, timeout=SECONDS).position
    assert position == system.heads()["tracking"]
    assert system.tracking.FinishRun(finish, timeout=SECONDS).position == position
    ended = get(system, run_id)
    assert (ended.status, ended.end_time) == (v1.RUN_STATUS_FAILED, Timestamp(seconds=10))


def test_missing_times_are_those_of_log(system: Up, run_id: str) -> None:
    system.tracking.FinishRun(v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED), timeout=SECONDS)
    run = get(system, run_id)
    listing = v1.ListEventsRequest(stream=f"run/{run_id}")
    end, start = system.audit.ListEvents(listing, metadata=headers_at_head(system), timeout=SECONDS).events
    assert (run.start_time, run.end_time) == (start.time, end.time)


def test_runs_are_listed_newest_first(system: Up) -> None:
    experiment_id = system.new_experiment()
    runs = [new_id() for _ in range(5)]
    for run_id in runs:
        start = v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id)
        system.tracking.StartRun(start, metadata=headers_at_head(system), timeout=SECONDS)
    listed, token = list[str](), ""
    while not listed or token:
        listing = v1.ListRunsRequest(experiment_id=experiment_id, page_size=2, page_token=token)
        page = system.tracking.ListRuns(listing, metadata=headers_at_head(system), timeout=SECONDS)
        listed += [run.run_id for run in page.runs]
        token = page.next_page_token
    assert listed == runs[::-1]
    everywhere = system.tracking.ListRuns(v1.ListRunsRequest(page_size=6), timeout=SECONDS).runs
    assert [run.run_id for run in everywhere][:5] == runs[::-1]


def test_metrics_are_summarized(system: Up, run_id: str) -> None:
    log(system, run_id, [(5, 50, 0.5), (1, 10, NAN), (5, 50, 0.25)])
    log(system, run_id, [(2, 99, -math.inf), (5, 49, 9.0)])
    log(system, run_id, [(7, 1, NAN), (-3, 0, math.inf)], key="nothing new")
    log(system, run_id, [(0, 0, NAN)], key="never a number")
    metrics = get(system, run_id).metrics
    loss = metrics["loss"]
    assert (loss.last, loss.last_step, loss.last_timestamp, loss.count) == (0.5, 5, 50, 5)
    assert (loss.min, loss.max) == (-math.inf, 9.0)
    odd = metrics["nothing new"]
    assert math.isnan(odd.last)
    assert (odd.last_step, odd.min, odd.max, odd.count) == (7, math.inf, math.inf, 2)
    nothing = metrics["never a number"]
    assert all(math.isnan(value) for value in (nothing.last, nothing.min, nothing.max))
    assert nothing.count == 1


def test_history_is_ordered_by_step_time_and_arrival_in_chunks(system: Up, run_id: str) -> None:
    sent: list[tuple[int, int, float]] = []
    for chunk in range(3):
        points = [(step % 7, step % 3, float(chunk * 40_000 + step)) for step in range(40_000)]
        sent += points
        log(system, run_id, points)
    listing = v1.GetMetricHistoryRequest(run_id=run_id, key="loss")
    responses = list(system.tracking.GetMetricHistory(listing, metadata=headers_at_head(system), timeout=SECONDS))
    chunks = [unpack(response.series) for response in responses]
    assert {response.series.key for response in responses} == {"loss"}
    whole, rest = divmod(len(sent), HISTORY_POINTS)
    assert [len(chunk.steps) for chunk in chunks] == [HISTORY_POINTS] * whole + [rest]
    got = [
        (int(step), int(time), float(value))
        for chunk in chunks
        for step, time, value in zip(chunk.steps, chunk.timestamps, chunk.values, strict=True)
    ]
    assert got == sorted(sent, key=lambda point: point[:2])


def test_metric_may_occur_repeatedly_in_batch(system: Up, run_id: str) -> None:
    points = Points(np.array([1]), np.array([1]), np.array([1.0]))
    batch = v1.LogBatchRequest(run_id=run_id, series=[pack("loss", points), pack("loss", points)])
    system.tracking.LogBatch(batch, timeout=SECONDS)
    assert get(system, run_id).metrics["loss"].count == 2


def test_empty_batch_changes_nothing(system: Up, run_id: str) -> None:
    heads = system.heads()
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, request_id=new_id()), timeout=SECONDS)
    assert system.heads() == heads


@pytest.mark.parametrize("params", [{}, {"a": "1"}])
def test_repeated_batch_is_logged_once(system: Up, run_id: str, params: dict[str, str]) -> None:
    series = [pack("loss", Points(np.array([1]), np.array([1]), np.array([1.0])))]
    batch = v1.LogBatchRequest(run_id=run_id, params=params, tags={"t": "1"}, series=series, request_id=new_id())
    first = system.tracking.LogBatch(batch, timeout=SECONDS)
    heads = system.heads()
    assert system.tracking.LogBatch(batch, timeout=SECONDS) == first
    assert system.heads() == heads
    batch.tags["t"] = "2"
    error = system.refused(system.tracking.LogBatch, batch)
    assert (type(error), error.reason) == (InvalidRequest, "REQUEST_ID_REUSED")
    assert get(system, run_id).metrics["loss"].count == 1


def test_any_command_can_be_repeated(system: Up) -> None:
    tracking, run_id, digest = system.tracking, new_id(), system.upload()
    experiment = v1.CreateExperimentRequest(name=new_id(), request_id=new_id())
    created = tracking.CreateExperiment(experiment, timeout=SECONDS)
    assert tracking.CreateExperiment(experiment, timeout=SECONDS) == created
    start = v1.StartRunRequest(run_id=run_id, experiment_id=created.experiment_id, request_id=new_id())
    artifact = v1.LogArtifactRequest(run_id=run_id, digest=digest, request_id=new_id())
    finish = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_KILLED, request_id=new_id())
    commands: list[tuple[Any, Any]] = [
        (tracking.StartRun, start),
        (tracking.LogArtifact, artifact),
        (tracking.FinishRun, finish),
    ]
    for method, request in commands:
        first = method(request, metadata=headers_at_head(system), timeout=SECONDS)
        heads = system.heads()
        assert method(request, timeout=SECONDS) == first
        assert system.heads() == heads


def _series(key: str = "a", steps: int = 8, times: int = 8, values: int = 8) -> list[v1.Series]:
    return [v1.Series(key=key, steps=bytes(steps), timestamps=bytes(times), values=bytes(values))]


Request = Callable[[str], object]
REJECTED: dict[str, list[tuple[Request, type[RollforwardError], str]]] = {
    "CreateExperiment": [
        (lambda _: v1.CreateExperimentRequest(), InvalidRequest, "INVALID_NAME"),
        (lambda _: v1.CreateExperimentRequest(name="x" * 501), InvalidRequest, "INVALID_NAME"),
        (lambda _: v1.CreateExperimentRequest(name="x", tags={"k": "\0"}), InvalidRequest, "INVALID_TEXT"),
    ],
    "GetExperiment": [
        (lambda _: v1.GetExperimentRequest(), NotFound, "EXPERIMENT_NOT_FOUND"),
        (lambda _: v1.GetExperimentRequest(name="no such"), NotFound, "EXPERIMENT_NOT_FOUND"),
        (lambda _: v1.GetExperimentRequest(experiment_id="9" * 500), NotFound, "EXPERIMENT_NOT_FOUND"),
        (lambda _: v1.GetExperimentRequest(experiment_id="-1"), NotFound, "EXPERIMENT_NOT_FOUND"),
    ],
    "ListExperiments": [
        (lambda _: v1.ListExperimentsRequest(page_token="WzFd!"), InvalidRequest, "INVALID_PAGE"),
        (lambda _: v1.ListExperimentsRequest(page_token="bm8="), InvalidRequest, "INVALID_PAGE"),
    ],
    "StartRun": [
        (lambda _: v1.StartRunRequest(run_id="x", experiment_id="1"), InvalidRequest, "INVALID_RUN_ID"),
        (lambda _: v1.StartRunRequest(run_id=new_id(), experiment_id="0"), NotFound, "EXPERIMENT_NOT_FOUND"),
        (lambda _: v1.StartRunRequest(run_id=new_id(), experiment_id="001"), NotFound, "EXPERIMENT_NOT_FOUND"),
        (lambda run: v1.StartRunRequest(run_id=run, experiment_id="1"), AlreadyExists, "RUN_EXISTS"),
        (
            lambda _: v1.StartRunRequest(run_id=new_id(), experiment_id="1", start_time=Timestamp(seconds=2**62)),
            InvalidRequest,
            "INVALID_TIME",
        ),
        (lambda _: v1.StartRunRequest(run_id=new_id(), experiment_id="1", name="\n"), InvalidRequest, "INVALID_NAME"),
    ],
    "LogBatch": [
        (lambda _: v1.LogBatchRequest(run_id="../x"), InvalidRequest, "INVALID_RUN_ID"),
        (lambda _: v1.LogBatchRequest(run_id=new_id(), tags={"a": ""}), NotFound, "RUN_NOT_FOUND"),
        (lambda _: v1.LogBatchRequest(run_id=new_id(), params={"a": ""}), NotFound, "RUN_NOT_FOUND"),
        (lambda run: v1.LogBatchRequest(run_id=run, params={"": ""}), InvalidRequest, "INVALID_KEY"),
        (lambda run: v1.LogBatchRequest(run_id=run, params={"fixed": "2"}), PreconditionFailed, "PARAM_CHANGED"),
        (lambda run: v1.LogBatchRequest(run_id=run, params={"a": "x" * 6001}), InvalidRequest, "INVALID_VALUE"),
        (lambda run: v1.LogBatchRequest(run_id=run, series=_series(steps=16)), InvalidRequest, "INVALID_SERIES"),
        (lambda run: v1.LogBatchRequest(run_id=run, series=_series("")), InvalidRequest, "INVALID_KEY"),
        (lambda run: v1.LogBatchRequest(run_id=run, series=_series("a", 0, 0, 0)), InvalidRequest, "INVALID_SERIES"),
        (
            lambda run: v1.LogBatchRequest(run_id=run, params={"a": "b"}, series=_series("a", *[400_000] * 3)),
            InvalidRequest,
            "MESSAGE_TOO_LARGE",
        ),
        (
            lambda run: v1.LogBatchRequest(run_id=run, series=_series("a", *[1_400_000] * 3)),
            InvalidRequest,
            "MESSAGE_TOO_LARGE",
        ),
    ],
    "LogArtifact": [
        (lambda run: v1.LogArtifactRequest(run_id=run, digest=DIGEST), NotFound, "ARTIFACT_NOT_FOUND"),
        (lambda run: v1.LogArtifactRequest(run_id=run, digest="x"), InvalidRequest, "INVALID_DIGEST"),
        (lambda _: v1.LogArtifactRequest(run_id="", digest=DIGEST), InvalidRequest, "INVALID_RUN_ID"),
    ],
    "FinishRun": [
        (lambda run: v1.FinishRunRequest(run_id=run), InvalidRequest, "INVALID_STATUS"),
        (lambda run: v1.FinishRunRequest(run_id=run, status=v1.RUN_STATUS_RUNNING), InvalidRequest, "INVALID_STATUS"),
        (lambda _: v1.FinishRunRequest(run_id=new_id(), status=v1.RUN_STATUS_FAILED), NotFound, "RUN_NOT_FOUND"),
        (lambda _: v1.FinishRunRequest(run_id="A" * 32), InvalidRequest, "INVALID_RUN_ID"),
    ],
    "GetRun": [(lambda _: v1.GetRunRequest(run_id="x"), NotFound, "RUN_NOT_FOUND")],
    "ListRuns": [
        (lambda _: v1.ListRunsRequest(experiment_id="no"), NotFound, "EXPERIMENT_NOT_FOUND"),
        (lambda _: v1.ListRunsRequest(page_token="{}"), InvalidRequest, "INVALID_PAGE"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def run_with_param(system: Up) -> str:
    """Start a run with a parameter."""
    run_id = system.new_run()
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, params={"fixed": "1"}), timeout=SECONDS)
    return run_id


@pytest.mark.parametrize(
    ("method", "request_of", "kind", "reason"),
    [(method, *case) for method, cases in REJECTED.items() for case in cases],
    ids=count(),
)
def test_invalid_request_is_rejected(
    system: Up, run_with_param: str, method: str, request_of: Request, kind: type[RollforwardError], reason: str
) -> None:
    error = system.refused(getattr(system.tracking, method), request_of(run_with_param), headers_at_head(system))
    assert (type(error), error.reason) == (kind, reason)


@pytest.mark.parametrize("path", ["../up", "/etc", "a/../../b", "a\\b", "a//b", "x" * 300])
def test_invalid_path_is_rejected(system: Up, run_with_param: str, path: str) -> None:
    listing = v1.LogArtifactRequest(run_id=run_with_param, path=path, digest=system.upload())
    error = system.refused(system.tracking.LogArtifact, listing)
    assert (type(error), error.reason) == (InvalidRequest, "INVALID_PATH")


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        (lambda run: v1.GetMetricHistoryRequest(run_id=run, key="none"), "METRIC_NOT_FOUND"),
        (lambda _: v1.GetMetricHistoryRequest(run_id="x", key="loss"), "RUN_NOT_FOUND"),
    ],
    ids=count(),
)
def test_history_of_unknown_metric_is_rejected(
    system: Up, run_with_param: str, request_of: Callable[[str], v1.GetMetricHistoryRequest], reason: str
) -> None:
    def first(request: v1.GetMetricHistoryRequest, **options: object) -> v1.GetMetricHistoryResponse:
        return next(iter(system.tracking.GetMetricHistory(request, **options)))  # type: ignore[arg-type]

    error = system.refused(first, request_of(run_with_param))  # type: ignore[arg-type]
    assert (type(error), error.reason) == (NotFound, reason)
