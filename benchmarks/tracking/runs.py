"""Runs found by a metric: a page of the best hundred out of ten thousand, with all labels and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from benchmarks.harness.clients import connect
from benchmarks.harness.contract import Client, Endpoint
from benchmarks.harness.crew import crew
from benchmarks.harness.figures import Figure, calls
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import OURS, PEERS, REST

RUNS = 10_000
PAGE = 100
ABOVE = 0.9


def labels(number: int) -> tuple[Mapping[str, float], Mapping[str, str], Mapping[str, str]]:
    """Return five metrics, ten parameters and four tags, the same for the same number."""
    spread = (number * 7919 % RUNS) / RUNS
    metrics = {"acc": spread, **{f"metric_{n}": spread * n for n in range(4)}}
    params = {f"param_{n}": str(number % (n + 2)) for n in range(10)}
    return metrics, params, {f"tag_{n}": str(number % (n + 3)) for n in range(4)}


def ask(client: Client, number: int, call: int) -> None:
    """Read the best page of the runs above a value."""
    del number, call
    if (found := client.search("acc", ABOVE, PAGE)) != PAGE:
        raise AssertionError(found)


def write_data(count: int, client: Client, number: int, call: int) -> None:
    """Write a client's share of the runs in its first call."""
    if not call:
        share = RUNS // count
        client.write_runs(range(number * share, (number + 1) * share), labels)


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure one client."""
    if system in PEERS:
        connect(endpoint).write_runs(range(RUNS), labels)
    else:
        with crew(endpoint, 8) as several:
            several.round(partial(write_data, 8), 0.001)
    with crew(endpoint.quickened(), 1) as one:
        yield from calls("runs", "1 client", system, one.rounds(ask, options.seconds, options.rounds))


SCENE = Scene(
    "runs", f"the best {PAGE} of {RUNS:,} runs by a metric, with all that they have", (*OURS, REST, *PEERS), measure
)
