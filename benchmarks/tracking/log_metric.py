"""What a call that logs a metric costs the training loop that makes it, with the service up and with it down."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import rollforward as rf
from benchmarks.clients import Endpoint
from benchmarks.figures import Figure, percentile
from benchmarks.scene import Options, Scene
from benchmarks.systems.names import OURS, PEERS, TRACKIO
from benchmarks.systems.own_clients import own_client, trackio_log

CALLS = 20_000
_NOBODY = "127.0.0.1:9"


def measure(system: str, endpoint: Endpoint, options: Options) -> Iterator[Figure]:
    """Microseconds a call: ours in this process, a peer's client in its own."""
    with tempfile.TemporaryDirectory() as folder:
        if system == TRACKIO:
            rounds = [trackio_log(CALLS, Path(folder) / str(number)).durations for number in range(options.rounds)]
            yield from _microseconds("service up", system, rounds)
        elif system in PEERS:
            yield from _microseconds("service up", system, [own_client(endpoint, "metric", options.seconds).durations])
        else:
            os.environ["ROLLFORWARD_JOURNAL"] = folder
            rounds = [_logged(endpoint.address, offline=False) for _ in range(options.rounds)]
            yield from _microseconds("service up", system, rounds)
            yield from _microseconds("service down", system, [_logged(_NOBODY, True) for _ in range(options.rounds)])


def _logged(address: str, offline: bool) -> Sequence[float]:
    """How long each call took, in seconds."""
    durations: list[float] = []
    with rf.Connection(address, timeout=30.0) as connection:
        run = rf.start_run("bench", offline=offline, connection=connection)
        for step in range(CALLS):
            before = time.perf_counter()
            run.log_metric("loss", 0.5, step)
            durations.append(time.perf_counter() - before)
        run.finish()
    return durations


def _microseconds(line: str, system: str, rounds: Sequence[Sequence[float]]) -> Iterator[Figure]:
    for share in (50, 99):
        values = tuple(percentile(one, share / 100) * 1e6 for one in rounds)
        yield Figure("log_metric", line, system, f"p{share} us", values)


SCENE = Scene("log_metric", "one log_metric call, for the loop that makes it", (OURS[0], PEERS[0], TRACKIO), measure)
