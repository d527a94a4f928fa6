"""Metric points logged a thousand a call, by one client and by eight."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.clients import Client, Endpoint
from benchmarks.crew import crew
from benchmarks.figures import Figure
from benchmarks.scene import Options, Scene
from benchmarks.systems.names import PEERS, SERVERS

POINTS = 1000
CROWD = 8


def log_many(client: Client, number: int, call: int) -> None:
    """A thousand points of one metric."""
    del number, call
    client.log(POINTS)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Points a second; those of a peer with acknowledgements at once, which is the faster way."""
    endpoint = endpoint.quickened() if system in PEERS else endpoint
    for clients in (1, CROWD):
        with crew(endpoint, clients) as several:
            rounds = several.rounds(log_many, options.seconds, options.rounds)
        line = f"{clients} client{'s' * (clients > 1)}"
        yield Figure("batches", line, system, "points/s", tuple(one.rate * POINTS for one in rounds))


SCENE = Scene("batches", f"metric points in calls of {POINTS:,}, by 1 and by {CROWD} clients", SERVERS, measure)
