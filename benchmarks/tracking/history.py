"""A metric of a hundred thousand points: all of them, and as a chart."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.harness.clients import connect
from benchmarks.harness.contract import Client, Endpoint
from benchmarks.harness.crew import crew
from benchmarks.harness.figures import Figure, latencies
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import OURS, PEERS, REST

POINTS = 100_000
INTERVALS = 320


def read(run_id: str, client: Client, number: int, call: int) -> None:
    """Read all points."""
    del number, call
    if (found := client.history(run_id, "loss")) != POINTS:
        raise AssertionError(found)


def draw(run_id: str, client: Client, number: int, call: int) -> None:
    """Read what a chart shows."""
    del number, call
    client.chart(run_id, "loss", INTERVALS)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one client, a peer's with immediate acknowledgements."""
    client = connect(endpoint.quickened())
    run_id = client.write_points("loss", POINTS)
    client.close()
    with crew(endpoint.quickened(), 1) as one:
        for line, task in (("all points", read), (f"in {INTERVALS} intervals", draw)):
            rounds = one.rounds(partial(task, run_id), options.seconds, options.rounds)
            yield from latencies("history", line, system, [each.durations for each in rounds])


SCENE = Scene("history", f"a metric of {POINTS:,} points read", (*OURS, REST, *PEERS), measure)
