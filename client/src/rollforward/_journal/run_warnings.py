"""Says what is wrong with a run: to its log and to its program, and not again and again."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import warnings
from typing import Final

# Between two times that the same thing is said, at least, in seconds; and of how many things that is known.
_PAUSE: Final = 60.0
_SAYINGS: Final = 1_000

_log: Final = logging.getLogger("rollforward")


class Complaints:
    """What is said of one run; safe for use by many threads."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._said: dict[str, float] = {}
        self._background: threading.Thread | None = None

    def only_log_here(self) -> None:
        """From now on what this thread says is logged and no warning: none of the program's calls is to blame."""
        self._background = threading.current_thread()

    def say(self, why: str, more: str = "") -> None:
        """Say something, the same `why` once a minute."""
        now = time.monotonic()
        if now - self._said.get(why, -math.inf) < _PAUSE:
            return
        if len(self._said) > _SAYINGS:
            self._said.clear()
        self._said[why] = now
        message = f"run {self._run_id}: {why}" + (f": {more}" if more else "")
        in_background = threading.current_thread() is self._background
        # Without a handler, logging prints what the warning prints, too.
        if in_background or _log.hasHandlers():
            _log.warning("%s", message)
        if not in_background:
            # Where warnings are errors, logging still raises none.
            with contextlib.suppress(RuntimeWarning):
                warnings.warn(message, RuntimeWarning, stacklevel=4)
