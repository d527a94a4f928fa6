"""Takes what a run logs into a journal, has it delivered, and says what became of it."""

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
from rollforward._journal.directory import FIRST_STRAND, Journal
from rollforward._journal.records import Count
from rollforward._journal.run_warnings import Complaints
from rollforward._journal.segment_writer import DISK_BYTES, MEMORY_BYTES, SegmentLog
from rollforward.errors import RollforwardError, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from rollforward._journal.directory import Head
    from rollforward._transport.connection import Connection

INTERVAL: Final = 0.5
NOTHING: Final = Count(0, 0)

# How a forked process looks whether its parent has delivered what it logged.
_LOOK_SECONDS: Final = 0.02

_log: Final = logging.getLogger("rollforward")


class Outcome(NamedTuple):
    """What became of all that was logged, and of what was to be logged."""

    missing: Count
    """Not delivered; it waits in the journal."""
    lost: Count
    """Refused, by the service or here, or without room."""
    failure: RollforwardError | None
    """Why, of the first of what is lost, else of what is missing."""


class Writer:
    """Takes what a run logs at once, and has it delivered from a background thread.

    Safe for use by many threads. A forked process goes on logging through it into a strand of its own, which the parent
    delivers. What the service refuses is counted, logged as a warning and told by flush and close.
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
        """Begin. What is logged is sent `interval` seconds later at the latest, when `offline` not at all.

        Raises OSError when there can be no journal, and it is `offline`.
        """
        self.offline = offline
        warnings = Complaints(head.run_id)
        self.complain = warnings.say
        self._connection = connection
        self._run_id = head.run_id
        self._limits = (disk_bytes, memory_bytes)
        self._journal = self._open_journal(head, directory)
        self._segment_log = self._new_strand(FIRST_STRAND)
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._lost = self._lost_in_all = NOTHING
        self._failure: RollforwardError | None = None
        self._sender: Sender | None = None
        if not offline:
            self._sender = Sender(
                self._journal,
                self._segment_log,
                connection,
                run_id=head.run_id,
                interval=interval,
                refused=self._refused,
                warnings=warnings,
            )
        _writers.add(self)

    @property
    def folder(self) -> Path | None:
        """Where the journal is; None when it could not be made and all stays in memory."""
        return self._journal.folder if self._journal else None

    @property
    def forked(self) -> bool:
        """Whether this is a process forked from the one that began."""
        return os.getpid() != self._pid

    @property
    def obstructed(self) -> bool:
        """Whether nothing can be delivered at the moment, as far as is known, or shall be."""
        return self._sender is None or self._sender.obstacle is not None

    @property
    def lost(self) -> Count:
        """How much this process has lost in all, as far as it was told by flush and close."""
        return self._lost_in_all

    def add_points(self, framed: bytes, count: int) -> None:
        """Take a record of points, in its frame."""
        if not self._segment_log.append_points(framed, count):
            self.complain("there is no room for more points: they are dropped, and counted")

    def add(self, payload: bytes, content: Count) -> None:
        """Take any other record."""
        if not self._segment_log.append(payload, content):
            self.complain("there is no room for more, even of parameters and tags")

    def lose(self, failure: RollforwardError, content: Count) -> None:
        """Note what could not be logged at all."""
        with self._lock:
            self._failure = self._failure or failure
            self._lost = self._lost.plus(content)

    def flush(self, timeout: float | None = None) -> Outcome:
        """Wait until everything that this process logged so far is delivered or rejected.

        It takes `timeout` seconds at most, else the connection's. Offline there is nothing to wait for.
        """
        if self._sender is None:
            self._segment_log.recover()
        goal = self._segment_log.kept
        self._await_settled(goal, self._connection.timeout if timeout is None else timeout)
        return self._outcome(goal)

    def close(self, timeout: float | None = None) -> Outcome:
        """Deliver what is there, that of forked processes too, at most `timeout` seconds, then let go of the journal.

        What is not delivered by then waits in it; what had no room in it either is lost. Nothing may be logged any
        more.
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
                # All that such a run could do is lose what it is given.
                raise
            self.complain(f"there can be no journal, what is logged stays in memory until it is delivered: {error}")
            return None

    def _new_strand(self, name: str) -> SegmentLog:
        disk_bytes, memory_bytes = self._limits
        say = self.complain
        return SegmentLog(self._journal, name=name, disk_bytes=disk_bytes, memory_bytes=memory_bytes, complain=say)

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
            time.sleep(_LOOK_SECONDS)

    def _outcome(self, goal: Count, gone: Count = NOTHING) -> Outcome:
        missing = NOTHING if self.offline else goal.minus(self._settled()).minus(gone)
        with self._lock:
            lost, failure = self._lost.plus(self._segment_log.take_dropped()).plus(gone), self._failure
            self._lost, self._failure = NOTHING, None
            self._lost_in_all = self._lost_in_all.plus(lost)
        if failure is None and lost.total:
            failure = Unavailable("JOURNAL_FULL", "there was no room for it")
        if failure is None and missing.total:
            obstacle = self._sender.obstacle if self._sender else None
            failure = obstacle or Unavailable("NOT_DELIVERED", "there was no time for it")
        return Outcome(missing, lost, failure)

    def _refused(self, content: Count, failure: RollforwardError) -> None:
        _log.warning("run %s: %s rejected: %s", self._run_id, content.in_words(), failure)
        self.lose(failure, content)

    def _go_on_forked(self) -> None:
        # Nobody who could hold a lock of the parent is alive here; its files and its thread stay the parent's.
        self._lock = threading.RLock()
        self._segment_log.drop()
        if self._journal is not None:
            self._journal.unlock()
        self._segment_log = self._new_strand(f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._sender = self._failure = None
        self._lost = self._lost_in_all = NOTHING


def _go_on_forked() -> None:
    for writer in list(_writers):
        writer._go_on_forked()  # noqa: SLF001 - of this module


_writers: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()
os.register_at_fork(after_in_child=_go_on_forked)
