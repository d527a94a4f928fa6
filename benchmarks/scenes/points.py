"""Metric points logged by one client, one a call and a thousand a call."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.clients import Client, Endpoint
from benchmarks.crew import crew
from benchmarks.figures import Figure, calls
from benchmarks.scene import Options, Scene
from benchmarks.systems.names import LIMIT, OURS, PEERS

MANY = 1000


def log(points: int, client: Client, number: int, call: int) -> None:
    """So many points of one metric."""
    del number, call
    client.log(points)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Calls a second; for a thousand points each is a thousand points."""
    with crew(endpoint.quickened(), 1) as one:
        for points in (1, MANY):
            line = f"{points:,} point{'s' * (points > 1)} a call"
            rounds = one.rounds(partial(log, points), options.seconds, options.rounds)
            yield from calls("points", line, system, rounds)


SCENE = Scene("points", f"calls that log 1 and {MANY:,} metric points", (LIMIT, OURS[0], PEERS[0]), measure)
