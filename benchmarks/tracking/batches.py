"""Metric points logged a thousand, and ten thousand, a call, by one client and by eight."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.harness.contract import Client, Endpoint
from benchmarks.harness.crew import crew
from benchmarks.harness.figures import Figure
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import PEERS, REST, WRITERS

POINTS, MORE_POINTS = 1_000, 10_000
CROWD = 8


def log_many(points: int, client: Client, number: int, call: int) -> None:
    """Log a number of points of one metric."""
    del number, call
    client.log(points)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure points a second; a peer's with immediate acknowledgements, which is its faster way."""
    endpoint = endpoint.quickened() if system in PEERS else endpoint
    # MLflow's API takes no more than a thousand a call.
    for points in (POINTS,) if system in (REST, *PEERS) else (POINTS, MORE_POINTS):
        for clients in (1, CROWD):
            with crew(endpoint, clients) as several:
                rounds = several.rounds(partial(log_many, points), options.seconds, options.rounds)
            line = f"{points:,} a call, {clients} client{'s' * (clients > 1)}"
            yield Figure("batches", line, system, "points/s", tuple(one.rate * points for one in rounds))


SCENE = Scene("batches", f"metric points in calls of {POINTS:,} and {MORE_POINTS:,}", WRITERS, measure)
