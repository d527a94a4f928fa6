"""A live run: what a training job holds while it logs."""

from __future__ import annotations

import threading
import time
import uuid
import warnings
from typing import TYPE_CHECKING, Literal, Self, SupportsFloat, SupportsIndex

from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.artifacts import Progress, upload
from rollforward.backoff import Backoff
from rollforward.connection import Connection, current, new_request_id
from rollforward.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed, RollforwardError
from rollforward.values import checked_key, checked_params, checked_step, checked_tags, checked_value
from rollforward.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike
    from types import TracebackType

Ending = Literal["FINISHED", "FAILED", "KILLED"]


class Run:
    """One execution of a training job, open for logging; safe for use by many threads, not for use after a fork.

    Logging is cheap: it appends to a buffer that a background thread sends. As a context manager the run ends with its
    block: FINISHED, KILLED on KeyboardInterrupt, FAILED on any other exception.
    """

    def __init__(self, connection: Connection, run_id: str, experiment_id: str, name: str) -> None:
        self.connection = connection
        self.run_id = run_id
        """32 lower-case hex digits."""
        self.experiment_id = experiment_id
        self.name = name
        self._writer = Writer(connection, run_id)
        self._lock = threading.Lock()
        self._params: dict[str, str] = {}
        self._keys: set[str] = set()
        self._ended = False

    def log_param(self, key: str, value: object) -> None:
        """Log one parameter. See log_params."""
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, as texts; each is written once and never changes.

        Raises InvalidRequest (INVALID_KEY, INVALID_VALUE, RUN_ENDED), PreconditionFailed (PARAM_CHANGED) for another
        value than before, Unavailable (BUFFER_FULL).
        """
        texts = checked_params(params)
        with self._lock:
            for key, text in texts.items():
                self._refuse_other_value(key, text)
            self._writer.add_params(texts)
            self._params.update(texts)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, as texts; the last value written holds. Raises as log_params, without PARAM_CHANGED."""
        self._writer.add_tags(checked_tags(tags))

    def log_metric(
        self, key: str, value: SupportsFloat, step: SupportsIndex = 0, *, timestamp: SupportsIndex | None = None
    ) -> None:
        """Log one point of a metric: any number, NaN and infinities too.

        `timestamp` is in milliseconds since 1970-01-01 UTC, now by default.

        Raises InvalidRequest (INVALID_KEY, INVALID_VALUE, INVALID_STEP, RUN_ENDED), Unavailable (BUFFER_FULL).
        """
        self.log_metrics({key: value}, step, timestamp=timestamp)

    def log_metrics(
        self,
        metrics: Mapping[str, SupportsFloat],
        step: SupportsIndex = 0,
        *,
        timestamp: SupportsIndex | None = None,
    ) -> None:
        """Log one point of each of several metrics. See log_metric."""
        points = [(self._checked_metric(key), checked_value(key, value)) for key, value in metrics.items()]
        moment = time.time_ns() // 1_000_000 if timestamp is None else checked_step(timestamp, "timestamp")
        self._writer.add_points(points, checked_step(step), moment)

    def log_artifact(self, path: str | PathLike[str], directory: str = "", *, progress: Progress | None = None) -> str:
        """Upload one file and log it as the artifact "directory/file name".

        Returns its digest. Raises as log_artifacts.
        """
        manifest_digest, name = upload(path, only_file=True, progress=progress, connection=self.connection)
        self._log_artifact(f"{directory.rstrip('/')}/{name}" if directory else name, manifest_digest)
        return manifest_digest

    def log_artifacts(self, path: str | PathLike[str], name: str = "", *, progress: Progress | None = None) -> str:
        """Upload a directory, or one file, and log it as the artifact `name`, by default the run's root.

        Returns its digest.

        Raises InvalidRequest (INVALID_PATH, SYMLINK_ESCAPES, NOT_A_FILE, MANIFEST_EMPTY, RUN_ENDED),
        OSError, Unavailable.
        """
        manifest_digest, _ = upload(path, progress=progress, connection=self.connection)
        self._log_artifact(name, manifest_digest)
        return manifest_digest

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything logged so far is delivered, at most `timeout` seconds (else the connection's).

        Raises the error of what the service refused, or Unavailable (NOT_DELIVERED); the metadata "points" and "labels"
        say how much.
        """
        self._writer.flush(timeout)

    def finish(self, status: Ending = "FINISHED") -> None:
        """Deliver what was logged, then end the run.

        When something could not be delivered the run ends as FAILED, and the error is raised.

        Raises as flush, and as any call. Ending an ended run does nothing.
        """
        if self._ended:
            return
        self._ended = True
        try:
            self._writer.close()
        except RollforwardError:
            self._send_ending("FAILED")
            raise
        self._send_ending(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        try:
            self.finish(_ending_of(error))
        except RollforwardError as failure:
            # The block's own exception matters more, and is on its way already.
            warnings.warn(
                f"run {self.run_id} could not be ended in good order: {failure}", RuntimeWarning, stacklevel=2
            )

    def __repr__(self) -> str:
        return f"Run({self.run_id!r}, name={self.name!r})"

    def _checked_metric(self, key: str) -> str:
        if key not in self._keys:
            self._keys.add(checked_key(key))
        return key

    def _refuse_other_value(self, key: str, text: str) -> None:
        before = self._params.get(key, text)
        if before != text:
            message = f"parameter {key!r} is {repr(before)[:80]} and cannot become {repr(text)[:80]}"
            raise PreconditionFailed("PARAM_CHANGED", message, {"key": key, "run_id": self.run_id})

    def _log_artifact(self, name: str, manifest_digest: str) -> None:
        if self._ended:
            raise InvalidRequest("RUN_ENDED", f"run {self.run_id} has ended", {"run_id": self.run_id})
        request = v1.LogArtifactRequest(
            run_id=self.run_id, path=name.strip("/"), digest=manifest_digest, request_id=new_request_id()
        )
        self.connection.call(self.connection.tracking.LogArtifact, request)

    def _send_ending(self, status: Ending) -> None:
        request = v1.FinishRunRequest(
            run_id=self.run_id,
            status=v1.RunStatus.Value(f"RUN_STATUS_{status}"),
            end_time=_now(),
            request_id=new_request_id(),
        )
        self.connection.call(self.connection.tracking.FinishRun, request)


def start_run(
    experiment: str,
    *,
    name: str = "",
    tags: Mapping[str, object] | None = None,
    run_id: str | None = None,
    connection: Connection | None = None,
) -> Run:
    """Start a run in an experiment, which is created when it is missing. Without a name the run is called after its id.

    Raises InvalidRequest (INVALID_NAME, INVALID_RUN_ID, INVALID_KEY, INVALID_VALUE), AlreadyExists (RUN_EXISTS),
    Unavailable.
    """
    link = current(connection)
    labels = checked_tags(tags)
    chosen = run_id or uuid.uuid4().hex
    request = v1.StartRunRequest(
        run_id=chosen,
        experiment_id=_experiment_id(link, experiment),
        name=name or f"run-{chosen[:8]}",
        start_time=_now(),
        tags=labels,
        request_id=new_request_id(),
    )
    link.call(link.tracking.StartRun, request)
    return Run(link, chosen, request.experiment_id, request.name)


def _experiment_id(link: Connection, name: str) -> str:
    by_name = v1.GetExperimentRequest(name=name)
    try:
        return link.call(link.tracking.GetExperiment, by_name).experiment.experiment_id
    except NotFound:
        pass
    creation = v1.CreateExperimentRequest(name=name, request_id=new_request_id())
    try:
        return link.call(link.tracking.CreateExperiment, creation).experiment_id
    except AlreadyExists:
        # Another job was first, by so little that the reads may not show it yet.
        return _await_experiment(link, by_name)


def _await_experiment(link: Connection, by_name: v1.GetExperimentRequest) -> str:
    backoff = Backoff(link.timeout)
    while True:
        try:
            return link.call(link.tracking.GetExperiment, by_name).experiment.experiment_id
        except NotFound:
            if not backoff.pause():
                raise


def _ending_of(error: BaseException) -> Ending:
    if isinstance(error, KeyboardInterrupt):
        return "KILLED"
    if isinstance(error, SystemExit) and error.code in {None, 0}:
        return "FINISHED"
    return "FAILED"


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
