"""The time from the call of a move until a watcher, and until the last of two hundred, receives it.

A watcher is a gRPC stream of ours. MLflow has no streams: there it is a webhook, and the watcher a receiver.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from benchmarks.harness.clients import connect
from benchmarks.harness.contract import ALIAS, Endpoint
from benchmarks.harness.figures import Figure, latencies
from benchmarks.harness.receiver import Receiver
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.hooks import HookFollowers, webhooks
from benchmarks.systems.names import OURS, PEERS
from benchmarks.systems.streams import streams

MANY = 200
_MODEL = "watched"
_PAUSE = 0.02  # seconds between two moves
_LIMIT = 60.0  # seconds for a change to arrive


class Followers(Protocol):
    """The receivers of moves."""

    def received_at(self, seconds: float) -> list[float]:
        """Return when each watcher received the next change (time.perf_counter). Raises TimeoutError."""


@contextmanager
def _followers(endpoint: Endpoint, count: int) -> Iterator[Followers]:
    if endpoint.kind == "rollforward":
        with streams(endpoint.address, _MODEL, ALIAS, count) as watches:
            yield watches
    else:
        with Receiver() as receiver, webhooks(endpoint, _MODEL, receiver, count):
            yield HookFollowers(receiver, count)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one watcher, then many."""
    connect(endpoint).prepare(_MODEL, 2)
    versions = itertools.cycle((1, 2))
    for count in (1, MANY):
        line = f"{count} watcher{'s' * (count > 1)}"
        with _followers(endpoint, count) as followers:
            rounds = _rounds(endpoint, followers, versions, options)
        if count == 1:
            yield from latencies("watch", line, system, [[last for _, last in one] for one in rounds])
        else:
            yield from latencies(
                "watch", f"{line}, the middle one", system, [[mid for mid, _ in one] for one in rounds]
            )
            yield from latencies(
                "watch", f"{line}, the last one", system, [[last for _, last in one] for one in rounds]
            )


def _rounds(
    endpoint: Endpoint, followers: Followers, versions: Iterator[int], options: Options
) -> list[list[tuple[float, float]]]:
    """Return, for each move of each round, the seconds until the median and the last watcher received it."""
    client = connect(endpoint.quickened())

    def move() -> tuple[float, float]:
        time.sleep(_PAUSE)
        begun = time.perf_counter()
        client.move(_MODEL, ALIAS, next(versions))
        times = sorted(followers.received_at(_LIMIT))
        return times[len(times) // 2] - begun, times[-1] - begun

    rounds = []
    for seconds in (0.5, *[options.seconds] * options.rounds):  # the first does not count
        until = time.perf_counter() + seconds
        rounds.append([move()])
        while time.perf_counter() < until:
            rounds[-1].append(move())
    client.close()
    return rounds[1:]


SCENE = Scene("watch", "from a move until one watcher, and the last of 200, has it", (OURS[0], PEERS[0]), measure)
