"""Pauses between attempts: exponential, with full jitter, within a deadline."""

import math
import random
import time
from typing import Final

# The system's source: a forked process must not repeat its parent's pauses.
_RANDOM: Final = random.SystemRandom()


class Backoff:
    """The pauses between attempts that may take `seconds` in all; by default there is no limit."""

    def __init__(self, seconds: float = math.inf, *, first: float = 0.05, max_pause: float = 1.0) -> None:
        self._deadline = time.monotonic() + seconds
        self._first = first
        self._max_pause = max_pause
        self._ceiling = first

    def remaining(self) -> float | None:
        """Return the seconds left, at least 0.001, as the timeout of a call; None without a deadline."""
        return None if math.isinf(self._deadline) else max(0.001, self._deadline - time.monotonic())

    def next_pause(self) -> float | None:
        """Return the seconds to wait before the next attempt; None if that is past the deadline."""
        pause = _RANDOM.uniform(0, self._ceiling)
        self._ceiling = min(self._ceiling * 2, self._max_pause)
        return pause if time.monotonic() + pause < self._deadline else None

    def pause(self) -> bool:
        """Wait before the next attempt; return False at once if there is no time for one."""
        seconds = self.next_pause()
        if seconds is None:
            return False
        time.sleep(seconds)
        return True

    def reset(self) -> None:
        """Start again with short pauses, after progress."""
        self._ceiling = self._first
