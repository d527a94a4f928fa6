"""How far a strand of a journal was delivered, in a file that a crash leaves whole."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from rollforward._journal.records import Count

if TYPE_CHECKING:
    from pathlib import Path

# Number of the entry, place, end of the range under way, settled (3), refused (3), what else is so.
_ENTRY: Final = struct.Struct("<QIQQQQQQQQB")
_SUM: Final = struct.Struct("<I")
_SLOT_BYTES: Final = 128
_NOTHING: Final = Count(0, 0, 0)
_ENDED: Final = 1
_APART: Final = 2


class Place(NamedTuple):
    """A place in a strand."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a strand was delivered."""

    number: int = 0
    """Grows with every write."""
    place: Place = field(default=Place(1, 0))
    """Everything before it is settled: delivered, or refused for good."""
    pending: int = 0
    """Where the range of the batch under way ends, in the same segment; 0 when there is none."""
    settled: Count = _NOTHING
    refused: Count = _NOTHING
    """How much of what is settled the service refused."""
    ended: bool = False
    """Whether the run's end was delivered."""
    apart: bool = False
    """Whether the range under way is sent piece by piece."""

    def next(self, **changes: object) -> Cursor:
        """Return the cursor after a change."""
        return replace(self, number=self.number + 1, **changes)  # type: ignore[arg-type]


def read_cursor(path: Path) -> Cursor:
    """Return the last cursor that was written whole, or one at the beginning.

    Raises:
        OSError: See the message.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Cursor()
    found = [cursor for at in (0, _SLOT_BYTES) if (cursor := _unpack(data[at : at + _SLOT_BYTES])) is not None]
    return max(found, key=lambda cursor: cursor.number, default=Cursor())


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Write a cursor in place, beside the one before: a full disk cannot refuse it, a crash leaves one of them.

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
    counts = (*cursor.settled, *cursor.refused)
    flags = _ENDED * cursor.ended | _APART * cursor.apart
    data = _ENTRY.pack(cursor.number, *cursor.place, cursor.pending, *counts, flags)
    return data + _SUM.pack(crc32(data))


def _unpack(slot: bytes) -> Cursor | None:
    if len(slot) < _ENTRY.size + _SUM.size or crc32(slot[: _ENTRY.size]) != _SUM.unpack_from(slot, _ENTRY.size)[0]:
        return None
    number, segment, offset, pending, *counts, flags = _ENTRY.unpack_from(slot)
    settled, refused = Count(*counts[:3]), Count(*counts[3:])
    place = Place(segment, offset)
    return Cursor(number, place, pending, settled, refused, ended=bool(flags & _ENDED), apart=bool(flags & _APART))
