"""A live run: what a training job holds while it logs."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self, SupportsFloat, SupportsIndex

from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import journal_records as records
from rollforward import v1
from rollforward.connection import new_request_id
from rollforward.errors import InvalidRequest, PreconditionFailed
from rollforward.journal_records import Count
from rollforward.offline import ONE_CALL, log_artifact
from rollforward.run_records import checked_dataset, in_words, label_records, point_records, undelivered
from rollforward.values import checked_params, checked_run_key, checked_run_tags, checked_step, checked_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextvars import Token
    from os import PathLike
    from types import TracebackType

    from google.protobuf.message import Message

    from rollforward.artifacts import Progress
    from rollforward.attendance import Attendance
    from rollforward.connection import Connection
    from rollforward.system_metrics import SystemMetrics
    from rollforward.writer import Outcome, Writer

Ending = Literal["FINISHED", "FAILED", "KILLED"]

# So many names of metrics are kept as checked.
_NAMES: Final = 10_000

_current: Final[ContextVar[Run | None]] = ContextVar("rollforward_run", default=None)


class Run:
    """One execution of a training job, open for logging; safe for use by many threads, and in forked processes.

    Logging appends to a journal on this machine, which a background thread delivers: it waits for nobody, and metrics
    never raise. As a context manager the run ends with its block: FINISHED, KILLED on KeyboardInterrupt, FAILED on any
    other exception. In a forked process, and for a worker, finish() delivers and lets the run go on.
    """

    def __init__(
        self,
        writer: Writer,
        connection: Connection,
        run_id: str,
        *,
        experiment_id: str = "",
        name: str = "",
        begin: bytes | None = None,
        worker: bool = False,
    ) -> None:
        """What start_run and resume_run make; `begin` is the first record, when the service does not know yet."""
        self.connection = connection
        self.run_id = run_id
        """32 lower-case hex digits."""
        self.experiment_id = experiment_id
        """Empty when the run was started without the service."""
        self.name = name
        self.worker = worker
        self.attendance: Attendance | None = None
        self.system_metrics: SystemMetrics | None = None
        self._writer = writer
        self._lock = threading.RLock()
        self._params: dict[str, str] = {}
        self._names: dict[str, bytes] = {}
        self._ended = False
        self._token: Token[Run | None] | None = None
        if begin is not None:
            writer.add(begin, ONE_CALL)
        atexit.register(self._finish_at_exit)

    def log_param(self, key: str, value: object) -> None:
        """Log one parameter. See log_params."""
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, as texts; each is written once and never changes.

        Raises InvalidRequest (INVALID_KEY, INVALID_VALUE, RUN_ENDED), PreconditionFailed (PARAM_CHANGED) for another
        value than this handle logged before. What the service refuses is told by flush and finish.
        """
        texts = checked_params(params)
        with self._lock:
            self._refuse_ended()
            for key, text in texts.items():
                self._refuse_other_value(key, text)
            self._params.update(texts)
        self._add_labels(params=texts)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, as texts; the last value written holds. Raises as log_params, without PARAM_CHANGED."""
        texts = checked_run_tags(tags)
        self._refuse_ended()
        self._add_labels(tags=texts)

    def remove_tag(self, key: str) -> None:
        """Remove a tag, if it is there. Raises InvalidRequest (INVALID_KEY, RUN_ENDED)."""
        self._refuse_ended()
        self._add_labels(removed=[checked_run_key(key)])

    def log_metric(
        self,
        key: str,
        value: SupportsFloat,
        step: SupportsIndex = 0,
        *,
        timestamp: SupportsIndex | None = None,
        model_id: str = "",
        dataset: v1.Dataset | None = None,
    ) -> None:
        """Log one point of a metric: any number, NaN and infinities too.

        `timestamp` is in milliseconds since 1970-01-01 UTC, now by default. The point may be about a logged model, and
        a dataset that it was measured on. Never raises: what cannot be logged is counted, warned of, and told by flush
        and finish.
        """
        if model_id or dataset is not None or self._ended:
            self.log_metrics({key: value}, step, timestamp=timestamp, model_id=model_id, dataset=dataset)
            return
        try:
            name = self._names.get(key) or self._name(key)
            moment = time.time_ns() // 1_000_000 if timestamp is None else checked_step(timestamp, "timestamp")
            payload = records.point(checked_step(step), moment, checked_value(key, value), name)
        except Exception as error:  # noqa: BLE001 - a number of any library may fail in its own way
            self._ignore(key, error, 1)
        else:
            self._writer.add_points(payload, 1)

    def log_metrics(
        self,
        metrics: Mapping[str, SupportsFloat],
        step: SupportsIndex = 0,
        *,
        timestamp: SupportsIndex | None = None,
        model_id: str = "",
        dataset: v1.Dataset | None = None,
    ) -> None:
        """Log one point of each of several metrics. See log_metric."""
        try:
            self._refuse_ended()
            number = checked_step(step)
            moment = time.time_ns() // 1_000_000 if timestamp is None else checked_step(timestamp, "timestamp")
            about = records.About(model_id, dataset.name if dataset else "", dataset.digest if dataset else "")
            values = self._checked_values(metrics)
            for payload, count in point_records(number, moment, values, about):
                self._writer.add_points(payload, count)
        except Exception as error:  # noqa: BLE001 - as above
            self._ignore("metrics", error, len(metrics) if hasattr(metrics, "__len__") else 1)

    def log_input(self, dataset: v1.Dataset, *, context: str = "", tags: Mapping[str, object] | None = None) -> None:
        """Log a dataset that the run reads; `context` says what for, such as "training".

        Raises InvalidRequest (INVALID_KEY, INVALID_VALUE, INVALID_DATASET, RUN_ENDED).
        """
        labels = checked_run_tags({**({"context": context} if context else {}), **(tags or {})})
        used = v1.DatasetInput(dataset=checked_dataset(dataset), tags=labels)
        self._add_call("LogLineage", v1.LogLineageRequest(inputs=[used]))

    def log_output(self, model_id: str, step: SupportsIndex = 0) -> None:
        """Log a logged model that the run produced. Raises InvalidRequest (INVALID_STEP, RUN_ENDED)."""
        output = v1.ModelOutput(model_id=model_id, step=checked_step(step))
        self._add_call("LogLineage", v1.LogLineageRequest(outputs=[output]))

    def describe(self, description: str) -> None:
        """Say what the run is for. Raises InvalidRequest (RUN_ENDED)."""
        self._add_call("DescribeRun", v1.DescribeRunRequest(description=description))

    def log_artifact(self, path: str | PathLike[str], directory: str = "", *, progress: Progress | None = None) -> str:
        """Upload one file and log it as the artifact "directory/file name".

        Returns its digest. Raises as log_artifacts.
        """
        name = f"{directory.rstrip('/')}/{Path(path).name}" if directory else Path(path).name
        return self._log_artifact(path, name, only_file=True, progress=progress)

    def log_artifacts(self, path: str | PathLike[str], name: str = "", *, progress: Progress | None = None) -> str:
        """Upload a directory, or one file, and log it as the artifact `name`, by default the run's root.

        While the service is out of reach the files are copied into the journal. Returns their digest.
        Raises InvalidRequest (INVALID_PATH, SYMLINK_ESCAPES, NOT_A_FILE, MANIFEST_EMPTY, RUN_ENDED),
        OSError, Unavailable when there is no journal.
        """
        return self._log_artifact(path, name, only_file=False, progress=progress)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that this process logged so far is delivered, at most `timeout` seconds (else the
        connection's); an offline run has nothing to wait for.

        Raises the error of what could not be logged or was refused since the last flush, or Unavailable
        (NOT_DELIVERED): then the journal keeps it. The metadata "points", "labels" and "calls" say how much.
        """
        outcome = self._writer.flush(timeout)
        if outcome.failure is not None:
            raise undelivered(outcome, self.run_id)

    def finish(self, status: Ending = "FINISHED") -> None:
        """End the run, and deliver everything, for at most the connection's timeout; ending it again does nothing.

        What was not delivered by then waits in the journal, and a warning (RuntimeWarning) says so.
        """
        with self._lock:
            if self._ended:
                return
            if self.system_metrics is not None and not self._writer.forked:
                self.system_metrics.close()
            self._ended = True
        atexit.unregister(self._finish_at_exit)
        deadline = time.monotonic() + self.connection.timeout
        if not (self._writer.forked or self.worker):
            request = v1.FinishRunRequest(status=v1.RunStatus.Value(f"RUN_STATUS_{status}"), end_time=now())
            self._send("FinishRun", request)
        outcome = self._writer.flush()
        if outcome.lost.total:
            lost = "{} points, {} labels, {} calls".format(*outcome.lost)
            self._add_labels(tags={"rollforward.not_logged": lost})
        last = self._writer.close(max(0.0, deadline - time.monotonic()))
        self._tell(outcome, last)
        if self.attendance is not None and not self._writer.forked:
            self.attendance.close()

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            # A generator, or another thread, may leave the block in another context than it was entered in.
            with contextlib.suppress(ValueError):
                _current.reset(self._token)
        self.finish("FINISHED" if error is None else _ending_of(error))

    def __reduce__(self) -> tuple[object, ...]:
        # For processes that are spawned: there it is a worker's handle.
        from rollforward.starting import rejoin  # noqa: PLC0415 - which makes runs

        link = self.connection
        return rejoin, (self.run_id, link.address, link.actor, link.timeout, self._writer.offline)

    def __repr__(self) -> str:
        return f"Run({self.run_id!r}, name={self.name!r})"

    def _name(self, key: str) -> bytes:
        name = checked_run_key(key).encode()
        if len(self._names) >= _NAMES:
            self._names.clear()
        self._names[key] = name
        return name

    def _checked_values(self, metrics: Mapping[str, SupportsFloat]) -> list[tuple[bytes, float]]:
        values: list[tuple[bytes, float]] = []
        for key, value in metrics.items():
            try:
                values.append((self._names.get(key) or self._name(key), checked_value(key, value)))
            except Exception as error:  # noqa: BLE001 - as in log_metric; the others are logged
                self._ignore(key, error, 1)
        return values

    def _ignore(self, what: object, error: Exception, points: int) -> None:
        if not isinstance(error, InvalidRequest):
            error = InvalidRequest("INVALID_VALUE", f"{type(error).__name__}: {str(error)[:200]}")
        self._writer.lose(error, Count(points, 0))
        self._writer.complain(f"{repr(what)[:80]} is not logged: {error.reason}", str(error))

    def _refuse_ended(self) -> None:
        if self._ended:
            raise InvalidRequest("RUN_ENDED", f"run {self.run_id} has ended", {"run_id": self.run_id})

    def _refuse_other_value(self, key: str, text: str) -> None:
        before = self._params.get(key, text)
        if before != text:
            message = f"parameter {key!r} is {repr(before)[:80]} and cannot become {repr(text)[:80]}"
            raise PreconditionFailed("PARAM_CHANGED", message, {"key": key, "run_id": self.run_id})

    def _log_artifact(self, path: str | PathLike[str], name: str, *, only_file: bool, progress: Progress | None) -> str:
        self._refuse_ended()
        request = v1.LogArtifactRequest(run_id=self.run_id, path=name.strip("/"))
        return log_artifact(self.connection, self._writer, request, path, only_file=only_file, progress=progress)

    def _add_labels(
        self,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        removed: Sequence[str] = (),
    ) -> None:
        for payload, count in label_records(params or {}, tags or {}, removed):
            self._writer.add(payload, Count(0, count))

    def _add_call(self, method: str, request: Message) -> None:
        self._refuse_ended()
        self._send(method, request)

    def _send(self, method: str, request: Any) -> None:
        request.run_id, request.request_id = self.run_id, new_request_id()
        self._writer.add(records.call(method, request), ONE_CALL)

    def _tell(self, *outcomes: Outcome) -> None:
        missing, lost = outcomes[-1].missing, outcomes[0].lost.plus(outcomes[-1].lost)
        if missing.total:
            folder = self._writer.folder
            fate = f"wait in {folder} for `rollforward sync`" if folder else "are lost"
            self._writer.complain(f"{in_words(missing)} were not delivered and {fate}")
        if lost.total:
            self._writer.complain(
                f"{in_words(lost)} could not be logged: {outcomes[0].failure or outcomes[-1].failure}"
            )

    def _finish_at_exit(self) -> None:
        if not self._writer.forked:
            self.finish("FINISHED" if getattr(sys, "last_value", None) is None else "FAILED")


def current_run() -> Run | None:
    """The run whose block this code is in; None outside of any."""
    return _current.get()


def now() -> Timestamp:
    """This moment."""
    moment = Timestamp()
    moment.GetCurrentTime()
    return moment


def _ending_of(error: BaseException) -> Ending:
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    if isinstance(error, SystemExit) and error.code in {None, 0}:
        return "FINISHED"
    return "FAILED"
