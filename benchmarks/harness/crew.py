"""Clients in other processes that repeat a call for a while and report how long each call took."""

from __future__ import annotations

import multiprocessing
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.harness.clients import connect
from benchmarks.harness.contract import CallFailed, Client, Endpoint
from benchmarks.harness.figures import Round

Task = Callable[[Client, int, int], None]
"""What a client does in one call: given the client, its number, and the number of the call."""

THREADS = 4  # clients in one process: enough processes that none is the limit, few enough to start soon
_HEAD_START = 0.1  # seconds, for every process to have heard of the round
_WARM_UP = 2.0  # seconds


class Crew:
    """A number of clients, spread over processes; created by `crew`."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def round(self, task: Task, seconds: float) -> Round:
        """Run one round: all clients begin at the same time and make one call after the other."""
        begin = time.perf_counter() + _HEAD_START
        for pipe in self._pipes:
            pipe.send((task, begin, seconds))
        durations: array[float] = array("d")
        failures, ended = 0, begin
        for pipe in self._pipes:
            answer = pipe.recv()
            if isinstance(answer, Exception):
                raise answer
            durations.extend(answer[0])
            failures += answer[1]
            ended = max(ended, answer[2])
        return Round(ended - begin, durations, failures)

    def rounds(self, task: Task, seconds: float, count: int) -> list[Round]:
        """Run a number of rounds after a warm-up round, which opens connections and fills caches."""
        self.round(task, _WARM_UP)
        return [self.round(task, seconds) for _ in range(count)]


@contextmanager
def crew(endpoint: Endpoint, clients: int, threads: int = THREADS) -> Iterator[Crew]:
    """Start clients of a running system, numbered from 0, some in each process; stop their processes at the end."""
    context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    pipes: list[Connection] = []
    processes = []
    try:
        for first in range(0, clients, threads):
            ours, theirs = context.Pipe()
            numbers = range(first, min(first + threads, clients))
            process = context.Process(target=_work, args=(theirs, endpoint, numbers), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()
        yield Crew(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join()


def _work(pipe: Connection, endpoint: Endpoint, numbers: range) -> None:
    """Run rounds in a process until its pipe is closed."""
    seats = [_Seat(connect(endpoint, f"bench-{number}"), number) for number in numbers]
    pipe.send("ready")
    with ThreadPoolExecutor(len(seats)) as pool:
        try:
            while True:
                pipe.send(_round(pool, seats, *pipe.recv()))
        except EOFError:
            pass
    for seat in seats:
        seat.client.close()


def _round(
    pool: ThreadPoolExecutor, seats: Sequence[_Seat], task: Task, begin: float, seconds: float
) -> tuple[array[float], int, float] | Exception:
    """Run a round of this process's clients; return their results, or the error of one of them."""
    done = [pool.submit(seat.repeat_call, task, begin, begin + seconds) for seat in seats]
    durations: array[float] = array("d")
    try:
        for one in done:
            durations.extend(one.result()[0])
        return durations, sum(one.result()[1] for one in done), max(one.result()[2] for one in done)
    except Exception as error:  # noqa: BLE001 - raised where the round was asked for
        return error


@dataclass(slots=True)
class _Seat:
    """A client, its number, and the number of its calls so far."""

    client: Client
    number: int
    calls: int = 0

    def repeat_call(self, task: Task, begin: float, until: float) -> tuple[array[float], int, float]:
        """Repeat a call; return durations of successful calls, number of failures, and when the last call ended."""
        durations: array[float] = array("d")
        failures = 0
        time.sleep(max(0.0, begin - time.perf_counter()))
        now = time.perf_counter()
        while now < until:
            try:
                task(self.client, self.number, self.calls)
            except CallFailed:
                failures += 1
            else:
                durations.append(time.perf_counter() - now)
            self.calls += 1
            now = time.perf_counter()
        return durations, failures, now
