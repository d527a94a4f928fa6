"""Keeps what a run logs in a journal, and delivers it from one background thread."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
import uuid
import warnings
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward.backoff import Backoff
from rollforward.delivery import Delivery
from rollforward.errors import InternalError, RollforwardError, Unavailable
from rollforward.journal import FIRST_STRAND, Journal
from rollforward.journal_cursor import read_cursor
from rollforward.journal_reader import MemoryReader
from rollforward.journal_records import Count
from rollforward.journal_strand import DISK_BYTES, MEMORY_BYTES, Strand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rollforward.connection import Connection
    from rollforward.journal import Head

INTERVAL: Final = 0.5
NOTHING: Final = Count(0, 0)

# Between two attempts to deliver, and between two words about it, at most.
_LONGEST_PAUSE: Final = 5.0
_WORDS_SECONDS: Final = 60.0
_SAYINGS: Final = 1_000
# How a forked process looks whether its parent has delivered what it logged.
_LOOK_SECONDS: Final = 0.02
_STOP_SECONDS: Final = 2.0

_log: Final = logging.getLogger("rollforward")


class Outcome(NamedTuple):
    """What became of all that was logged, and of what was to be logged."""

    missing: Count
    """Not delivered; it waits in the journal, if there is one."""
    lost: Count
    """Refused, by the service or here, or without room."""
    failure: RollforwardError | None
    """Why, of the first of what is lost, else of what is missing."""


class Writer:
    """Takes what a run logs at once, and delivers it, each batch until it is answered.

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
        """Begin. What is logged is sent `interval` seconds later at the latest, when `offline` not at all."""
        self.offline = offline
        self._connection = connection
        self._head = head
        self._interval = interval
        self._limits = (disk_bytes, memory_bytes)
        self._said: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._journal = self._open_journal(directory)
        self._strand = self._new_strand(FIRST_STRAND)
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._settled = self._on_disk = self._lost = NOTHING
        self._failure: RollforwardError | None = None
        self._obstacle: RollforwardError | None = None
        self._wanted = self._idle = self._stopping = False
        if not offline:
            self._thread = threading.Thread(target=self._work, name=f"rollforward-{head.run_id[:8]}", daemon=True)
            self._thread.start()
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
        return self.offline or self.forked or self._obstacle is not None

    def add_points(self, framed: bytes, count: int) -> None:
        """Take a record of points, in its frame."""
        if not self._strand.append_points(framed, count):
            self.complain("there is no room for more points: they are dropped, and counted")

    def add(self, payload: bytes, content: Count) -> None:
        """Take any other record."""
        if not self._strand.append(payload, content):
            self.complain("there is no room for more, even of parameters and tags")

    def lose(self, failure: RollforwardError, content: Count) -> None:
        """Note what could not be logged at all."""
        with self._changed:
            self._failure = self._failure or failure
            self._lost = self._lost.plus(content)

    def flush(self, timeout: float | None = None) -> Outcome:
        """Wait until everything that this process logged so far is settled, at most `timeout` seconds (else the
        connection's). Offline there is nothing to wait for.
        """
        goal = self._strand.kept
        self._await_settled(goal, self._connection.timeout if timeout is None else timeout)
        return self._outcome(goal)

    def close(self, timeout: float | None = None) -> Outcome:
        """Deliver what is there, that of forked processes too, at most `timeout` seconds, then let go of the journal.

        What is not delivered by then waits in it. Nothing may be logged any more.
        """
        seconds = self._connection.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        self._await_settled(self._strand.kept, seconds)
        if self._thread is not None:
            self._idle = False
            self._await(lambda: self._idle, max(0.0, deadline - time.monotonic()))
        outcome = self._outcome(self._strand.kept)
        self._strand.close()
        self._stop()
        return outcome

    def _stop(self) -> None:
        _writers.discard(self)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_STOP_SECONDS)
        elif self._journal is not None:
            self._journal.unlock()

    def _open_journal(self, directory: Path | None) -> Journal | None:
        try:
            return Journal.create(self._head, directory)
        except (OSError, RuntimeError) as error:
            self.complain(f"there can be no journal, what is logged stays in memory until it is delivered: {error}")
            return None

    def _new_strand(self, name: str) -> Strand:
        disk_bytes, memory_bytes = self._limits
        say = self.complain
        return Strand(self._journal, name=name, disk_bytes=disk_bytes, memory_bytes=memory_bytes, complain=say)

    def complain(self, why: str, more: str = "") -> None:
        """Say something, the same thing once a minute; in the program's own threads as a warning too."""
        now = time.monotonic()
        if now - self._said.get(why, -math.inf) < _WORDS_SECONDS:
            return
        if len(self._said) > _SAYINGS:
            self._said.clear()
        self._said[why] = now
        why = f"{why}: {more}" if more else why
        _log.warning("run %s: %s", self._head.run_id, why)
        if threading.current_thread() is not self._thread:
            # Where warnings are errors, logging still raises none.
            with contextlib.suppress(RuntimeWarning):
                warnings.warn(f"run {self._head.run_id}: {why}", RuntimeWarning, stacklevel=4)

    def _settled_here(self) -> Count:
        if not self.forked:
            return self._settled
        return read_cursor(self._journal.cursor(self._strand.name)).settled if self._journal else NOTHING

    def _await_settled(self, goal: Count, seconds: float) -> None:
        if not self.offline:
            self._await(lambda: self._settled_here().total >= goal.total, seconds)

    def _await(self, condition: Callable[[], bool], seconds: float) -> None:
        if self.forked:
            deadline = time.monotonic() + seconds
            while not condition() and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
            return
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: condition() or self._stopping, seconds)

    def _outcome(self, goal: Count) -> Outcome:
        settled = goal if self.offline else self._settled_here()
        missing = goal.minus(settled) if goal.total > settled.total else NOTHING
        with self._changed:
            lost, failure = self._lost.plus(self._strand.take_dropped()), self._failure
            self._lost, self._failure = NOTHING, None
        if failure is None and lost.total:
            failure = Unavailable("JOURNAL_FULL", "there was no room for it")
        if failure is None and missing.total:
            failure = self._obstacle or Unavailable("NOT_DELIVERED", "there was no time for it")
        return Outcome(missing, lost, failure)

    def _work(self) -> None:
        memory = MemoryReader(self._strand, self._head.run_id)
        delivery = Delivery(self._journal, self._connection, memory=memory, refused=self._refused)
        backoff = Backoff(first=0.1, longest=_LONGEST_PAUSE)
        pause = self._interval
        while self._wait(pause):
            self._strand.recover()
            delivered = self._deliver(delivery, lambda: self._publish(delivery, memory))
            pause = self._interval if delivered else backoff.next_pause() or 0.0
            if self._obstacle is None:
                backoff.reset()
            self._publish(delivery, memory)
        self._let_go(delivery)

    def _publish(self, delivery: Delivery, memory: MemoryReader) -> None:
        first = delivery.readers.get(FIRST_STRAND)
        with self._changed:
            # Once all is delivered and the strand is closed, it is gone.
            self._on_disk = first.cursor.settled if first else self._on_disk
            self._settled = memory.settled.plus(self._on_disk)
            self._changed.notify_all()

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._stopping, seconds)
            self._wanted = False
            return not self._stopping

    def _deliver(self, delivery: Delivery, publish: Callable[[], None]) -> bool:
        try:
            while delivery.round():
                self._obstacle = None
                publish()
                if self._stopping:
                    return True
            delivery.sweep()
        except RollforwardError as error:
            self._meet(error)
        except Exception as error:  # noqa: BLE001 - whatever it is: the next attempt may come through
            _log.debug("run %s: delivering failed", self._head.run_id, exc_info=True)
            self._meet(InternalError("WRITER_FAILED", repr(error)))
        else:
            self._obstacle, self._idle = None, True
        return self._obstacle is None

    def _let_go(self, delivery: Delivery) -> None:
        if self._journal is None:
            return
        try:
            if delivery.sweep():
                self._journal.remove()
        except (OSError, RollforwardError) as error:
            self.complain(f"the journal could not be removed: {error}")
        self._journal.unlock()

    def _meet(self, obstacle: RollforwardError) -> None:
        self._obstacle = obstacle
        self.complain(f"nothing can be delivered now, the journal keeps it: {obstacle.reason}")

    def _refused(self, content: Count, failure: RollforwardError) -> None:
        _log.warning("run %s: refused are %d points, %d labels, %d calls: %s", self._head.run_id, *content, failure)
        self.lose(failure, content)

    def _go_on_forked(self) -> None:
        # Nobody who could hold a lock of the parent is alive here; its files and its thread stay the parent's.
        self._changed = threading.Condition()
        self._strand.drop()
        if self._journal is not None:
            self._journal.unlock()
        self._strand = self._new_strand(f"{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._thread = self._obstacle = self._failure = None
        self._settled = self._lost = NOTHING


def _go_on_forked() -> None:
    for writer in list(_writers):
        writer._go_on_forked()  # noqa: SLF001 - of this module


_writers: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()
os.register_at_fork(after_in_child=_go_on_forked)
