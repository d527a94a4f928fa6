"""The logging calls of a run: parameters, tags, metrics, datasets, models and artifacts."""

from __future__ import annotations

import os
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, SupportsFloat, SupportsIndex

from rollforward import v1
from rollforward._artifacts.manifests import check_path
from rollforward._journal import records
from rollforward._journal.records import Count
from rollforward._transport.connection import new_request_id
from rollforward._validation import (
    checked_description,
    checked_input_tags,
    checked_model_id,
    checked_params,
    checked_run_key,
    checked_run_tags,
    checked_step,
    checked_timestamp,
    checked_value,
)
from rollforward.errors import InvalidRequest, PreconditionFailed
from rollforward.references import normal_path
from rollforward.tracking.live_run.offline_artifacts import ONE_CALL, log_artifact
from rollforward.tracking.live_run.run_records import (
    checked_dataset,
    checked_size,
    label_records,
    point_context,
    point_records,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from google.protobuf.message import Message

    from rollforward._artifacts.trees import Progress
    from rollforward._journal.writer import Writer
    from rollforward._transport.connection import Connection
    from rollforward._validation import StepLike

# The size of the cache of validated metric names.
_NAMES: Final = 10_000


class RunLog:
    """The logging part of a run; safe for use by many threads."""

    def __init__(self, writer: Writer, connection: Connection, run_id: str) -> None:
        self.connection = connection
        self.run_id = run_id
        """32 lower-case hex digits."""
        self._writer = writer
        self._lock = threading.RLock()
        self._params: dict[str, str] = {}
        self._names: dict[str, bytes] = {}
        self._ended = False
        _open.add(self)

    def log_param(self, key: str, value: object) -> None:
        """Log one parameter. See log_params."""
        self.log_params({key: value})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, as text; a parameter is written once and never changes.

        flush and finish report the parameters that the service rejects.

        Raises:
            InvalidRequest: INVALID_KEY, INVALID_VALUE, RUN_ENDED.
            PreconditionFailed: PARAM_CHANGED if this process logged another value before.
        """
        texts = checked_params(params)
        with self._lock:
            self._check_open()
            for key, text in texts.items():
                self._check_unchanged(key, text)
            self._params.update(texts)
        self._add_labels(params=texts)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, as text; the last value wins. Raises as log_params, without PARAM_CHANGED."""
        texts = checked_run_tags(tags)
        self._check_open()
        self._add_labels(tags=texts)

    def remove_tag(self, key: str) -> None:
        """Remove a tag if it is set.

        Raises:
            InvalidRequest: INVALID_KEY, RUN_ENDED.
        """
        self._check_open()
        self._add_labels(removed=[checked_run_key(key)])

    def log_metric(
        self,
        key: str,
        value: SupportsFloat,
        step: StepLike = 0,
        *,
        timestamp: SupportsIndex | SupportsFloat | None = None,
        model_id: str = "",
        dataset: v1.Dataset | None = None,
    ) -> None:
        """Log one point of a metric; the value is any number, also of another library, NaN or infinite.

        A `step` of 5.0 is 5, None is 0. `timestamp` is in milliseconds since 1970-01-01 UTC, by default now. The point
        may belong to a logged model, and to a dataset that it was measured on. This never raises: an invalid point is
        counted, warned about, and reported by flush and finish.
        """
        if model_id or dataset is not None or self._ended:
            self.log_metrics({key: value}, step, timestamp=timestamp, model_id=model_id, dataset=dataset)
            return
        try:
            name = self._names.get(key) or self._name(key)
            moment = time.time_ns() // 1_000_000 if timestamp is None else checked_timestamp(timestamp)
            # No helper calls here: in a training loop the CPU caches are cold, and each call is measurable.
            number = value if type(value) is float else checked_value(key, value)
            framed = records.framed_point(checked_step(step), moment, number, name)
        except Exception as error:  # noqa: BLE001 - conversion of a library's number may raise anything
            self._ignore(key, error, 1)
        else:
            self._writer.add_points(framed, 1)

    def log_metrics(
        self,
        metrics: Mapping[str, SupportsFloat],
        step: StepLike = 0,
        *,
        timestamp: SupportsIndex | SupportsFloat | None = None,
        model_id: str = "",
        dataset: v1.Dataset | None = None,
    ) -> None:
        """Log one point of each of several metrics. See log_metric."""
        try:
            self._check_open()
            number = checked_step(step)
            moment = time.time_ns() // 1_000_000 if timestamp is None else checked_timestamp(timestamp)
            context = point_context(model_id, dataset)
            values = self._checked_values(metrics)
            for payload, count in point_records(number, moment, values, context):
                self._writer.add_points(records.frame(payload), count)
        except Exception as error:  # noqa: BLE001 - as above
            self._ignore("metrics", error, len(metrics) if hasattr(metrics, "__len__") else 1)

    def log_input(self, dataset: v1.Dataset, *, context: str = "", tags: Mapping[str, object] | None = None) -> None:
        """Log a dataset that the run reads; `context` is its purpose, such as "training".

        Raises:
            InvalidRequest: INVALID_KEY, INVALID_VALUE, INVALID_DATASET, MESSAGE_TOO_LARGE, RUN_ENDED.
        """
        labels = checked_input_tags(context, tags)
        used = v1.DatasetInput(dataset=checked_dataset(dataset), tags=labels)
        self._add_call("LogLineage", v1.LogLineageRequest(inputs=[used]))

    def log_output(self, model_id: str, step: StepLike = 0) -> None:
        """Log a logged model that the run produced.

        Raises:
            InvalidRequest: INVALID_MODEL_ID, INVALID_STEP, RUN_ENDED.
        """
        output = v1.ModelOutput(model_id=checked_model_id(model_id), step=checked_step(step))
        self._add_call("LogLineage", v1.LogLineageRequest(outputs=[output]))

    def describe(self, description: str) -> None:
        """Change the run's description.

        Raises:
            InvalidRequest: INVALID_DESCRIPTION, RUN_ENDED.
        """
        self._add_call("DescribeRun", v1.DescribeRunRequest(description=checked_description(description)))

    def log_artifact(self, path: str | PathLike[str], directory: str = "", *, progress: Progress | None = None) -> str:
        """Upload one file and log it as the artifact "directory/file name".

        Returns its digest. Raises as log_artifacts.
        """
        name = f"{directory.rstrip('/')}/{Path(path).name}" if directory else Path(path).name
        return self._log_artifact(path, name, only_file=True, progress=progress)

    def log_artifacts(self, path: str | PathLike[str], name: str = "", *, progress: Progress | None = None) -> str:
        """Upload a directory, or one file, and log it as the artifact `name`, by default the run's root.

        An earlier artifact of this name is replaced, with all of its files. While the service is unreachable, the files
        are copied into the journal. Returns the digest. A directory without files is not logged: this warns and returns
        "".

        Raises:
            InvalidRequest: INVALID_PATH, SYMLINK_ESCAPES, NOT_A_FILE, RUN_ENDED.
            OSError: See the message.
            Unavailable: The service is unreachable, and there is no journal.
        """
        return self._log_artifact(path, name, only_file=False, progress=progress)

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
            except Exception as error:  # noqa: BLE001 - as in log_metric; the other metrics are logged
                self._ignore(key, error, 1)
        return values

    def _ignore(self, name: object, error: Exception, points: int) -> None:
        if not isinstance(error, InvalidRequest):
            error = InvalidRequest("INVALID_VALUE", f"{type(error).__name__}: {str(error)[:200]}")
        self._writer.record_loss(error, Count(points, 0))
        self._writer.warn(f"{repr(name)[:80]} not logged: {error.reason}", error.message)

    def _check_open(self) -> None:
        if self._ended:
            message = f"run {self.run_id} has ended: resume it, or start another run"
            raise InvalidRequest("RUN_ENDED", message, {"run_id": self.run_id})

    def _check_unchanged(self, key: str, text: str) -> None:
        before = self._params.get(key, text)
        if before != text:
            change = f"{key!r} from {repr(before)[:80]} to {repr(text)[:80]}"
            message = f"cannot change parameter {change}: use another key, or a tag"
            raise PreconditionFailed("PARAM_CHANGED", message, {"key": key, "run_id": self.run_id})

    def _log_artifact(self, path: str | PathLike[str], name: str, *, only_file: bool, progress: Progress | None) -> str:
        self._check_open()
        request = v1.LogArtifactRequest(run_id=self.run_id, path=normal_path(name.strip("/")))
        if request.path:
            check_path(request.path)
        try:
            return log_artifact(self.connection, self._writer, request, path, only_file=only_file, progress=progress)
        except InvalidRequest as error:
            if error.reason != "MANIFEST_EMPTY":
                raise
            self._writer.warn(f"artifact not logged: {str(path)!r} has no files")
            return ""

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
        self._check_open()
        self._send(method, request)

    def _send(self, method: str, request: Any) -> None:
        request.run_id, request.request_id = self.run_id, new_request_id()
        self._writer.add(checked_size(records.call(method, request)), ONE_CALL)

    def _after_fork(self) -> None:
        # The thread that holds the parent's lock does not exist here.
        self._lock = threading.RLock()


def _after_fork() -> None:
    for run in list(_open):
        run._after_fork()  # noqa: SLF001 - of this module


_open: Final[weakref.WeakSet[RunLog]] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
