"""A live run: the handle that a training job logs to."""

from __future__ import annotations

import contextlib
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self

from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import InvalidRequest
from rollforward.tracking.live_run.heartbeat import Heartbeat
from rollforward.tracking.live_run.offline_artifacts import ONE_CALL
from rollforward.tracking.live_run.process_end import ProcessEnd, ending_of
from rollforward.tracking.live_run.run_log import RunLog
from rollforward.tracking.live_run.run_records import undelivered
from rollforward.tracking.live_run.system_metrics import SystemMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType

    from rollforward._journal.writer import DeliveryResult, Writer
    from rollforward._transport.connection import Connection
    from rollforward.tracking.live_run.process_end import Ending
    from rollforward.tracking.live_run.system_metrics import Machine

_ENDINGS: Final[Mapping[str, v1.RunStatus.ValueType]] = {
    "FINISHED": v1.RUN_STATUS_FINISHED,
    "FAILED": v1.RUN_STATUS_FAILED,
    "KILLED": v1.RUN_STATUS_KILLED,
}

_current: Final[ContextVar[Run | None]] = ContextVar("rollforward_run", default=None)


class Run(RunLog):
    """One execution of a training job, open for logging; safe for use by many threads, and in forked processes.

    Logging appends to a journal on this machine, which a background thread delivers: calls do not wait for the service,
    and logging metrics never raises. As a context manager, the run ends with its block: FINISHED, also after SystemExit
    with status 0; KILLED after KeyboardInterrupt; FAILED after any other exception. Without a block and without
    finish(), it ends with the process, by the same rules. In a forked process, and for a worker, finish() delivers the
    records and leaves the run open.
    """

    def __init__(
        self,
        writer: Writer,
        connection: Connection,
        run_id: str,
        *,
        experiment_id: str = "",
        name: str = "",
        params: Mapping[str, str] | None = None,
        begin: bytes | None = None,
        worker: bool = False,
        heartbeat: bool = False,
        machine: Machine | None = None,
    ) -> None:
        """Open a run for logging. Call start_run or resume_run instead.

        Args:
            writer: The writer of the run's journal.
            connection: The connection to the tracking service.
            run_id: The run's id.
            experiment_id: The experiment's id; empty if the run was started without the service.
            name: The run's name.
            params: The parameters that were logged before.
            begin: The journal's first record, if the service does not know the run yet.
            worker: Whether finish() leaves the run open, for other processes.
            heartbeat: Whether to keep a call open, so that the service notices when this process dies.
            machine: The machine to measure every ten seconds; None to measure nothing.
        """
        super().__init__(writer, connection, run_id)
        self._params.update(params or {})
        self.experiment_id = experiment_id
        """Empty if the run was started without the service."""
        self.name = name
        self.worker = worker
        self._token: Token[Run | None] | None = None
        if begin is not None:
            writer.add(begin, ONE_CALL)
        self._process = ProcessEnd()
        self._process.call_at_exit(self._finish_at_exit)
        self._heartbeat = Heartbeat(connection, run_id) if heartbeat else None
        self.system_metrics = SystemMetrics(self, machine) if machine is not None else None

    @property
    def offline(self) -> bool:
        """Whether the run sends nothing until `rollforward sync`."""
        return self._writer.offline

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every record that this process has logged so far is delivered.

        Wait at most `timeout` seconds, by default the connection's timeout. An offline run does not wait.

        Raises:
            InvalidRequest: INVALID_TIMEOUT if `timeout` is below 0.
            RollforwardError: The error of the first record that was lost since the last flush, because it was invalid,
                rejected or dropped. The metadata "points", "labels" and "calls" count the records.
            Unavailable: NOT_DELIVERED within the timeout; the journal keeps the records. Metadata as above.
        """
        if timeout is not None and not timeout >= 0:
            raise InvalidRequest("INVALID_TIMEOUT", f"timeout must be >= 0, got {timeout}")
        outcome = self._writer.flush(timeout)
        if outcome.failure is not None:
            raise undelivered(outcome, self.run_id)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run and deliver its records, for at most the connection's timeout; ending it again does nothing.

        Undelivered records stay in the journal, with a warning (RuntimeWarning). `status` is "finished", "failed" or
        "killed", in upper or lower case.

        Raises:
            InvalidRequest: INVALID_STATUS.
        """
        ending = _ENDINGS.get(str(status).upper())
        if ending is None:
            expected = ", ".join(_ENDINGS).lower()
            raise InvalidRequest("INVALID_STATUS", f"invalid status {str(status)[:80]!r}: expected one of {expected}")
        with self._lock:
            if self._ended:
                return
            if self.system_metrics is not None and not self._writer.forked:
                self.system_metrics.close()
            self._ended = True
        self._process.close()
        deadline = time.monotonic() + self.connection.timeout
        if not (self._writer.forked or self.worker):
            request = v1.FinishRunRequest(status=ending, end_time=now())
            self._send("FinishRun", request)
        outcome = self._writer.flush()
        if self._writer.lost.total:
            lost = "{} points, {} labels, {} calls".format(*self._writer.lost)
            self._add_labels(tags={"rollforward.not_logged": lost})
        last = self._writer.close(max(0.0, deadline - time.monotonic()))
        self._warn_of_losses(outcome, last)
        if self._heartbeat is not None and not self._writer.forked:
            self._heartbeat.close()

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            # A generator, or another thread, may leave the block in a different context.
            with contextlib.suppress(ValueError):
                _current.reset(self._token)
        self.finish(ending_of(error))

    def __repr__(self) -> str:
        return f"Run({self.run_id!r}, name={self.name!r})"

    def _warn_of_losses(self, *outcomes: DeliveryResult) -> None:
        missing, lost = outcomes[-1].missing, outcomes[0].lost.plus(outcomes[-1].lost)
        if missing.total:
            path = self._writer.folder
            self._writer.warn(f"{missing.describe()} not delivered, kept in {path}: run `rollforward sync`")
        if lost.total:
            self._writer.warn(f"{lost.describe()} not logged: {outcomes[0].failure or outcomes[-1].failure}")

    def _finish_at_exit(self, status: Ending) -> None:
        if not self._writer.forked:
            self.finish(status)


def current_run() -> Run | None:
    """Return the run whose block the caller is in; None outside of a block."""
    return _current.get()


def now() -> Timestamp:
    """Return the current time."""
    moment = Timestamp()
    moment.GetCurrentTime()
    return moment
