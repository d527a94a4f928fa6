"""Alias moves a second, by one client and by sixteen, each of a model of its own."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.clients import connect
from benchmarks.harness.contract import ALIAS, Client, Endpoint
from benchmarks.harness.crew import crew
from benchmarks.harness.figures import Figure, calls
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import PEERS, WRITERS

CROWD = 16


def move(client: Client, number: int, call: int) -> None:
    """Move the alias, to another version in every call."""
    client.move(f"moved-{number}", ALIAS, 1 + call % 2)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one client, then sixteen; one client of a peer also with immediate acknowledgements."""
    client = connect(endpoint)
    for number in range(CROWD):
        client.prepare(f"moved-{number}", 2)
    client.close()
    for clients in (1, CROWD):
        line = f"{clients} client{'s' * (clients > 1)}"
        with crew(endpoint, clients) as several:
            yield from calls("moves", line, system, several.rounds(move, options.seconds, options.rounds))
    if system in PEERS:
        with crew(endpoint.quickened(), 1) as one:
            yield from calls("moves", "1 client, quick ack", system, one.rounds(move, options.seconds, options.rounds))


SCENE = Scene("moves", "alias moves with 1 and with 16 clients", WRITERS, measure)
