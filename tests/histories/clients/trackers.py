"""Training jobs: one that logs points with raw requests, and one that uses the SDK and its journal."""

from __future__ import annotations

import random
import threading
import time
from array import array
from dataclasses import replace

import grpc

from rollforward import (
    Client,
    RollforwardError,
    Unavailable,
    new_request_id,
    v1,
)
from rollforward._series import pack, unpack
from tests.histories.clients.ledger import Ledger
from tests.histories.clients.requests import send
from tests.histories.recorded.recording import OK, UNKNOWN
from tests.histories.recorded.subjects import PointBatch, PointRead, Run
from tests.histories.systems.clocks import ClientClock
from tests.timeouts import scaled

KEYS = ("loss", "accuracy")
PAUSES = (0.0, 0.01, 0.03)  # seconds
KINDS = {"log": 6, "read": 2, "repeat": 1, "start": 1}
_READ_SECONDS = 5.0
_FLUSH_SECONDS = 1.0
_LAST_FLUSH_SECONDS = scaled(30.0)


class Tracker:
    """A job that logs points to its run, reads them, and starts further runs that stay empty."""

    def __init__(self, name: str, address: str, clock: ClientClock, ledger: Ledger, dice: random.Random) -> None:
        self.run_id = run_id(dice)
        self.experiment_id = ""
        self.batches: list[PointBatch] = []
        self.reads: list[PointRead] = []
        self._name, self._clock, self._ledger, self._dice = name, clock, ledger, dice
        self._client = Client(address, actor=name)
        self._next = dict.fromkeys(KEYS, 0)
        self._unanswered: list[tuple[PointBatch, v1.LogBatchRequest]] = []

    def prepare(self) -> None:
        """Create the experiment and the run."""
        request = v1.CreateExperimentRequest(name=self._name, request_id=new_request_id())
        self.experiment_id = self._client.connection.call(
            self._client.connection.tracking.CreateExperiment, request
        ).experiment_id
        self._client.connection.call(self._client.connection.tracking.StartRun, self._run(self.run_id))

    def close(self) -> None:
        """Close its connection."""
        self._client.close()

    def work(self, stopping: threading.Event) -> None:
        """Do one thing after another until it is stopped."""
        while not stopping.wait(self._dice.choice(PAUSES)):
            (kind,) = self._dice.choices(list(KINDS), list(KINDS.values()))
            key = self._dice.choice(KEYS)
            if kind == "log":
                self._log(key, stopping)
            elif kind == "repeat" and self._unanswered:
                self._send(*self._unanswered.pop(), stopping)
            elif kind == "start":
                self._start(stopping)
            else:
                self._read(key)

    def read_last(self) -> None:
        """Read all series once everything is at rest."""
        for key in KEYS:
            called = time.monotonic_ns()
            try:
                history = self._client.metrics.history(self.run_id, key)
                steps, values = tuple(history.steps), tuple(history.values)
            except RollforwardError as error:
                if error.reason != "METRIC_NOT_FOUND":
                    raise
                steps, values = (), ()
            self.reads.append(PointRead(self.run_id, key, steps, values, called, time.monotonic_ns(), is_last=True))

    def run(self) -> Run:
        """Return the run as it ended."""
        return _run_record(self.run_id, self._client)

    def _run(self, chosen: str) -> v1.StartRunRequest:
        request = v1.StartRunRequest(
            run_id=chosen, experiment_id=self.experiment_id, name=chosen, request_id=new_request_id()
        )
        request.start_time.FromNanoseconds(self._clock.time_ns())
        return request

    def _start(self, stopping: threading.Event) -> None:
        request = self._run(run_id(self._dice))
        answer = send(
            lambda: self._client, lambda client: client.connection.tracking.StartRun, request, self._dice, stopping
        )
        if answer.outcome == OK:
            self._ledger.add("runs", request.run_id, "tracking", answer.response.position)

    def _log(self, key: str, stopping: threading.Event) -> None:
        first, count = self._next[key], self._dice.randint(1, 20)
        self._next[key] += count
        steps = array("q", range(first, first + count))
        times = array("q", [self._clock.time_ns() // 1_000_000] * count)
        request = v1.LogBatchRequest(run_id=self.run_id, request_id=new_request_id())
        request.series.append(pack(key, steps, times, array("d", steps)))
        self._send(PointBatch(self.run_id, key, first, count, request.request_id), request, stopping)

    def _send(self, batch: PointBatch, request: v1.LogBatchRequest, stopping: threading.Event) -> None:
        called = time.monotonic_ns()
        answer = send(
            lambda: self._client, lambda client: client.connection.tracking.LogBatch, request, self._dice, stopping
        )
        done = replace(batch, called=called, returned=answer.returned, outcome=answer.outcome, reason=answer.reason)
        if answer.outcome == OK:
            done = replace(done, position=answer.response.position)
        elif answer.outcome == UNKNOWN:
            self._unanswered.append((batch, request))
        self.batches.append(done)

    def _read(self, key: str) -> None:
        request = v1.GetMetricHistoryRequest(run_id=self.run_id, key=key)
        called = time.monotonic_ns()
        call = self._client.connection.tracking.GetMetricHistory(
            request, timeout=_READ_SECONDS, metadata=self._client.connection.metadata()
        )
        try:
            history = unpack(response.series for response in call)
        except grpc.RpcError:
            return  # out of reach, or no point yet
        steps, values = tuple(history.steps), tuple(history.values)
        self.reads.append(PointRead(self.run_id, key, steps, values, called, time.monotonic_ns()))


class SdkTracker:
    """A job that logs one point after another with the SDK."""

    def __init__(self, name: str, address: str, dice: random.Random) -> None:
        self.run_id = run_id(dice)
        self.batches: list[PointBatch] = []
        self.reads: list[PointRead] = []
        self._name, self._dice = name, dice
        self._client = Client(address, actor=name)
        self._step = 0
        self._is_delivered = False

    def prepare(self) -> None:
        """Start the run."""
        self._run = self._client.runs.start(self._name, run_id=self.run_id, heartbeat=True, system_metrics=False)

    def close(self) -> None:
        """End the run and close the connection."""
        self._run.finish()
        self._client.close()

    def work(self, stopping: threading.Event) -> None:
        """Log points until it is stopped, and see to it now and then that they are delivered."""
        while not stopping.wait(self._dice.choice(PAUSES)):
            self._run.log_metric(KEYS[0], float(self._step), step=self._step)
            self._step += 1
            if self._dice.random() < 0.02:
                self._flush(_FLUSH_SECONDS)

    def read_last(self) -> None:
        """Flush everything, and read it."""
        self._is_delivered = self._flush(_LAST_FLUSH_SECONDS)
        called = time.monotonic_ns()
        history = self._client.metrics.history(self.run_id, KEYS[0])
        steps, values = tuple(history.steps), tuple(history.values)
        self.reads.append(PointRead(self.run_id, KEYS[0], steps, values, called, time.monotonic_ns(), is_last=True))

    def run(self) -> Run:
        """Return the run as it stands before it is finished."""
        return replace(_run_record(self.run_id, self._client), by_sdk=True, is_delivered=self._is_delivered)

    def _flush(self, seconds: float) -> bool:
        called, count = time.monotonic_ns(), self._step
        try:
            self._run.flush(seconds)
        except Unavailable:
            return False
        batch = PointBatch(self.run_id, KEYS[0], 0, count, f"{self.run_id}-{count}", called, time.monotonic_ns(), OK)
        self.batches.append(batch)
        return True


def run_id(dice: random.Random) -> str:
    """Return a new run's id."""
    return f"{dice.getrandbits(128):032x}"


def _run_record(chosen: str, client: Client) -> Run:
    run = client.runs.get(chosen)
    counts = {key: summary.count for key, summary in run.metrics.items()}
    return Run(chosen, v1.RunStatus.Name(run.status), counts)
