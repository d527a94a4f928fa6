"""Readers of a journal: they return batches of undelivered records, and keep track of what was delivered."""

from __future__ import annotations

import logging
import os
import uuid
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, Protocol

from rollforward._journal.batches import BATCH_BYTES, Batch, content_of, read_batch
from rollforward._journal.cursor import Cursor, Position, read_cursor, write_cursor
from rollforward._journal.records import Call, Count, first_frame_bytes
from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from rollforward._journal.batches import DeliveryStep
    from rollforward._journal.directory import Journal
    from rollforward._journal.segment_writer import SegmentLog

_READ_BYTES: Final = 1024 * 1024
_NOTHING: Final = Count(0, 0)

_logger: Final = logging.getLogger("rollforward")


class Source(Protocol):
    """A source of batches."""

    done: int
    """The number of steps of the current batch that are done."""
    tries: int
    """The number of attempts at the current step."""

    @property
    @abstractmethod
    def is_split(self) -> bool:
        """Whether the current batch is sent in parts."""

    @abstractmethod
    def next(self) -> Batch | None:
        """Return the current batch, else a new one; None if no records are left."""

    @abstractmethod
    def note(self, step: DeliveryStep, rejected: Count) -> None:
        """Note that a step of the current batch is done, except for the `rejected` records."""

    @abstractmethod
    def mark_split(self) -> None:
        """Note that the current batch is sent in parts from now on.

        A process that resumes the batch must not send it whole: a part of it may be delivered already.

        Raises:
            OSError: See the message.
        """

    @abstractmethod
    def settle(self) -> None:
        """Finish the current batch, after all of its steps are noted.

        Raises:
            OSError: See the message; the call may be repeated.
        """


class Reader(Source):
    """A reader of a segment log's files, from its cursor on.

    Only the process that locked the journal may read, and with one reader at a time.
    """

    def __init__(self, journal: Journal, segment_log: str) -> None:
        """Open a segment log for reading.

        Raises:
            OSError: See the message.
        """
        self.segment_log = segment_log
        self.done = self.tries = 0
        self._journal = journal
        self._path = journal.cursor(segment_log)
        self.cursor = read_cursor(self._path)
        self._batch: Batch | None = None
        self._rejected = _NOTHING
        self._ended = False

    @property
    def is_split(self) -> bool:
        """See Source."""
        return self.cursor.split

    def next(self) -> Batch | None:
        """See Source. The batch's range is written down before it is returned.

        Raises:
            OSError: See the message.
            InvalidRequest: INVALID_JOURNAL if a later version of this library wrote the records.
        """
        while self._batch is None:
            # Before reading: a segment that has a successor no longer grows.
            following = self._following()
            data = self._read()
            batch = self._parse(data)
            if batch is not None:
                self._begin(batch)
            elif following is None:
                return None
            else:
                self._advance(following, len(data))
        return self._batch

    def note(self, step: DeliveryStep, rejected: Count) -> None:
        """See Source."""
        self.done += 1
        self.tries = 0
        self._rejected = self._rejected.plus(rejected)
        if not rejected.total and isinstance(step.action, Call) and step.action.method == "FinishRun":
            self._ended = True

    def mark_split(self) -> None:
        """See Source."""
        self._write(self.cursor.next(split=True))

    def is_exhausted(self) -> bool:
        """Return whether all records are settled of a segment log that no process writes to.

        Raises as next.
        """
        if self.next() is not None:
            return False
        if left := self.waiting_bytes():
            path = self._file(self.cursor.position.segment)
            _logger.warning("incomplete record at the end of a segment, path=%s, bytes=%d", path, left)
        return True

    def waiting_bytes(self) -> int:
        """Return the size of the undelivered records, in bytes."""
        position = self.cursor.position
        sizes = {number: path.stat().st_size for number, path in self._journal.segments(self.segment_log).items()}
        return max(0, sum(size for number, size in sizes.items() if number >= position.segment) - position.offset)

    def _file(self, segment: int) -> Path:
        return self._journal.folder / f"{self.segment_log}.{segment}"

    def _following(self) -> int | None:
        numbers = self._journal.segments(self.segment_log)
        return min((number for number in numbers if number > self.cursor.position.segment), default=None)

    def _read(self) -> bytes:
        position, pending = self.cursor.position, self.cursor.pending
        try:
            descriptor = os.open(self._file(position.segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            data = os.pread(descriptor, pending - position.offset if pending else _READ_BYTES, position.offset)
            if len(data) == _READ_BYTES < first_frame_bytes(data):
                data = os.pread(descriptor, first_frame_bytes(data), position.offset)
        finally:
            os.close(descriptor)
        return data

    def _parse(self, data: bytes) -> Batch | None:
        position = self.cursor.position
        seed = f"{self._journal.folder.name}/{self.segment_log}/{position.segment}/{position.offset}"
        fixed_bytes = max(0, self.cursor.pending - position.offset)
        try:
            return read_batch(data, self._journal.head.run_id, seed, fixed_bytes=fixed_bytes)
        except ValueError as error:
            message = f"cannot read {self._file(position.segment)} at byte {position.offset}: {error}"
            raise InvalidRequest("INVALID_JOURNAL", message, {"path": str(self._file(position.segment))}) from error

    def _begin(self, batch: Batch) -> None:
        # After a crash the same range is sent again, with the same request ids.
        if not self.cursor.pending:
            self._write(self.cursor.next(pending=self.cursor.position.offset + batch.end))
        self._batch = batch
        self.done = self.tries = 0
        self._rejected = _NOTHING

    def settle(self) -> None:
        """See Source."""
        assert self._batch is not None  # noqa: S101 - only a batch is settled
        content = _NOTHING
        for step in self._batch.steps:
            content = content.plus(step.content)
        now = self.cursor
        self._write(
            now.next(
                position=Position(now.position.segment, now.pending),
                pending=0,
                settled=now.settled.plus(content),
                rejected=now.rejected.plus(self._rejected),
                ended=now.ended or self._ended,
                split=False,
            )
        )
        self._batch = None

    def _advance(self, following: int, left: int) -> None:
        finished = self.cursor.position.segment
        if left:
            _logger.warning("skipped damaged bytes in a segment, path=%s, bytes=%d", self._file(finished), left)
        self._write(self.cursor.next(position=Position(following, 0), pending=0, split=False))
        self._file(finished).unlink(missing_ok=True)

    def _write(self, cursor: Cursor) -> None:
        write_cursor(self._path, cursor)
        self.cursor = cursor


class MemoryReader(Source):
    """A reader of the records that did not fit on the disk.

    They are sent from memory, and never again after a crash, because a crash loses them.
    """

    def __init__(self, segment_log: SegmentLog, run_id: str) -> None:
        self.done = self.tries = 0
        self._is_split = False
        self.settled = _NOTHING
        self._segment_log = segment_log
        self._run_id = run_id
        self._data = b""
        self._batch: Batch | None = None

    @property
    def is_split(self) -> bool:
        """See Source."""
        return self._is_split

    def next(self) -> Batch | None:
        """See Source."""
        if self._batch is None:
            self._data = self._data or self._segment_log.take_memory(BATCH_BYTES)
            self._batch = read_batch(self._data, self._run_id, uuid.uuid4().hex)
            self.done = self.tries = 0
        return self._batch

    def note(self, step: DeliveryStep, rejected: Count) -> None:  # noqa: ARG002 - it is counted as settled
        """See Source."""
        self.done += 1
        self.tries = 0
        self.settled = self.settled.plus(step.content)

    def mark_split(self) -> None:
        """See Source."""
        self._is_split = True

    def settle(self) -> None:
        """See Source."""
        assert self._batch is not None  # noqa: S101 - only a batch is settled
        self._data = self._data[self._batch.end :]
        self._batch = None
        self._is_split = False

    @property
    def has_unsent(self) -> bool:
        """Whether records were taken out of memory and not delivered."""
        return bool(self._data)

    @property
    def taken(self) -> Count:
        """The number of records that were taken out of memory and not delivered."""
        done = _NOTHING
        for step in self._batch.steps[: self.done] if self._batch else ():
            done = done.plus(step.content)
        return content_of(self._data).minus(done)
