"""The cost of a call that logs a metric for its training loop, with the service up and down."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import rollforward as rf
from benchmarks.harness.contract import Endpoint
from benchmarks.harness.figures import Figure, percentile
from benchmarks.harness.scene import Options, Scene
from benchmarks.systems.names import OURS, PEERS, TRACKIO
from benchmarks.systems.own_clients import own_client, trackio_log

CALLS = 20_000
_NOBODY = "127.0.0.1:9"


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Measure microseconds a call: ours in this process, a peer's client in its own."""
    with tempfile.TemporaryDirectory() as folder:
        if system == TRACKIO:
            rounds = [trackio_log(CALLS, Path(folder) / str(number)).durations for number in range(options.rounds)]
            yield from _microseconds("service up", system, rounds)
        elif system in PEERS:
            yield from _microseconds("service up", system, [own_client(endpoint, "metric", options.seconds).durations])
        else:
            os.environ["ROLLFORWARD_JOURNAL"] = folder
            rounds = [_logged(endpoint.address, 30.0) for _ in range(options.rounds)]
            yield from _microseconds("service up", system, rounds)
            yield from _microseconds("service down", system, [_logged(_NOBODY, 0.5) for _ in range(options.rounds)])


def _logged(address: str, timeout: float) -> Sequence[float]:
    """Return the seconds that each call took while the writer sends the points, or tries to."""
    durations: list[float] = []
    with warnings.catch_warnings(), rf.Client(address, timeout=timeout) as client:
        warnings.simplefilter("ignore", RuntimeWarning)  # that the service does not answer is meant
        with client.runs.start("bench") as run:
            for step in range(CALLS):
                before = time.perf_counter()
                run.log_metric("loss", 0.5, step)
                durations.append(time.perf_counter() - before)
    return durations


def _microseconds(line: str, system: str, rounds: Sequence[Sequence[float]]) -> Iterator[Figure]:
    for share in (50, 99):
        values = tuple(percentile(one, share / 100) * 1e6 for one in rounds)
        yield Figure("log_metric", line, system, f"p{share} us", values)


SCENE = Scene("log_metric", "one log_metric call, for the loop that makes it", (OURS[0], PEERS[0], TRACKIO), measure)
