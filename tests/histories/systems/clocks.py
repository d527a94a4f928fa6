"""Wall clocks of services and clients that can be set; the monotonic clock stays, as when NTP steps a clock.

libfaketime would do for services too, but its timed waits keep a core busy.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path

CLOCK = "ROLLFORWARD_TEST_CLOCK"
_OFFSET = struct.Struct("<d")


class ClientClock:
    """The wall clock of the checker's own clients."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time_ns(self) -> int:
        """Return the time that the clients believe in, in nanoseconds since 1970."""
        return time.time_ns() + round(self.offset * 1e9)


class ProcessClock:
    """The wall clock of a process that is started with its `environment` and calls `follow_clock`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.write_bytes(_OFFSET.pack(0.0))

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables that make a process read this clock."""
        return {CLOCK: str(self._path)}

    def set(self, offset: float) -> None:
        """Set the clock so many seconds ahead of the machine's, or behind it."""
        with self._path.open("r+b") as file:
            file.write(_OFFSET.pack(offset))


def follow_clock() -> None:
    """Make this process read the wall clock that its environment names, whoever asks for the time."""
    path = os.environ.get(CLOCK)
    if path is None:
        return
    with Path(path).open("rb") as file:
        memory = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    seconds, nanoseconds = time.time, time.time_ns

    def offset() -> float:
        return float(_OFFSET.unpack_from(memory)[0])

    time.time = lambda: seconds() + offset()
    time.time_ns = lambda: nanoseconds() + round(offset() * 1e9)
