"""The writer of one process's segments in a journal; it buffers records in memory while the disk is full."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from rollforward._journal.batches import content_of
from rollforward._journal.cursor import Cursor, write_cursor
from rollforward._journal.directory import ARTIFACTS, FIRST_SEGMENT_LOG, Journal, acquire_lock, bytes_below
from rollforward._journal.records import Count, frame

if TYPE_CHECKING:
    from collections.abc import Callable

DISK_BYTES: Final = 1024 * 1024 * 1024
MEMORY_BYTES: Final = 16 * 1024 * 1024
SEGMENT_BYTES: Final = 4 * 1024 * 1024
# The space that points leave free for other records, such as the run's end, in bytes.
_RESERVE: Final = 1024 * 1024
# The pause after a failed write, in seconds.
_PAUSE: Final = 0.5

_logger: Final = logging.getLogger("rollforward")


class SegmentLog:
    """The segments of one process in a journal; safe for use by many threads, and by signal handlers.

    append hands a record to the operating system before it returns: the record survives a crash of the process, but not
    of the machine. No method raises an exception if the disk is full or missing.
    """

    def __init__(
        self,
        journal: Journal | None,
        *,
        name: str = FIRST_SEGMENT_LOG,
        disk_bytes: int = DISK_BYTES,
        memory_bytes: int = MEMORY_BYTES,
        warn: Callable[[str], None] = _logger.warning,
    ) -> None:
        """Prepare the log; files are created by the first write.

        Args:
            journal: The journal; None to keep all records in memory.
            name: The name of the segment log.
            disk_bytes: The size limit for all journals of the run together.
            memory_bytes: The size limit for records in memory.
            warn: Called with a message when writing fails.
        """
        self.name = name
        self._journal = journal
        self._disk_bytes = disk_bytes
        self._memory_bytes = memory_bytes
        self._segment_bytes = max(4096, min(SEGMENT_BYTES, disk_bytes // 8))
        self._warn = warn
        self._guard = threading.RLock()
        self._lock: int | None = None
        self._file: int | None = None
        self._segment = self._at = 0
        self._memory: deque[bytes] = deque()
        self._memory_used = 0
        self._retry_at = 0.0
        self._reported_error = self._unreported_error = ""
        self._closed = False
        self._points = self._dropped_points = 0
        self._others = self._dropped_others = Count(0, 0)

    @property
    def kept(self) -> Count:
        """The number of records that were appended and kept."""
        with self._guard:
            return Count(self._points, *self._others[1:])

    def take_dropped(self) -> Count:
        """Return the number of records dropped since the last call."""
        with self._guard:
            dropped = Count(self._dropped_points, *self._dropped_others[1:])
            self._dropped_points, self._dropped_others = 0, Count(0, 0)
            return dropped

    def append_points(self, framed: bytes, count: int) -> bool:
        """Append a record of points; return False, and count them as dropped, if there is no space."""
        with self._guard:
            kept = self._append(framed, always=False)
            if kept:
                self._points += count
            else:
                self._dropped_points += count
        if self._unreported_error:
            self._report_error()
        return kept

    def append(self, payload: bytes, content: Count) -> bool:
        """Append any other record, regardless of the disk limit; return False, and count it as dropped, if it fails."""
        with self._guard:
            kept = self._append(frame(payload), always=True)
            if kept:
                self._others = self._others.plus(content)
            else:
                self._dropped_others = self._dropped_others.plus(content)
        if self._unreported_error:
            self._report_error()
        return kept

    def recover(self) -> None:
        """Write the records in memory to the disk, if it has space again."""
        with self._guard:
            self._retry_at = 0.0
            if self._memory:
                self._prepare_file()
        self._report_error()

    def take_memory(self, max_bytes: int) -> bytes:
        """Take frames of about `max_bytes` bytes out of memory, if the disk still has no space for them."""
        with self._guard:
            if not self._memory or self._prepare_file():
                return b""
            taken = [self._memory.popleft()]
            size = len(taken[0])
            while self._memory and size + len(self._memory[0]) <= max_bytes:
                taken.append(self._memory.popleft())
                size += len(taken[-1])
            self._memory_used -= size
            return b"".join(taken)

    def close(self) -> Count:
        """Close the files, so that they may be removed after delivery.

        Returns:
            The number of lost records: those in memory that still do not fit on the disk.
        """
        self.recover()
        with self._guard:
            self.drop()
            lost = content_of(b"".join(self._memory))
            self._memory.clear()
            self._memory_used = 0
        return lost

    def drop(self) -> None:
        """Close the log in a forked process: the files stay with the parent, and its locks are not released here."""
        self._closed = True
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._file = self._lock = None

    def _append(self, data: bytes, *, always: bool) -> bool:
        if (self._memory or self._file is None or self._at >= self._segment_bytes) and not self._prepare_file():
            return self._append_at_limit(data, always=always)
        return self._write(data) or self._buffer(data, always=always)

    def _write(self, data: bytes) -> bool:
        file = self._file
        assert file is not None  # noqa: S101 - _prepare_file opened it
        try:
            written = os.write(file, data)
            if written != len(data):
                os.ftruncate(file, os.fstat(file).st_size - written)
                return self._fail("cannot write a whole record: the disk is full")
        except OSError as error:
            return self._fail(str(error))
        self._at += written
        return True

    def _prepare_file(self) -> bool:
        """Return whether the next record can go to the file; write the records in memory first."""
        if self._closed or self._journal is None or time.monotonic() < self._retry_at:
            return False
        try:
            if not self._roll(self._journal):
                return False
        except OSError as error:
            return self._fail(str(error))
        while self._memory:
            if not self._write(self._memory[0]):
                return False
            self._memory_used -= len(self._memory.popleft())
        self._reported_error = ""
        return True

    def _roll(self, journal: Journal) -> bool:
        if self._file is not None and self._at < self._segment_bytes:
            return True
        if self._segment == 0:
            self._prepare(journal)
        if bytes_below(journal.folder.parent, without=ARTIFACTS) + self._segment_bytes > self._disk_bytes:
            return self._fail(f"journal is full: the limit for a run is {self._disk_bytes} bytes")
        path = journal.folder / f"{self.name}.{self._segment + 1}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL | os.O_CLOEXEC
        before, self._file = self._file, os.open(path, flags, 0o600)
        self._segment, self._at = self._segment + 1, 0
        if before is not None:
            os.close(before)
        return True

    def _prepare(self, journal: Journal) -> None:
        journal.ensure()
        if self._lock is None:
            self._lock = acquire_lock(journal.segment_log_lock(self.name))
        if self._lock is None:
            raise BlockingIOError(
                errno.EAGAIN, f"segment log {self.name} is locked by another process", str(journal.folder)
            )
        # A process that removes an empty journal right now has seen the lock, or removed the journal before.
        journal.ensure()
        # Written now, while there is space: the file never grows.
        write_cursor(journal.cursor(self.name), Cursor())

    def _fail(self, error: str) -> bool:
        self._retry_at = time.monotonic() + _PAUSE
        if self._reported_error != error and not self._closed:
            self._reported_error = self._unreported_error = error
        return False

    def _report_error(self) -> None:
        # Outside the lock: the handler may log to this run, or wait for a thread that does.
        error, self._unreported_error = self._unreported_error, ""
        if error:
            self._warn(error)

    def _append_at_limit(self, data: bytes, *, always: bool) -> bool:
        if self._file is not None and not self._memory and self._at >= self._segment_bytes:
            return always and (self._write(data) or self._buffer(data, always=always))
        return self._buffer(data, always=always)

    def _buffer(self, data: bytes, *, always: bool) -> bool:
        limit = self._memory_bytes + (_RESERVE if always else 0)
        if self._closed or self._memory_used + len(data) > limit:
            return False
        self._memory.append(data)
        self._memory_used += len(data)
        return True
