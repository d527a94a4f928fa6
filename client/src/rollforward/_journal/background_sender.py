"""Delivery of a run's journal from a background thread: each batch is retried until the service answers."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from rollforward._journal.delivery import Delivery
from rollforward._journal.directory import FIRST_SEGMENT_LOG
from rollforward._journal.reader import MemoryReader
from rollforward._journal.records import Count
from rollforward._transport.backoff import Backoff
from rollforward.errors import InternalError, RollforwardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollforward._journal.directory import Journal
    from rollforward._journal.run_warnings import RunWarnings
    from rollforward._journal.segment_writer import SegmentLog
    from rollforward._transport.connection import Connection

# Upper bound for the pause between two attempts, in seconds.
_MAX_PAUSE: Final = 5.0
# How long stop() waits for the thread.
_STOP_SECONDS: Final = 2.0

_logger: Final = logging.getLogger("rollforward")


class Sender:
    """A background thread that delivers a journal, and the records that do not fit on the disk, until stopped."""

    def __init__(
        self,
        journal: Journal | None,
        segment_log: SegmentLog,
        connection: Connection,
        *,
        run_id: str,
        interval: float,
        on_rejected: Callable[[Count, RollforwardError], None],
        warnings: RunWarnings,
    ) -> None:
        """Start the thread; it sends records at most `interval` seconds after they are logged."""
        self.last_error: RollforwardError | None = None
        """The error that currently blocks all deliveries; None when there is none."""
        self.settled = Count(0, 0)
        """How many records of the segment log were delivered or rejected."""
        self._journal = journal
        self._segment_log = segment_log
        self._interval = interval
        self._warnings = warnings
        self._memory = MemoryReader(segment_log, run_id)
        self._delivery = Delivery(journal, connection, memory=self._memory, on_rejected=on_rejected)
        self._on_disk = Count(0, 0)
        self._changed = threading.Condition()
        self._flush_requested = self._idle = self._stopping = False
        self._rounds_started = self._rounds_finished = 0
        self._connection = connection
        self._thread = threading.Thread(target=self._work, name=f"rollforward-{run_id[:8]}", daemon=True)
        self._thread.start()

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Deliver now, and wait at most `seconds` until a condition on `settled` holds.

        If nothing listens at the service's address, give up after one attempt: the journal keeps the records.
        """
        with self._changed:
            self._flush_requested = True
            self._changed.notify_all()
            started = self._rounds_started  # the current round may have started before the service did

            def is_over() -> bool:
                unreachable = self._rounds_finished > started and self._connection.refused
                return condition() or unreachable or self._stopping

            self._changed.wait_for(is_over, min(seconds, threading.TIMEOUT_MAX))

    def wait_until_idle(self, seconds: float) -> None:
        """Deliver all records, those of forked processes included, for at most `seconds`."""
        self._idle = False
        self.wait(lambda: self._idle, seconds)

    def stop(self) -> Count:
        """Stop the thread, which removes the journal if all of it is delivered.

        Returns:
            How many records were taken out of memory and not delivered.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS)
        return self._memory.taken

    def _work(self) -> None:
        self._warnings.log_only_from_this_thread()
        backoff = Backoff(first=0.1, max_pause=_MAX_PAUSE)
        pause = self._interval
        while self._wait(pause):
            self._rounds_started += 1
            self._segment_log.recover()
            self._deliver()
            pause = self._interval if self.last_error is None else backoff.next_pause() or 0.0
            if self.last_error is None:
                backoff.reset()
            self._rounds_finished += 1
            self._publish()
        self._release_journal()

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._flush_requested or self._stopping, seconds)
            self._flush_requested = False
            return not self._stopping

    def _deliver(self) -> None:
        try:
            while self._delivery.round():
                self.last_error = None
                self._publish()
                if self._stopping:
                    return
            self._delivery.sweep()
        except RollforwardError as error:
            self._note_failure(error)
        except Exception as error:
            _logger.debug("delivery failed, retrying", exc_info=True)
            self._note_failure(InternalError("WRITER_FAILED", repr(error)))
        else:
            self.last_error, self._idle = None, True

    def _publish(self) -> None:
        first = self._delivery.readers.get(FIRST_SEGMENT_LOG)
        with self._changed:
            # A closed segment log is removed once it is delivered.
            self._on_disk = first.cursor.settled if first else self._on_disk
            self.settled = self._memory.settled.plus(self._on_disk)
            self._changed.notify_all()

    def _note_failure(self, error: RollforwardError) -> None:
        self.last_error = error
        self._warnings.warn(f"cannot deliver, keeping records in the journal and retrying: {error.reason}")

    def _release_journal(self) -> None:
        if self._journal is None:
            return
        try:
            if self._delivery.sweep():
                self._journal.remove()
        except (OSError, RollforwardError) as error:
            self._warnings.warn(f"cannot remove the delivered journal: {error}")
        self._journal.unlock()
