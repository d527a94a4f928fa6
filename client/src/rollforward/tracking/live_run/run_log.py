"""What may be logged into a run: parameters, tags, metrics, datasets, models and artifacts."""

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
from rollforward.tracking.live_run.run_records import about, checked_dataset, checked_size, label_records, point_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from google.protobuf.message import Message

    from rollforward._artifacts.trees import Progress
    from rollforward._journal.writer import Writer
    from rollforward._transport.connection import Connection
    from rollforward._validation import StepLike

# So many names of metrics are kept as checked.
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
        """Log parameters, as texts; each is written once and never changes.

        What the service refuses is told by flush and finish.

        Raises:
            InvalidRequest: INVALID_KEY, INVALID_VALUE, RUN_ENDED.
            PreconditionFailed: PARAM_CHANGED for another value than this handle logged before.
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
        """Remove a tag, if it is there.

        Raises:
            InvalidRequest: INVALID_KEY, RUN_ENDED.
        """
        self._refuse_ended()
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
        """Log one point of a metric: any number, NaN and infinities too, also of other libraries.

        A `step` of 5.0 is 5, None is 0. `timestamp` is in milliseconds since 1970-01-01 UTC, now by default. The point
        may be about a logged model, and a dataset that it was measured on. Never raises: what cannot be logged is
        counted, warned of, and reported by flush and finish.
        """
        if model_id or dataset is not None or self._ended:
            self.log_metrics({key: value}, step, timestamp=timestamp, model_id=model_id, dataset=dataset)
            return
        try:
            name = self._names.get(key) or self._name(key)
            moment = time.time_ns() // 1_000_000 if timestamp is None else checked_timestamp(timestamp)
            # Every call counts here: a loop that does much else finds no cache warm.
            number = value if type(value) is float else checked_value(key, value)
            framed = records.framed_point(checked_step(step), moment, number, name)
        except Exception as error:  # noqa: BLE001 - a number of any library may fail in its own way
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
            self._refuse_ended()
            number = checked_step(step)
            moment = time.time_ns() // 1_000_000 if timestamp is None else checked_timestamp(timestamp)
            what = about(model_id, dataset)
            values = self._checked_values(metrics)
            for payload, count in point_records(number, moment, values, what):
                self._writer.add_points(records.frame(payload), count)
        except Exception as error:  # noqa: BLE001 - as above
            self._ignore("metrics", error, len(metrics) if hasattr(metrics, "__len__") else 1)

    def log_input(self, dataset: v1.Dataset, *, context: str = "", tags: Mapping[str, object] | None = None) -> None:
        """Log a dataset that the run reads; `context` says what for, such as "training".

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
        """Say what the run is for.

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

        An artifact that was logged under this name before is replaced, with all of its files. While the service is out
        of reach the files are copied into the journal. Returns their digest; for a directory without files it warns,
        logs nothing and returns an empty text.

        Raises:
            InvalidRequest: INVALID_PATH, SYMLINK_ESCAPES, NOT_A_FILE, RUN_ENDED.
            OSError: See the message.
            Unavailable: When there is no journal.
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
            except Exception as error:  # noqa: BLE001 - as in log_metric; the others are logged
                self._ignore(key, error, 1)
        return values

    def _ignore(self, what: object, error: Exception, points: int) -> None:
        if not isinstance(error, InvalidRequest):
            error = InvalidRequest("INVALID_VALUE", f"{type(error).__name__}: {str(error)[:200]}")
        self._writer.lose(error, Count(points, 0))
        self._writer.complain(f"{repr(what)[:80]} is not logged: {error.reason}", error.message)

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
        request = v1.LogArtifactRequest(run_id=self.run_id, path=normal_path(name.strip("/")))
        if request.path:
            check_path(request.path)
        try:
            return log_artifact(self.connection, self._writer, request, path, only_file=only_file, progress=progress)
        except InvalidRequest as error:
            if error.reason != "MANIFEST_EMPTY":
                raise
            self._writer.complain(f"no artifact logged: {str(path)!r} has no files")
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
        self._refuse_ended()
        self._send(method, request)

    def _send(self, method: str, request: Any) -> None:
        request.run_id, request.request_id = self.run_id, new_request_id()
        self._writer.add(checked_size(records.call(method, request)), ONE_CALL)

    def _go_on_forked(self) -> None:
        # The thread that held it is not here.
        self._lock = threading.RLock()


def _go_on_forked() -> None:
    for run in list(_open):
        run._go_on_forked()  # noqa: SLF001 - of this module


_open: Final[weakref.WeakSet[RunLog]] = weakref.WeakSet()
os.register_at_fork(after_in_child=_go_on_forked)
