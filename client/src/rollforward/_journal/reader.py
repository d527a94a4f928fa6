"""Reads what waits in a strand of a journal, a batch at a time, and remembers what became of it."""

from __future__ import annotations

import logging
import os
import uuid
from abc import abstractmethod
from typing import TYPE_CHECKING, Final, Protocol

from rollforward._journal.batches import BATCH_BYTES, Batch, content_of, read_batch
from rollforward._journal.cursor import Cursor, Place, read_cursor, write_cursor
from rollforward._journal.records import Call, Count, wanted
from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from rollforward._journal.batches import Step
    from rollforward._journal.directory import Journal
    from rollforward._journal.segment_writer import SegmentLog

_READ_BYTES: Final = 1024 * 1024
_NOTHING: Final = Count(0, 0)

_log: Final = logging.getLogger("rollforward")


class Source(Protocol):
    """Where batches come from."""

    done: int
    """How many steps of the batch under way were done."""
    tries: int
    """How often the step under way was tried."""

    @property
    @abstractmethod
    def apart(self) -> bool:
        """Whether the batch under way is sent piece by piece."""

    @abstractmethod
    def next(self) -> Batch | None:
        """Return the current batch, else a new one; None when nothing waits."""

    @abstractmethod
    def note(self, step: Step, refused: Count) -> None:
        """Note that a step of the current batch is done, except for what was rejected."""

    @abstractmethod
    def take_apart(self) -> None:
        """Note that the current batch is sent in parts from now on.

        A process that continues with it may not send it whole, because a part of it may be delivered by then.

        Raises:
            OSError: See the message.
        """

    @abstractmethod
    def settle(self) -> None:
        """All steps of the batch under way were noted. Raises OSError: then it may be called again."""


class Reader(Source):
    """A strand's files, from its cursor on. Only one at a time, by whoever has the journal locked."""

    def __init__(self, journal: Journal, segment_log: str) -> None:
        """Open a segment log for reading. Raises OSError."""
        self.segment_log = segment_log
        self.done = self.tries = 0
        self._journal = journal
        self._path = journal.cursor(segment_log)
        self.cursor = read_cursor(self._path)
        self._batch: Batch | None = None
        self._refused = _NOTHING
        self._ended = False

    @property
    def apart(self) -> bool:
        """See Source."""
        return self.cursor.apart

    def next(self) -> Batch | None:
        """See Source. The batch's range is written down before it is returned.

        Raises:
            OSError: See the message.
            InvalidRequest: INVALID_JOURNAL for what a later version of this library wrote.
        """
        while self._batch is None:
            # Looked up first: a segment that has a successor grows no more.
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

    def note(self, step: Step, refused: Count) -> None:
        """See Source."""
        self.done += 1
        self.tries = 0
        self._refused = self._refused.plus(refused)
        if not refused.total and isinstance(step.action, Call) and step.action.method == "FinishRun":
            self._ended = True

    def take_apart(self) -> None:
        """See Source."""
        self._write(self.cursor.next(apart=True))

    def is_through(self) -> bool:
        """Whether all is settled of a strand that nobody writes any more. Raises as next."""
        if self.next() is not None:
            return False
        if left := self.waiting_bytes():
            _log.warning("%s: its last %d bytes are no whole record", self._file(self.cursor.place.segment), left)
        return True

    def waiting_bytes(self) -> int:
        """How many bytes are not delivered."""
        place = self.cursor.place
        sizes = {number: path.stat().st_size for number, path in self._journal.segments(self.segment_log).items()}
        return max(0, sum(size for number, size in sizes.items() if number >= place.segment) - place.offset)

    def _file(self, segment: int) -> Path:
        return self._journal.folder / f"{self.segment_log}.{segment}"

    def _following(self) -> int | None:
        numbers = self._journal.segments(self.segment_log)
        return min((number for number in numbers if number > self.cursor.place.segment), default=None)

    def _read(self) -> bytes:
        place, pending = self.cursor.place, self.cursor.pending
        try:
            descriptor = os.open(self._file(place.segment), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            data = os.pread(descriptor, pending - place.offset if pending else _READ_BYTES, place.offset)
            if len(data) == _READ_BYTES < wanted(data):
                data = os.pread(descriptor, wanted(data), place.offset)
        finally:
            os.close(descriptor)
        return data

    def _parse(self, data: bytes) -> Batch | None:
        place = self.cursor.place
        seed = f"{self._journal.folder.name}/{self.segment_log}/{place.segment}/{place.offset}"
        whole = max(0, self.cursor.pending - place.offset)
        try:
            return read_batch(data, self._journal.head.run_id, seed, whole=whole)
        except ValueError as error:
            message = f"{self._file(place.segment)} cannot be read at {place.offset}: {error}"
            raise InvalidRequest("INVALID_JOURNAL", message, {"path": str(self._file(place.segment))}) from error

    def _begin(self, batch: Batch) -> None:
        # After a crash the same range is sent again, under the same request ids.
        if not self.cursor.pending:
            self._write(self.cursor.next(pending=self.cursor.place.offset + batch.end))
        self._batch = batch
        self.done = self.tries = 0
        self._refused = _NOTHING

    def settle(self) -> None:
        """See Source."""
        assert self._batch is not None  # noqa: S101 - there is none to settle otherwise
        content = _NOTHING
        for step in self._batch.steps:
            content = content.plus(step.content)
        now = self.cursor
        self._write(
            now.next(
                place=Place(now.place.segment, now.pending),
                pending=0,
                settled=now.settled.plus(content),
                refused=now.refused.plus(self._refused),
                ended=now.ended or self._ended,
                apart=False,
            )
        )
        self._batch = None

    def _advance(self, following: int, left: int) -> None:
        finished = self.cursor.place.segment
        if left:
            _log.warning("%s: %d damaged bytes were passed over", self._file(finished), left)
        self._write(self.cursor.next(place=Place(following, 0), pending=0, apart=False))
        self._file(finished).unlink(missing_ok=True)

    def _write(self, cursor: Cursor) -> None:
        write_cursor(self._path, cursor)
        self.cursor = cursor


class MemoryReader(Source):
    """What a strand could not bring to the disk: sent from memory, once, since no crash leaves it to be sent again."""

    def __init__(self, segment_log: SegmentLog, run_id: str) -> None:
        self.done = self.tries = 0
        self._apart = False
        self.settled = _NOTHING
        self._segment_log = segment_log
        self._run_id = run_id
        self._data = b""
        self._batch: Batch | None = None

    @property
    def apart(self) -> bool:
        """See Source."""
        return self._apart

    def next(self) -> Batch | None:
        """See Source."""
        if self._batch is None:
            self._data = self._data or self._segment_log.take_memory(BATCH_BYTES)
            self._batch = read_batch(self._data, self._run_id, uuid.uuid4().hex)
            self.done = self.tries = 0
        return self._batch

    def note(self, step: Step, refused: Count) -> None:  # noqa: ARG002 - it is counted as settled
        """See Source."""
        self.done += 1
        self.tries = 0
        self.settled = self.settled.plus(step.content)

    def take_apart(self) -> None:
        """See Source."""
        self._apart = True

    def settle(self) -> None:
        """See Source."""
        assert self._batch is not None  # noqa: S101 - there is none to settle otherwise
        self._data = self._data[self._batch.end :]
        self._batch = None
        self._apart = False

    @property
    def is_under_way(self) -> bool:
        """Whether something was taken out of the strand that is not delivered."""
        return bool(self._data)

    @property
    def taken(self) -> Count:
        """How much was taken out of the strand and is not delivered."""
        done = _NOTHING
        for step in self._batch.steps[: self.done] if self._batch else ():
            done = done.plus(step.content)
        return content_of(self._data).minus(done)
