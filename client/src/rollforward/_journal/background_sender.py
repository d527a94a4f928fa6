"""Delivers what a run logs from a background thread, each batch until it is answered."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from rollforward._journal.delivery import Delivery
from rollforward._journal.directory import FIRST_STRAND
from rollforward._journal.reader import MemoryReader
from rollforward._journal.records import Count
from rollforward._transport.backoff import Backoff
from rollforward.errors import InternalError, RollforwardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollforward._journal.directory import Journal
    from rollforward._journal.run_warnings import Complaints
    from rollforward._journal.segment_writer import SegmentLog
    from rollforward._transport.connection import Connection

# Between two attempts to deliver, at most, in seconds.
_LONGEST_PAUSE: Final = 5.0
# So long a thread that is stopped may take to finish what it is at.
_STOP_SECONDS: Final = 2.0

_log: Final = logging.getLogger("rollforward")


class Sender:
    """Delivers a journal, and what a strand has no room for on the disk, until it is stopped."""

    def __init__(
        self,
        journal: Journal | None,
        segment_log: SegmentLog,
        connection: Connection,
        *,
        run_id: str,
        interval: float,
        refused: Callable[[Count, RollforwardError], None],
        warnings: Complaints,
    ) -> None:
        """Begin. What is logged is sent `interval` seconds later at the latest."""
        self.obstacle: RollforwardError | None = None
        """What keeps everything from being delivered at the moment, as far as is known."""
        self.settled = Count(0, 0)
        """How much of what the strand keeps was delivered, or refused."""
        self._journal = journal
        self._segment_log = segment_log
        self._interval = interval
        self._warnings = warnings
        self._memory = MemoryReader(segment_log, run_id)
        self._delivery = Delivery(journal, connection, memory=self._memory, refused=refused)
        self._on_disk = Count(0, 0)
        self._changed = threading.Condition()
        self._wanted = self._idle = self._stopping = False
        self._begun = self._rounds = 0
        self._connection = connection
        self._thread = threading.Thread(target=self._work, name=f"rollforward-{run_id[:8]}", daemon=True)
        self._thread.start()

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Deliver now, and wait until a condition on what is settled holds, at most so many seconds.

        If nothing listens at the service's address, one attempt that begins now is enough: the journal keeps what is
        logged.
        """
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            begun = self._begun  # one that is under way may have begun before the service did

            def is_over() -> bool:
                hopeless = self._rounds > begun and self._connection.refused
                return condition() or hopeless or self._stopping

            self._changed.wait_for(is_over, min(seconds, threading.TIMEOUT_MAX))

    def wait_until_idle(self, seconds: float) -> None:
        """Deliver all that is there, of forked processes too, for at most so many seconds."""
        self._idle = False
        self.wait(lambda: self._idle, seconds)

    def stop(self) -> Count:
        """End, and remove the journal if all of it is delivered; else it is left to others.

        Returns how much was taken out of the strand's memory and not delivered.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(_STOP_SECONDS)
        return self._memory.taken

    def _work(self) -> None:
        self._warnings.only_log_here()
        backoff = Backoff(first=0.1, longest=_LONGEST_PAUSE)
        pause = self._interval
        while self._wait(pause):
            self._begun += 1
            self._segment_log.recover()
            self._deliver()
            pause = self._interval if self.obstacle is None else backoff.next_pause() or 0.0
            if self.obstacle is None:
                backoff.reset()
            self._rounds += 1
            self._publish()
        self._let_go()

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._stopping, seconds)
            self._wanted = False
            return not self._stopping

    def _deliver(self) -> None:
        try:
            while self._delivery.round():
                self.obstacle = None
                self._publish()
                if self._stopping:
                    return
            self._delivery.sweep()
        except RollforwardError as error:
            self._meet(error)
        except Exception as error:  # noqa: BLE001 - whatever it is: the next attempt may come through
            _log.debug("delivering failed", exc_info=True)
            self._meet(InternalError("WRITER_FAILED", repr(error)))
        else:
            self.obstacle, self._idle = None, True

    def _publish(self) -> None:
        first = self._delivery.readers.get(FIRST_STRAND)
        with self._changed:
            # Once all is delivered and the strand is closed, it is gone.
            self._on_disk = first.cursor.settled if first else self._on_disk
            self.settled = self._memory.settled.plus(self._on_disk)
            self._changed.notify_all()

    def _meet(self, obstacle: RollforwardError) -> None:
        self.obstacle = obstacle
        self._warnings.say(f"nothing can be delivered now, the journal keeps it: {obstacle.reason}")

    def _let_go(self) -> None:
        if self._journal is None:
            return
        try:
            if self._delivery.sweep():
                self._journal.remove()
        except (OSError, RollforwardError) as error:
            self._warnings.say(f"the journal could not be removed: {error}")
        self._journal.unlock()
