"""Appends what one process logs to its files in a journal; a full disk is bridged in memory."""

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
from rollforward._journal.directory import ARTIFACTS, FIRST_STRAND, Journal, bytes_below, take_lock
from rollforward._journal.records import Count, frame

if TYPE_CHECKING:
    from collections.abc import Callable

DISK_BYTES: Final = 1024 * 1024 * 1024
MEMORY_BYTES: Final = 16 * 1024 * 1024
SEGMENT_BYTES: Final = 4 * 1024 * 1024
# What points leave free for all else, such as the run's end, in bytes.
_RESERVE: Final = 1024 * 1024
# How long a full disk, or a full journal, is left alone, in seconds.
_PAUSE: Final = 0.5

_log: Final = logging.getLogger("rollforward")


class SegmentLog:
    """One process's part of a journal; safe for use by many threads, and by signal handlers.

    A record is handed to the operating system before append returns: it survives the end of the process, however it
    ends, but not that of the machine. Nothing here raises for a disk that is full or gone.
    """

    def __init__(
        self,
        journal: Journal | None,
        *,
        name: str = FIRST_STRAND,
        disk_bytes: int = DISK_BYTES,
        memory_bytes: int = MEMORY_BYTES,
        complain: Callable[[str], None] = _log.warning,
    ) -> None:
        """Begin. Without a journal all stays in memory. `disk_bytes` is for all journals of the run together."""
        self.name = name
        self._journal = journal
        self._disk_bytes = disk_bytes
        self._memory_bytes = memory_bytes
        self._segment_bytes = max(4096, min(SEGMENT_BYTES, disk_bytes // 8))
        self._complain = complain
        self._guard = threading.RLock()
        self._lock: int | None = None
        self._file: int | None = None
        self._segment = self._at = 0
        self._memory: deque[bytes] = deque()
        self._in_memory = 0
        self._again = 0.0
        self._told = self._trouble = ""
        self._closed = False
        self._points = self._dropped_points = 0
        self._others = self._dropped_others = Count(0, 0)

    @property
    def kept(self) -> Count:
        """How much was appended and found room."""
        with self._guard:
            return Count(self._points, *self._others[1:])

    def take_dropped(self) -> Count:
        """How much found no room since this was asked last."""
        with self._guard:
            dropped = Count(self._dropped_points, *self._dropped_others[1:])
            self._dropped_points, self._dropped_others = 0, Count(0, 0)
            return dropped

    def append_points(self, framed: bytes, count: int) -> bool:
        """Keep a record of points; False, and they are counted, when there is no room for it."""
        with self._guard:
            kept = self._append(framed, always=False)
            if kept:
                self._points += count
            else:
                self._dropped_points += count
        if self._trouble:
            self._tell()
        return kept

    def append(self, payload: bytes, content: Count) -> bool:
        """Keep a record of something else, for which the limit of the disk does not count; False as append_points."""
        with self._guard:
            kept = self._append(frame(payload), always=True)
            if kept:
                self._others = self._others.plus(content)
            else:
                self._dropped_others = self._dropped_others.plus(content)
        if self._trouble:
            self._tell()
        return kept

    def recover(self) -> None:
        """Bring what is in memory to the disk, if it has space again."""
        with self._guard:
            self._again = 0.0
            if self._memory:
                self._make_way()
        self._tell()

    def take_memory(self, most: int) -> bytes:
        """Take frames of about `most` bytes out of memory, when the disk still has no space for them."""
        with self._guard:
            if not self._memory or self._make_way():
                return b""
            taken = [self._memory.popleft()]
            size = len(taken[0])
            while self._memory and size + len(self._memory[0]) <= most:
                taken.append(self._memory.popleft())
                size += len(taken[-1])
            self._in_memory -= size
            return b"".join(taken)

    def close(self) -> Count:
        """Let go of the files; whoever finds them may remove them once they are delivered.

        Returns how much is lost: what was in memory and does not fit on the disk now either.
        """
        self.recover()
        with self._guard:
            self.drop()
            lost = content_of(b"".join(self._memory))
            self._memory.clear()
            self._in_memory = 0
        return lost

    def drop(self) -> None:
        """Close, in a forked process: the files stay the parent's, and nobody is left to release a lock here."""
        self._closed = True
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._file = self._lock = None

    def _append(self, data: bytes, *, always: bool) -> bool:
        if (self._memory or self._file is None or self._at >= self._segment_bytes) and not self._make_way():
            return self._at_the_limit(data, always=always)
        return self._write(data) or self._remember(data, always=always)

    def _write(self, data: bytes) -> bool:
        file = self._file
        assert file is not None  # noqa: S101 - _make_way has seen to it
        try:
            written = os.write(file, data)
            if written != len(data):
                os.ftruncate(file, os.fstat(file).st_size - written)
                return self._fail("the disk took a part of a record only")
        except OSError as error:
            return self._fail(str(error))
        self._at += written
        return True

    def _make_way(self) -> bool:
        """Whether the next record can be written to the file, with all that waits in memory before it."""
        if self._closed or self._journal is None or time.monotonic() < self._again:
            return False
        try:
            if not self._roll(self._journal):
                return False
        except OSError as error:
            return self._fail(str(error))
        while self._memory:
            if not self._write(self._memory[0]):
                return False
            self._in_memory -= len(self._memory.popleft())
        self._told = ""
        return True

    def _roll(self, journal: Journal) -> bool:
        if self._file is not None and self._at < self._segment_bytes:
            return True
        if self._segment == 0:
            self._prepare(journal)
        if bytes_below(journal.folder.parent, without=ARTIFACTS) + self._segment_bytes > self._disk_bytes:
            return self._fail(f"the journal of the run has reached its limit of {self._disk_bytes} bytes")
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
            self._lock = take_lock(journal.strand_lock(self.name))
        if self._lock is None:
            raise BlockingIOError(errno.EAGAIN, f"strand {self.name} is another's", str(journal.folder))
        # Whoever removed an empty journal in this moment sees the lock, or did so before.
        journal.ensure()
        # Now, while there is space: it is never written longer than it is.
        write_cursor(journal.cursor(self.name), Cursor())

    def _fail(self, why: str) -> bool:
        self._again = time.monotonic() + _PAUSE
        if self._told != why and not self._closed:
            self._told = self._trouble = why
        return False

    def _tell(self) -> None:
        # Not under the lock: who listens may log himself, or wait for somebody who does.
        trouble, self._trouble = self._trouble, ""
        if trouble:
            self._complain(trouble)

    def _at_the_limit(self, data: bytes, *, always: bool) -> bool:
        if self._file is not None and not self._memory and self._at >= self._segment_bytes:
            return always and (self._write(data) or self._remember(data, always=always))
        return self._remember(data, always=always)

    def _remember(self, data: bytes, *, always: bool) -> bool:
        most = self._memory_bytes + (_RESERVE if always else 0)
        if self._closed or self._in_memory + len(data) > most:
            return False
        self._memory.append(data)
        self._in_memory += len(data)
        return True
