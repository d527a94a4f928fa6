"""A receiver of webhooks that fails the first two tries of every fourth delivery."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from benchmarks.harness.clients import connect
from benchmarks.harness.contract import ALIAS, Endpoint
from benchmarks.harness.deliveries import verdict
from benchmarks.harness.figures import Figure
from benchmarks.harness.receiver import Receiver
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.hooks import moved_to, webhooks
from benchmarks.systems.names import OURS, PEERS

MOVES = 40
FAILS_EVERY, FAILED_TRIES = 4, 2
_MODEL = "flaky"
_PAUSE = 0.25  # seconds between two moves
_TIMEOUT_SECONDS = 60.0  # seconds


class Flaky:
    """The responses of the receiver."""

    def __init__(self) -> None:
        self._tries: Counter[int] = Counter()

    def __call__(self, path: str, body: Any) -> int:
        """Return the status of the response to a request."""
        del path
        number = moved_to(body)
        self._tries[number] += 1
        fails = number % FAILS_EVERY == 0 and self._tries[number] <= FAILED_TRIES
        return HTTPStatus.INTERNAL_SERVER_ERROR if fails else HTTPStatus.NO_CONTENT


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure the delivery order of moves to version 1, 2 and so on."""
    del options
    client = connect(endpoint.quickened())
    client.prepare(_MODEL, MOVES)
    with Receiver(Flaky()) as receiver, webhooks(endpoint, _MODEL, receiver):
        for number in range(1, MOVES + 1):
            client.move(_MODEL, ALIAS, number)
            time.sleep(_PAUSE)
        moved = time.perf_counter()
        receiver.wait_for(MOVES, _TIMEOUT_SECONDS)
        taken = receiver.accepted()
    client.close()
    yield from verdict("flaky", "webhook", system, MOVES, [moved_to(one.body) for one in taken])
    if len(taken) >= MOVES:
        yield Figure("flaky", "webhook", system, "s behind at the end", (max(0.0, taken[-1].time - moved),))


SCENE = Scene(
    "flaky",
    f"a receiver fails the first {FAILED_TRIES} tries of every {FAILS_EVERY}th of {MOVES} deliveries: what it is told",
    (OURS[0], PEERS[0]),
    measure,
)
