"""Calls that log one metric point, by one client and by sixteen, and the server's cost of a call."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.contract import Client, Endpoint
from benchmarks.harness.crew import crew
from benchmarks.harness.figures import Figure, calls
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import LIMIT, PEERS, WRITERS
from benchmarks.systems.own_clients import own_client
from benchmarks.systems.processes import cpu_seconds
from benchmarks.tracking.rounds import measured

CROWD = 16


def log_one(client: Client, number: int, call: int) -> None:
    """Log one point of one metric."""
    del number, call
    client.log(1)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one client, then sixteen; of a peer also its own client, and one with immediate acknowledgements."""
    for clients in (1, CROWD):
        line = f"{clients} client{'s' * (clients > 1)}"
        with crew(endpoint, clients) as several:
            rounds, costs = measured(several, log_one, options, lambda: cpu_seconds(endpoint.pids))
            yield from calls("calls", line, system, rounds)
            if system != LIMIT:
                yield Figure("calls", line, system, "server CPU ms a call", tuple(cost * 1e3 for cost in costs))
    if system in PEERS:
        yield from calls("calls", "1 client, its own", system, [own_client(endpoint, "metric", options.seconds)])
        for clients in (1, CROWD):
            with crew(endpoint.quickened(), clients) as several:
                line = f"{clients} client{'s' * (clients > 1)}, quick ack"
                yield from calls("calls", line, system, several.rounds(log_one, options.seconds, options.rounds))


SCENE = Scene("calls", "calls that log one metric point, by 1 and by 16 clients", WRITERS, measure)
