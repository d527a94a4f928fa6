"""Pauses between attempts: exponential, with full jitter, within a deadline."""

import math
import random
import time
from typing import Final

# The system's source: a forked process does not repeat its parent's pauses.
_RANDOM: Final = random.SystemRandom()


class Backoff:
    """Times the attempts of one piece of work that may take `seconds` in all (infinite: for ever)."""

    def __init__(self, seconds: float = math.inf, *, first: float = 0.05, longest: float = 1.0) -> None:
        self._deadline = time.monotonic() + seconds
        self._first = first
        self._longest = longest
        self._ceiling = first

    def remaining(self) -> float | None:
        """Seconds left, never below 1 ms; None when there is no deadline. Made for a call's timeout."""
        return None if math.isinf(self._deadline) else max(0.001, self._deadline - time.monotonic())

    def next_pause(self) -> float | None:
        """Seconds to wait before the next attempt; None when that would be past the deadline."""
        pause = _RANDOM.uniform(0, self._ceiling)
        self._ceiling = min(self._ceiling * 2, self._longest)
        return pause if time.monotonic() + pause < self._deadline else None

    def pause(self) -> bool:
        """Wait before the next attempt; False, at once, when there is no time for one."""
        seconds = self.next_pause()
        if seconds is None:
            return False
        time.sleep(seconds)
        return True

    def reset(self) -> None:
        """Begin with short pauses again: an attempt got somewhere."""
        self._ceiling = self._first
