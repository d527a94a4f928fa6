"""A tracking service that records requests and fails on demand, and runs that log to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from rollforward import Client, v1
from rollforward._journal.directory import Head
from rollforward._journal.segment_writer import SegmentLog
from rollforward._journal.writer import Writer
from rollforward._series import unpack
from rollforward.errors import DETAILS_KEY, DOMAIN
from rollforward.tracking.live_run.run import Run
from tests.timeouts import scaled
from tests.unit.client.conftest import Service

RUN = "0123456789abcdef" * 2
MODEL = f"m-{RUN}"


class Tracking(Service):
    """A tracking service that records requests; the next batches fail as in `failures`, None for success."""

    def __init__(self) -> None:
        self.batches: list[v1.LogBatchRequest] = []
        self.failures: list[grpc.StatusCode | None] = []
        self.failed: list[v1.LogBatchRequest] = []
        self.endings: list[v1.FinishRunRequest] = []
        self.started: list[v1.StartRunRequest] = []
        self.experiments: dict[str, str] = {}
        self.attended: list[str] = []
        self.others: list[Any] = []
        self.away = False
        self.refused: set[str] = set()
        self.unknown: set[str] = set()
        """Runs that do not exist until they are started."""
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

    def ResumeRun(self, request: v1.ResumeRunRequest, context: Any) -> v1.ResumeRunResponse:  # noqa: N802
        if request.run_id in self.unknown:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
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

    def StartRun(self, request: v1.StartRunRequest, context: Any) -> v1.StartRunResponse:  # noqa: N802
        if request.parent_run_id in self.unknown:
            refuse(context, grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
        self.unknown.discard(request.run_id)
        self.started.append(request)
        return v1.StartRunResponse()

    def values(self, key: str) -> list[float]:
        return list(unpack(series for batch in self.batches for series in batch.series if series.key == key).values)


def refuse(context: Any, code: grpc.StatusCode, reason: str) -> None:
    """End a call with a reason, as the service does."""
    status = Status(code=code.value[0], message="no")
    status.details.add().Pack(ErrorInfo(reason=reason, domain=DOMAIN))
    context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
    context.abort(code, "no")


def open_run(client: Client, **options: Any) -> Run:
    """Open a run that the service knows."""
    return Run(open_writer(client, **options), client.connection, RUN, experiment_id="1", name="rf-1")


def open_writer(client: Client, **options: Any) -> Writer:
    return Writer(client.connection, Head(RUN, client.address, client.actor), **options)


def break_file(segment_log: SegmentLog) -> None:
    """Make writes fail until `mend_file`."""
    segment_log._file = os.open(os.devnull, os.O_RDONLY)


def mend_file(segment_log: SegmentLog) -> None:
    assert segment_log._file is not None
    os.close(segment_log._file)
    segment_log._file = None


def until(condition: Any, seconds: float = scaled(20.0)) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def left(journal_root: Path) -> list[Path]:
    """Return the files that are left of journals."""
    return list(journal_root.rglob("*"))
