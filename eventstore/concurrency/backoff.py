"""Pauses between attempts that grow and are jittered, so that many who wait do not return at once."""

from __future__ import annotations

from random import SystemRandom

FIRST_SECONDS = 0.05
MAX_SECONDS = 1.0

_RANDOM = SystemRandom()


def pause_after(failures: int) -> float:
    """Return how many seconds to wait after so many failures in a row."""
    pause = min(FIRST_SECONDS * 2.0 ** min(max(failures - 1, 0), 30), MAX_SECONDS)
    return pause * _RANDOM.uniform(0.5, 1.0)
