"""The time limits of tests, which only a broken test reaches, all scaled by one variable.

A limit ends a wait that cannot succeed. It is never part of what a test asserts. On a busy machine,
set ROLLFORWARD_TEST_TIMEOUT_SCALE, as `make test-busy` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

SCALE: Final = float(os.environ.get("ROLLFORWARD_TEST_TIMEOUT_SCALE", "1"))


def scaled(seconds: float) -> float:
    """Return a limit in seconds, as many times longer as the machine is said to be slower."""
    return seconds * SCALE


LIMIT: Final = scaled(30.0)
"""The default limit of a wait inside a test, in seconds."""


def in_time(attempt: Callable[[float], T | None], seconds: float = 0.5) -> T:
    """Return what an attempt that has so many seconds comes to; it has twice as many each time that it was too slow.

    For what has to be done before a moment that the test names itself.

    Args:
        attempt: Is given the seconds; returns None when it was too slow.
        seconds: How many the first attempt has.
    """
    while (done := attempt(seconds)) is None:
        seconds *= 2
    return done
