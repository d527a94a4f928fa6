"""The one place for how long tests wait: limits that only a broken test reaches, all scaled by one variable.

A limit says when to stop waiting for what will not come. It is never part of what a test asserts. On a busy machine,
set ROLLFORWARD_TEST_TIMEOUT_SCALE, as `make test-busy` does.
"""

from __future__ import annotations

import os
from typing import Final

SCALE: Final = float(os.environ.get("ROLLFORWARD_TEST_TIMEOUT_SCALE", "1"))


def scaled(seconds: float) -> float:
    """Return a limit in seconds, as many times longer as the machine is said to be slower."""
    return seconds * SCALE


LIMIT: Final = scaled(30.0)
"""For a wait inside a test when nothing speaks for another limit, in seconds."""
