"""Warnings about a run, for its log and its program, at a limited rate."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import warnings
from typing import Final

# The minimum pause between two equal warnings, in seconds, and the number of warnings to remember.
_PAUSE: Final = 60.0
_MAX_MESSAGES: Final = 1_000

_logger: Final = logging.getLogger("rollforward")


class RunWarnings:
    """The warnings about one run; safe for use by many threads."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._last_warned: dict[str, float] = {}
        self._background: threading.Thread | None = None

    def log_only_from_this_thread(self) -> None:
        """Only log the warnings of the current thread: no call of the program causes them."""
        self._background = threading.current_thread()

    def warn(self, message: str, detail: str = "") -> None:
        """Log a message and warn the program of it, at most once a minute for the same `message`."""
        now = time.monotonic()
        if now - self._last_warned.get(message, -math.inf) < _PAUSE:
            return
        if len(self._last_warned) > _MAX_MESSAGES:
            self._last_warned.clear()
        self._last_warned[message] = now
        text = f"run {self._run_id}: {message}" + (f": {detail}" if detail else "")
        in_background = threading.current_thread() is self._background
        # Without a handler, logging prints the same text as the warning.
        if in_background or _logger.hasHandlers():
            _logger.warning("%s", text)
        if not in_background:
            # With warnings as errors, logging must still not raise.
            with contextlib.suppress(RuntimeWarning):
                warnings.warn(text, RuntimeWarning, stacklevel=4)
