"""Clients in processes of their own, that call again and again for a while and say how long each call took."""

from __future__ import annotations

import multiprocessing
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

from benchmarks.clients import CallFailed, Client, Endpoint, connect
from benchmarks.figures import Round

Task = Callable[[Client, int, int], None]
"""What a client does in one call: given the client, its number, and the number of the call."""

THREADS = 4  # clients in one process: enough processes that none is the limit, few enough to start soon
_HEAD_START = 0.1  # seconds, for every process to have heard of the round
_WARM_UP = 2.0  # seconds


class Crew:
    """So many clients, spread over processes; made by `crew`."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def round(self, task: Task, seconds: float) -> Round:
        """All clients begin at the same time and call one call after the other."""
        begin = time.perf_counter() + _HEAD_START
        for pipe in self._pipes:
            pipe.send((task, begin, seconds))
        durations: array[float] = array("d")
        failures, ended = 0, begin
        for pipe in self._pipes:
            answer = pipe.recv()
            if isinstance(answer, BaseException):
                raise answer
            durations.extend(answer[0])
            failures += answer[1]
            ended = max(ended, answer[2])
        return Round(ended - begin, durations, failures)

    def rounds(self, task: Task, seconds: float, count: int) -> list[Round]:
        """So many rounds, after one that does not count: it opens connections and fills caches."""
        self.round(task, _WARM_UP)
        return [self.round(task, seconds) for _ in range(count)]


@contextmanager
def crew(endpoint: Endpoint, clients: int) -> Iterator[Crew]:
    """Clients of a running system, numbered from 0; their processes are gone at the end."""
    context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    pipes: list[Connection] = []
    processes = []
    try:
        for first in range(0, clients, THREADS):
            ours, theirs = context.Pipe()
            numbers = range(first, min(first + THREADS, clients))
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
    """What a process does: rounds, until its pipe is closed."""
    clients = {number: connect(endpoint, f"bench-{number}") for number in numbers}
    pipe.send("ready")
    try:
        while True:
            task, begin, seconds = pipe.recv()
            pipe.send(_round(clients, task, begin, seconds))
    except EOFError:
        pass
    finally:
        for client in clients.values():
            client.close()


def _round(
    clients: dict[int, Client], task: Task, begin: float, seconds: float
) -> tuple[array[float], int, float] | BaseException:
    lanes = [_Lane(client, number, task, begin, begin + seconds) for number, client in clients.items()]
    for lane in lanes:
        lane.start()
    durations: array[float] = array("d")
    for lane in lanes:
        lane.join()
        if lane.error is not None:
            return lane.error
        durations.extend(lane.durations)
    return durations, sum(lane.failures for lane in lanes), max(lane.ended for lane in lanes)


class _Lane(threading.Thread):
    """One client's calls of one round."""

    def __init__(self, client: Client, number: int, task: Task, begin: float, until: float) -> None:
        super().__init__(daemon=True)
        self._client, self._number, self._task, self._begin, self._until = client, number, task, begin, until
        self.durations: array[float] = array("d")
        self.failures = 0
        self.error: BaseException | None = None
        self.ended = 0.0

    def run(self) -> None:
        try:
            time.sleep(max(0.0, self._begin - time.perf_counter()))
            self._call()
        except BaseException as error:  # noqa: BLE001 - told to the one who asked for the round
            self.error = error

    def _call(self) -> None:
        call = 0
        now = time.perf_counter()
        while now < self._until:
            try:
                self._task(self._client, self._number, call)
            except CallFailed:
                self.failures += 1
            done = time.perf_counter()
            self.durations.append(done - now)
            call, now = call + 1, done
        self.ended = now
