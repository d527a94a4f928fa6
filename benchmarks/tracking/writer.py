"""Measure the cost of logging for a training loop, call by call, and the speed of delivery.

    python -m benchmarks.tracking.writer --calls 20000 --points 500000

The service runs beside the loop, on the same cores. "Away" is a service that does not answer while the writer goes on
trying. The reference is the bare append of as many bytes to a file.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import resource
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rollforward as rf
from benchmarks.harness.figures import percentile
from benchmarks.systems.ours import running

NOBODY = "127.0.0.1:9"
WORK = bytes(2**20)  # what a loop that also does something else hashes between two calls
RECORD = bytes(43)


def main() -> None:
    """Measure and print."""
    asked = _arguments()
    logging.getLogger("rollforward").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", RuntimeWarning)
    with tempfile.TemporaryDirectory() as folder, running() as endpoint:
        os.environ["ROLLFORWARD_JOURNAL"] = str(Path(folder) / "journal")
        _say("append of 43 bytes to a file", _bare(Path(folder) / "bare", asked.calls))
        _say("append of 43 bytes to a file between work", _bare(Path(folder) / "bare", asked.calls // 10, WORK))
        with rf.Client(endpoint.address) as up, rf.Client(NOBODY, timeout=0.5) as away:
            for name, client in (("service up", up), ("service away", away)):
                _measure(name, client, asked.calls)
            _deliver(up, asked.points)
            _sync(up, asked.points)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory of the loop's process: {peak / (2**20 if os.uname().sysname == 'Darwin' else 2**10):.0f} MiB")


def _measure(name: str, client: rf.Client, calls: int) -> None:
    many = {f"metric/{number}": 0.5 for number in range(10)}
    with _run(client) as run:
        _say(f"log_metric, {name}", _timed(lambda step: run.log_metric("loss", 0.5, step), calls))
        _say(f"log_metric between work, {name}", _timed(lambda step: run.log_metric("a", 0.5, step), calls // 10, WORK))
        _say(f"log_metrics of 10, {name}", _timed(lambda step: run.log_metrics(many, step), calls // 4))
        _say(f"log_metric in 4 threads, {name}", _in_threads(run, calls // 4))


@contextmanager
def _run(client: rf.Client, *, offline: bool = False) -> Iterator[rf.Run]:
    with client.runs.start("bench", offline=offline) as run:
        yield run


def _timed(call: Callable[[int], None], calls: int, work: bytes = b"") -> Sequence[float]:
    """Return the seconds that each call took."""
    durations: list[float] = []
    for step in range(calls):
        before = time.perf_counter()
        call(step)
        durations.append(time.perf_counter() - before)
        if work:
            hashlib.sha256(work)
    return durations


def _in_threads(run: rf.Run, calls: int) -> Sequence[float]:
    durations: list[float] = []

    def work(number: int) -> None:
        durations.extend(_timed(lambda step: run.log_metric(f"thread-{number}", 0.5, step), calls))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return durations


def _bare(path: Path, calls: int, work: bytes = b"") -> Sequence[float]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        return _timed(lambda _: _append(descriptor), calls, work)
    finally:
        os.close(descriptor)


def _append(descriptor: int) -> None:
    os.write(descriptor, RECORD)


def _deliver(client: rf.Client, points: int) -> None:
    with _run(client) as run:
        begun = time.perf_counter()
        for step in range(points):
            run.log_metric("loss", 0.5, step)
        logged = time.perf_counter()
        run.flush(600.0)
        done = time.perf_counter()
    text = f"logged in {logged - begun:.2f} s, delivered {done - logged:.2f} s later"
    print(f"{points:,} points: {text}, {points / (done - begun):,.0f} points/s")


def _sync(client: rf.Client, points: int) -> None:
    with _run(client, offline=True) as run:
        for step in range(points):
            run.log_metric("loss", 0.5, step)
    begun = time.perf_counter()
    (result,) = rf.sync(Path(os.environ["ROLLFORWARD_JOURNAL"]) / run.run_id)
    seconds = time.perf_counter() - begun
    synced = result.delivered.points
    print(f"sync of {synced:,} points: {seconds:.2f} s, {synced / seconds:,.0f} points/s")


def _say(what: str, durations: Sequence[float]) -> None:
    shares = ", ".join(f"p{share * 100:g} {percentile(durations, share) * 1e6:.1f}" for share in (0.5, 0.99, 0.999))
    print(f"{what}: {shares} us", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000, help="of log_metric, for each figure")
    parser.add_argument("--points", type=int, default=500_000, help="to deliver, and to sync")
    return parser.parse_args()


if __name__ == "__main__":
    main()
