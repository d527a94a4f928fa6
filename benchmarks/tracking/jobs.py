"""Complete training jobs, each a run with 10 parameters and 100 calls that log a metric."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.contract import Client, Endpoint
from benchmarks.harness.crew import crew
from benchmarks.harness.figures import Figure, calls
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import OURS, PEERS
from benchmarks.systems.own_clients import own_client
from benchmarks.systems.processes import memory_bytes

PARAMS = 10
METRICS = 100
MANY = 200


def train(client: Client, number: int, call: int) -> None:
    """Run one job."""
    del number, call
    client.job(PARAMS, METRICS)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one client and eight; of a peer also its own client; of ours two hundred at once."""
    for clients in (1, 8):
        with crew(endpoint, clients) as several:
            line = f"{clients} client{'s' * (clients > 1)}"
            yield from calls("jobs", line, system, several.rounds(train, options.seconds, options.rounds))
    if system in PEERS:
        yield from calls("jobs", "1 client, its own", system, [own_client(endpoint, "job", options.seconds)])
    else:
        with crew(endpoint, MANY, threads=50) as several:
            several.round(train, options.seconds)
            before = memory_bytes(endpoint.pids)
            rounds = [several.round(train, options.seconds) for _ in range(options.rounds)]
            yield from calls("jobs", f"{MANY} clients", system, rounds)
            grown = (memory_bytes(endpoint.pids) - before) / 2**20
            yield Figure("jobs", f"{MANY} clients", system, "MiB more memory", (grown,))


SCENE = Scene("jobs", f"training jobs of {PARAMS} parameters and {METRICS} metric calls each", (*OURS, *PEERS), measure)
