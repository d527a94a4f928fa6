"""One request of a client: retried until it is answered, unless the client gives up."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rollforward import Client, RollforwardError, Unavailable
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN
from tests.timeouts import scaled

TIMEOUTS = (0.2, 1.0, 5.0)  # seconds
GIVE_UP = 0.3
"""The probability that a client gives up after an attempt without a response."""
LIMIT_SECONDS = scaled(20.0)
FAILED = "PROJECTION_FAILED"


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a request; `returned` (monotonic nanoseconds) is None without a response."""

    outcome: str = UNKNOWN
    returned: int | None = None
    response: Any = None
    error: RollforwardError | None = None

    @property
    def reason(self) -> str:
        """Return why the request was rejected; empty when it was not."""
        return self.error.reason if self.error else ""


def send(
    client: Callable[[], Client],
    method: Callable[[Client], Any],
    request: Any,
    dice: random.Random,
    stopping: threading.Event,
) -> Answer:
    """Send a request until it is answered or given up; each attempt is over a connection that `link` names."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        connection = client()
        try:
            response = connection.connection.call(method(connection), request, timeout=dice.choice(TIMEOUTS))
        except Unavailable as error:
            if error.reason == FAILED:
                return Answer(error=error)
            if stopping.is_set() or dice.random() < GIVE_UP or time.monotonic() > deadline:
                return Answer()
        except RollforwardError as error:
            return Answer(REFUSED, time.monotonic_ns(), error=error)
        else:
            return Answer(OK, time.monotonic_ns(), response)
