"""The delivery cursor of a segment log, in a file that survives a crash."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from rollforward._journal.records import Count

if TYPE_CHECKING:
    from pathlib import Path

# Number of the entry, position (2), end of the current range, settled (3), rejected (3), flags.
_ENTRY: Final = struct.Struct("<QIQQQQQQQQB")
_SUM: Final = struct.Struct("<I")
_SLOT_BYTES: Final = 128
_NOTHING: Final = Count(0, 0, 0)
_ENDED: Final = 1
_SPLIT: Final = 2


class Position(NamedTuple):
    """A position in a segment log."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The state of a segment log's delivery."""

    number: int = 0
    """Grows with every write."""
    position: Position = field(default=Position(1, 0))
    """Everything before it is settled: delivered, or permanently rejected."""
    pending: int = 0
    """The end of the current batch's range, in the same segment; 0 when there is none."""
    settled: Count = _NOTHING
    rejected: Count = _NOTHING
    """How many of the settled records the service rejected."""
    ended: bool = False
    """Whether the run's end was delivered."""
    split: bool = False
    """Whether the current range is sent in parts."""

    def next(self, **changes: object) -> Cursor:
        """Return the next cursor, with these fields changed."""
        return replace(self, number=self.number + 1, **changes)  # type: ignore[arg-type]


def read_cursor(path: Path) -> Cursor:
    """Return the last completely written cursor; a new one if there is none.

    Raises:
        OSError: See the message.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Cursor()
    cursors = [cursor for at in (0, _SLOT_BYTES) if (cursor := _unpack(data[at : at + _SLOT_BYTES])) is not None]
    return max(cursors, key=lambda cursor: cursor.number, default=Cursor())


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Write a cursor into the slot that does not hold the previous one.

    Writing in place needs no disk space, and a crash leaves at least one of the two slots intact.

    Raises:
        OSError: See the message.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < 2 * _SLOT_BYTES:
            os.pwrite(descriptor, bytes(2 * _SLOT_BYTES), 0)
        os.pwrite(descriptor, _pack(cursor), cursor.number % 2 * _SLOT_BYTES)
    finally:
        os.close(descriptor)


def _pack(cursor: Cursor) -> bytes:
    counts = (*cursor.settled, *cursor.rejected)
    flags = _ENDED * cursor.ended | _SPLIT * cursor.split
    data = _ENTRY.pack(cursor.number, *cursor.position, cursor.pending, *counts, flags)
    return data + _SUM.pack(crc32(data))


def _unpack(slot: bytes) -> Cursor | None:
    if len(slot) < _ENTRY.size + _SUM.size or crc32(slot[: _ENTRY.size]) != _SUM.unpack_from(slot, _ENTRY.size)[0]:
        return None
    number, segment, offset, pending, *counts, flags = _ENTRY.unpack_from(slot)
    settled, rejected = Count(*counts[:3]), Count(*counts[3:])
    position = Position(segment, offset)
    return Cursor(number, position, pending, settled, rejected, ended=bool(flags & _ENDED), split=bool(flags & _SPLIT))
