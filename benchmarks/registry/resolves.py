"""Alias resolves a second, by one client and by sixteen."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.clients import connect
from benchmarks.harness.contract import ALIAS, Client, Endpoint
from benchmarks.harness.crew import crew
from benchmarks.harness.figures import Figure, calls
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import PEERS, SERVERS

CROWD = 16


def resolve(client: Client, number: int, call: int) -> None:
    """Ask about one's own model."""
    del call
    client.resolve(f"resolved-{number}", ALIAS)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one client, then sixteen; one client of a peer also with immediate acknowledgements."""
    client = connect(endpoint)
    for number in range(CROWD):
        client.prepare(f"resolved-{number}", 1)
        client.move(f"resolved-{number}", ALIAS, 1)
    client.close()
    for clients in (1, CROWD):
        line = f"{clients} client{'s' * (clients > 1)}"
        with crew(endpoint, clients) as several:
            yield from calls("resolves", line, system, several.rounds(resolve, options.seconds, options.rounds))
    if system in PEERS:
        with crew(endpoint.quickened(), 1) as one:
            rounds = one.rounds(resolve, options.seconds, options.rounds)
            yield from calls("resolves", "1 client, quick ack", system, rounds)


SCENE = Scene("resolves", "which version an alias names, asked by 1 and by 16 clients", SERVERS, measure)
