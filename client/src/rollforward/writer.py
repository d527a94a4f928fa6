"""Sends what a run logs, in batches, from one background thread."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from rollforward.buffer import Batch, Buffer, Count
from rollforward.errors import InternalError, InvalidRequest, RollforwardError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rollforward.connection import Connection

# Half of what one event may hold, so that names and frames always fit.
BATCH_BYTES: Final = 500_000
BUFFER_BYTES: Final = 16 * 1024 * 1024
INTERVAL: Final = 0.5

_log: Final = logging.getLogger("rollforward")


class Writer:
    """Takes what a run logs at once, and delivers it in the order of logging, each batch until it is answered.

    While the service is out of reach the buffer fills; when it is full, logging waits, for as long as a call may take.
    What the service refuses is dropped, logged as a warning, and raised by the next flush or close.
    """

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        *,
        interval: float = INTERVAL,
        batch_bytes: int = BATCH_BYTES,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """Begin. A batch is sent `interval` seconds after its first item, or as soon as it has `batch_bytes`."""
        self._connection = connection
        self._run_id = run_id
        self._interval = interval
        self._batch_bytes = batch_bytes
        self._buffer_bytes = buffer_bytes
        self._buffer = Buffer(run_id)
        self._changed = threading.Condition()
        # Items in all: taken out of the buffer, settled (delivered or refused), and wanted at once by a flush.
        self._taken = self._settled = self._wanted = 0
        self._in_flight = Count(0, 0)
        self._lost = Count(0, 0)
        self._failure: RollforwardError | None = None
        self._closing = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name=f"rollforward-writer-{run_id[:8]}", daemon=True)
        self._thread.start()
        atexit.register(self._close_at_exit)

    def add_points(self, points: Iterable[tuple[str, float]], step: int, timestamp: int) -> None:
        """Take points of one step; `timestamp` is in milliseconds since 1970-01-01 UTC.

        Raises Unavailable (BUFFER_FULL) when nothing could be delivered for the length of a call, InvalidRequest
        (RUN_ENDED).
        """
        with self._changed:
            self._make_room()
            before = self._buffer.size
            for key, value in points:
                self._buffer.add_point(key, step, timestamp, value)
            self._wake(before)

    def add_params(self, params: Mapping[str, str]) -> None:
        """Take parameters. Raises as add_points."""
        with self._changed:
            self._make_room()
            before = self._buffer.size
            self._buffer.add_params(params)
            self._wake(before)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Take tags. Raises as add_points."""
        with self._changed:
            self._make_room()
            before = self._buffer.size
            self._buffer.add_tags(tags)
            self._wake(before)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything logged so far is delivered, at most `timeout` seconds (else the connection's).

        Raises the error of what was refused since the last flush, or Unavailable (NOT_DELIVERED); both say how much is
        missing in their metadata "points" and "labels" (parameters and tags). After NOT_DELIVERED the writer goes on
        trying.
        """
        with self._changed:
            self._await_delivery(timeout)
            self._raise_failure()

    def close(self, timeout: float | None = None) -> None:
        """Flush, then end the thread; what is not delivered by then is given up.

        Raises as flush. Closing twice is harmless.
        """
        atexit.unregister(self._close_at_exit)
        with self._changed:
            self._closing = True
            try:
                self._await_delivery(timeout)
            finally:
                self._abandoned = True
                self._changed.notify_all()
            self._raise_failure()

    def _make_room(self) -> None:
        if self._closing:
            raise InvalidRequest("RUN_ENDED", f"run {self._run_id} has ended", {"run_id": self._run_id})
        room = self._changed.wait_for(
            lambda: self._buffer.size < self._buffer_bytes or self._closing, self._connection.timeout
        )
        if not room:
            message = (
                f"{self._buffer.count.points} points of run {self._run_id} wait for a service that does not answer"
            )
            raise Unavailable("BUFFER_FULL", message, {"run_id": self._run_id})

    def _wake(self, before: int) -> None:
        # Only when it matters to the thread: waking it for each point would cost more than the point.
        if before == 0 or before < self._batch_bytes <= self._buffer.size:
            self._changed.notify_all()

    def _await_delivery(self, timeout: float | None) -> None:
        goal = self._taken + self._buffer.count.total
        self._wanted = max(self._wanted, goal)
        self._changed.notify_all()
        seconds = self._connection.timeout if timeout is None else timeout
        if not self._changed.wait_for(lambda: self._settled >= goal or not self._thread.is_alive(), seconds):
            missing = self._buffer.count.plus(self._in_flight)
            raise _undelivered(Unavailable("NOT_DELIVERED", "the service does not answer"), missing, self._run_id)

    def _raise_failure(self) -> None:
        failure, lost = self._failure, self._lost
        self._failure, self._lost = None, Count(0, 0)
        if failure is not None:
            raise _undelivered(failure, lost, self._run_id) from failure

    def _work(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                self._settle(batch, self._deliver(batch))
        except BaseException as error:
            with self._changed:
                self._fail(InternalError("WRITER_FAILED", repr(error)), self._buffer.count.plus(self._in_flight))
                self._closing = self._abandoned = True
                self._settled = self._taken + self._buffer.count.total
                self._changed.notify_all()
            raise

    def _next_batch(self) -> Batch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._buffer.size or self._closing)
            self._changed.wait_for(self._due, self._interval)
            if self._abandoned or not self._buffer.size:
                return None
            batch = self._buffer.take(self._batch_bytes)
            self._taken += batch.content.total
            self._in_flight = batch.content
            self._changed.notify_all()
            return batch

    def _due(self) -> bool:
        return self._closing or self._wanted > self._taken or self._buffer.size >= self._batch_bytes

    def _deliver(self, batch: Batch) -> RollforwardError | None:
        started = time.monotonic()
        while not self._abandoned:
            try:
                self._connection.call(self._connection.tracking.LogBatch, batch.request)
            except Unavailable:
                seconds = time.monotonic() - started
                _log.warning(
                    "run %s: no answer for %.0f s, %d points wait", self._run_id, seconds, batch.content.points
                )
            except RollforwardError as error:
                return error
            else:
                return None
        return Unavailable("NOT_DELIVERED", "the service does not answer")

    def _settle(self, batch: Batch, failure: RollforwardError | None) -> None:
        with self._changed:
            # Once the writer is abandoned, close() has said already what is missing.
            if failure is not None and not self._abandoned:
                _log.warning("run %s: %d points and %d labels refused: %s", self._run_id, *batch.content, failure)
                self._fail(failure, batch.content)
            self._settled += batch.content.total
            self._in_flight = Count(0, 0)
            self._changed.notify_all()

    def _fail(self, failure: RollforwardError, lost: Count) -> None:
        self._failure = self._failure or failure
        self._lost = self._lost.plus(lost)

    def _close_at_exit(self) -> None:
        try:
            self.close()
        except RollforwardError as error:
            _log.warning("run %s: %s", self._run_id, error)


def _undelivered(cause: RollforwardError, missing: Count, run_id: str) -> RollforwardError:
    lost = f"{missing.points} metric points and {missing.labels} parameters and tags of run {run_id}"
    metadata = {**cause.metadata, "run_id": run_id, "points": str(missing.points), "labels": str(missing.labels)}
    return type(cause)(cause.reason, f"{lost} were not delivered: {cause.message}", metadata, cause.details)
