"""The writer of a run's journal, and the delivery of what it holds."""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward._journal.background_sender import Sender
from rollforward._journal.cursor import read_cursor
from rollforward._journal.directory import FIRST_SEGMENT_LOG, Journal
from rollforward._journal.records import Count
from rollforward._journal.run_warnings import RunWarnings
from rollforward._journal.segment_writer import DISK_BYTES, MEMORY_BYTES, SegmentLog
from rollforward.errors import RollforwardError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from rollforward._journal.directory import Head
    from rollforward._transport.connection import Connection

INTERVAL: Final = 0.5
NOTHING: Final = Count(0, 0)

# How often a forked process checks whether its parent has delivered its records.
_POLL_SECONDS: Final = 0.02

_logger: Final = logging.getLogger("rollforward")


class DeliveryResult(NamedTuple):
    """The undelivered and lost records of a run."""

    missing: Count
    """Not delivered yet; the journal keeps them."""
    lost: Count
    """Rejected by the service, invalid, or dropped for lack of space."""
    failure: RollforwardError | None
    """Why the first record was lost, else why records are missing."""


class Writer:
    """A writer that takes records at once and delivers them from a background thread.

    Safe for use by many threads. In a forked process it writes to a segment log of its own, which the parent delivers.
    Records that the service rejects are counted, logged as warnings and returned by flush and close.
    """

    def __init__(
        self,
        connection: Connection,
        head: Head,
        *,
        directory: Path | None = None,
        offline: bool = False,
        interval: float = INTERVAL,
        disk_bytes: int = DISK_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """Open a journal; records are sent at most `interval` seconds after they are logged, and never if `offline`.

        Raises:
            OSError: `offline`, and there can be no journal.
        """
        self.offline = offline
        warnings = RunWarnings(head.run_id)
        self.warn = warnings.warn
        self._connection = connection
        self._run_id = head.run_id
        self._limits = (disk_bytes, memory_bytes)
        self._journal = self._open_journal(head, directory)
        self._segment_log = self._open_segment_log(FIRST_SEGMENT_LOG)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._lost = self._total_lost = NOTHING
        self._failure: RollforwardError | None = None
        self._sender: Sender | None = None
        if not offline:
            self._sender = Sender(
                self._journal,
                self._segment_log,
                connection,
                run_id=head.run_id,
                interval=interval,
                on_rejected=self._rejected,
                warnings=warnings,
            )
        _writers.add(self)

    @property
    def folder(self) -> Path | None:
        """The journal's folder; None if it could not be created and all records stay in memory."""
        return self._journal.folder if self._journal else None

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the one that created the writer."""
        return os.getpid() != self._pid

    @property
    def is_blocked(self) -> bool:
        """Whether nothing can be delivered, at the moment or because the run is offline."""
        return self._sender is None or self._sender.last_error is not None

    @property
    def lost(self) -> Count:
        """The number of records that this process has lost, as returned by flush and close so far."""
        return self._total_lost

    def add_points(self, framed: bytes, count: int) -> None:
        """Append a framed record of points."""
        if not self._segment_log.append_points(framed, count):
            self.warn("journal is full: metric points are dropped and counted")

    def add(self, payload: bytes, content: Count) -> None:
        """Append any other record."""
        if not self._segment_log.append(payload, content):
            self.warn("journal is full: parameters, tags and other records are dropped and counted")

    def record_loss(self, failure: RollforwardError, content: Count) -> None:
        """Count records that could not be logged at all."""
        with self._lock:
            self._failure = self._failure or failure
            self._lost = self._lost.plus(content)

    def flush(self, timeout: float | None = None) -> DeliveryResult:
        """Wait until every record that this process has logged so far is delivered or rejected.

        Wait at most `timeout` seconds, by default the connection's timeout. Offline, do not wait.
        """
        if self._sender is None:
            self._segment_log.recover()
        goal = self._segment_log.kept
        self._await_settled(goal, self._connection.timeout if timeout is None else timeout)
        return self._outcome(goal)

    def close(self, timeout: float | None = None) -> DeliveryResult:
        """Deliver all records, and those of forked processes, for at most `timeout` seconds; then close the journal.

        Undelivered records stay in the journal; those that do not fit into it are lost. Nothing may be logged
        afterwards.
        """
        seconds = self._connection.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        self._await_settled(self._segment_log.kept, seconds)
        if self._sender is not None:
            self._sender.wait_until_idle(max(0.0, deadline - time.monotonic()))
        gone = self._segment_log.close()
        if self._sender is not None:
            gone = gone.plus(self._sender.stop())
        elif self._journal is not None:
            self._journal.unlock()
        _writers.discard(self)
        return self._outcome(self._segment_log.kept, gone)

    def _open_journal(self, head: Head, directory: Path | None) -> Journal | None:
        try:
            return Journal.create(head, directory)
        except OSError as error:
            if self.offline:
                # Such a run could only lose its records.
                raise
            self.warn(f"cannot create a journal, buffering in memory: {error}")
            return None

    def _open_segment_log(self, name: str) -> SegmentLog:
        disk_bytes, memory_bytes = self._limits
        warn = self.warn
        return SegmentLog(self._journal, name=name, disk_bytes=disk_bytes, memory_bytes=memory_bytes, warn=warn)

    def _settled(self) -> Count:
        if self._sender is not None:
            return self._sender.settled
        return read_cursor(self._journal.cursor(self._segment_log.name)).settled if self._journal else NOTHING

    def _await_settled(self, goal: Count, seconds: float) -> None:
        if self.offline:
            return

        def is_settled() -> bool:
            return not goal.minus(self._settled()).total

        if self._sender is not None:
            self._sender.wait(is_settled, seconds)
            return
        deadline = time.monotonic() + seconds
        while not is_settled() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _outcome(self, goal: Count, gone: Count = NOTHING) -> DeliveryResult:
        missing = NOTHING if self.offline else goal.minus(self._settled()).minus(gone)
        with self._lock:
            lost, failure = self._lost.plus(self._segment_log.take_dropped()).plus(gone), self._failure
            self._lost, self._failure = NOTHING, None
            self._total_lost = self._total_lost.plus(lost)
        if failure is None and lost.total:
            failure = Unavailable(
                "JOURNAL_FULL", "no space for more records: free disk space, or raise ROLLFORWARD_JOURNAL_BYTES"
            )
        if failure is None and missing.total:
            last_error = self._sender.last_error if self._sender else None
            failure = last_error or Unavailable("NOT_DELIVERED", "not delivered within the timeout")
        return DeliveryResult(missing, lost, failure)

    def _rejected(self, content: Count, failure: RollforwardError) -> None:
        _logger.warning("records rejected, run=%s, records=%s, error=%s", self._run_id, content.describe(), failure)
        self.record_loss(failure, content)

    def _after_fork(self) -> None:
        # The threads that could hold the parent's locks do not exist here; its files and its sender stay with the
        # parent.
        self._lock = threading.RLock()
        self._segment_log.drop()
        if self._journal is not None:
            self._journal.unlock()
        self._segment_log = self._open_segment_log(f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._sender = self._failure = None
        self._lost = self._total_lost = NOTHING


def _after_fork() -> None:
    for writer in list(_writers):
        writer._after_fork()  # noqa: SLF001 - of this module


_writers: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
