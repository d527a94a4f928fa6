"""Measure moves while watchers catch up, and many concurrent writers, and compare with another commit.

    python -m benchmarks.under_load watchers --beside 4d4c72d
    python -m benchmarks.under_load writers --beside 4d4c72d --busy 4

`watchers`: a log of 50,000 events and 10,000 models. Moves are made one by one, 20 ms apart: with no watcher, while
watchers catch up from revision 0, and while watchers come back after a restart of the service. `writers`: so many
callers register new models at once. The other commit runs in a git work tree of its own, in the same run; both are
called by the same clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

import rollforward as rf
from benchmarks.harness.figures import percentile
from benchmarks.systems import far_history
from benchmarks.systems.ours import READY
from benchmarks.systems.processes import cpu_seconds, end, memory_bytes, program
from rollforward import v1
from tests.servers.ports import free_port

PAUSE_SECONDS = 0.02
CALL_SECONDS = 60.0


@dataclass
class Moves:
    """The durations of moves, in seconds, failed ones included, and the number of failures."""

    durations: list[float] = field(default_factory=list)
    failed: int = 0

    def line(self) -> str:
        """Return the result as text."""
        if not self.durations:
            return f"no move was made, {self.failed} failed"
        p50, p99 = (1000 * percentile(self.durations, part) for part in (0.5, 0.99))
        max_ms = 1000 * max(self.durations)
        return f"{len(self.durations)} moves, p50 {p50:.1f} p99 {p99:.1f} max {max_ms:.0f} ms, {self.failed} failed"


class Service:
    """A running service of a work tree."""

    def __init__(self, tree: Path, data: Path, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._stack = ExitStack()
        code = os.pathsep.join(str(tree / part) for part in (".", "client/src"))
        command = [sys.executable, "-P", "-m", "services", "up", "--data", str(data), "--grpc", self.address]
        environment = {"PYTHONPATH": code, "ROLLFORWARD_LOG": "error", "ROLLFORWARD_SNAPSHOT_INTERVAL": "0"}
        _, self.pid = self._stack.enter_context(program(command, environment, READY))
        self._channel = self._stack.enter_context(grpc.insecure_channel(self.address))
        self.registry = v1.RegistryServiceStub(self._channel)

    def stop(self) -> None:
        """End it."""
        self._stack.close()

    def memory(self) -> float:
        """Return the memory that it takes, NATS included, in MB."""
        return memory_bytes([self.pid]) / 1e6

    def move(self, number: int, moves: Moves) -> int:
        """Move an alias; returns the position."""
        begun = time.perf_counter()
        request = v1.MoveAliasRequest(model=far_history.model(0), alias="moved", version=1 + number % 2)
        try:
            position = self.registry.MoveAlias(request, timeout=CALL_SECONDS).position
        except grpc.RpcError:
            moves.failed += 1
            moves.durations.append(time.perf_counter() - begun)
            return 0
        moves.durations.append(time.perf_counter() - begun)
        return int(position)


def measure_watchers(name: str, tree: Path, options: argparse.Namespace) -> dict[str, float]:
    """Print how moves fare without watchers, beside those that catch up, and beside those that come back."""
    with tempfile.TemporaryDirectory() as folder:
        data, port = Path(folder) / "data", free_port()
        far_history.write(data, options.models, options.events)
        service = Service(tree, data, port)
        try:
            alone = _moves_for(service, options.seconds)
            idle = service.memory()
            print(f"{name}: no watcher: {alone.line()}; {idle:.0f} MB", flush=True)
            head = service.move(0, Moves())
            catching_up = _move_with_watchers(service, options.watchers, 0, head, options.limit)
            print(f"{name}: {options.watchers} watchers from 0: {catching_up.line()}", flush=True)
        finally:
            service.stop()
        service = Service(tree, data, port)
        try:
            back = _move_with_watchers(service, options.back, head - options.behind, head, options.limit)
            print(
                f"{name}: {options.back} watchers, {options.behind} behind, after a restart: {back.line()}", flush=True
            )
        finally:
            service.stop()
    return _ratios(alone, idle, catching_up, back)


def _ratios(alone: Moves, idle: float, catching_up: WatchedMoves, back: WatchedMoves) -> dict[str, float]:
    def p99(moves: Moves) -> float:
        return percentile(moves.durations, 0.99) if moves.durations else float("inf")

    return {
        "p99 of moves beside watchers from 0 / without": p99(catching_up.moves) / p99(alone),
        "p99 of moves beside watchers that come back / without": p99(back.moves) / p99(alone),
        "memory at most / without watchers": max(catching_up.memory, back.memory) / idle,
    }


@dataclass
class WatchedMoves:
    """Moves during a catch-up, when each watcher arrived, and the peak memory (MB) and CPU (s) of service and NATS."""

    moves: Moves
    seconds: list[float | None]
    memory: float
    cpu: float

    def line(self) -> str:
        """Return the result as text."""
        there = sorted(second for second in self.seconds if second is not None)
        last = f", the last after {there[-1]:.1f} s" if there else ""
        took = f"{self.memory:.0f} MB at most, {self.cpu:.1f} s of CPU"
        return f"{len(there)} of {len(self.seconds)} caught up{last}; {self.moves.line()}; {took}"


def _moves_for(service: Service, seconds: float) -> Moves:
    for number in range(50):
        service.move(number, Moves())
    moves, until, number = Moves(), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        service.move(number, moves)
        time.sleep(PAUSE_SECONDS)
    return moves


def _move_with_watchers(service: Service, count: int, start: int, until: int, limit: float) -> WatchedMoves:
    with ExitStack() as stack:
        crews = [stack.enter_context(_watchers(service.address, count // 2, start, until, limit)) for _ in range(2)]
        moves, memory, number, used = Moves(), 0.0, 0, cpu_seconds([service.pid])
        while any(crew.poll() is None for crew in crews):
            number += 1
            service.move(number, moves)
            if number % 10 == 0:
                memory = max(memory, service.memory())
            time.sleep(PAUSE_SECONDS)
        reached = [json.loads(crew.stdout.readlines()[-1])["seconds"] for crew in crews if crew.stdout]
        used = cpu_seconds([service.pid]) - used
    return WatchedMoves(moves, [second for seconds in reached for second in seconds], memory, used)


@contextmanager
def _watchers(address: str, count: int, start: int, until: int, limit: float) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.far_watchers", address, *map(str, (count, start, until, limit))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            end(process)


def measure_writers(name: str, tree: Path, options: argparse.Namespace) -> dict[str, float]:
    """Print how many new models a second so many callers register, and how many calls fail."""
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, _busy(options.busy):
        service = Service(tree, Path(folder) / "data", free_port())
        try:
            digest = _upload(service.address)
            asyncio.run(_register(service.address, digest, 8, 8))
            for callers in options.callers:
                rate, failed, durations = asyncio.run(
                    _register(service.address, digest, callers, options.each * callers)
                )
                p99 = 1000 * percentile(durations, 0.99)
                text = f"{rate:.0f} models/s, p99 {p99:.0f} ms, {failed} of {len(durations)} failed"
                print(f"{name}: {callers} callers: {text}", flush=True)
                rates[f"models/s, {callers} callers"] = rate
        finally:
            service.stop()
    return rates


async def _register(address: str, digest: str, callers: int, calls: int) -> tuple[float, int, list[float]]:
    """Register new models; returns how many a second, how many failed, and how long each call took."""
    failed, durations = 0, []
    numbers = iter(range(calls))
    async with grpc.aio.insecure_channel(address) as channel:
        stub: v1.RegistryServiceAsyncStub = v1.RegistryServiceStub(channel)

        async def call() -> None:
            nonlocal failed
            for _ in numbers:
                begun = time.perf_counter()
                request = v1.RegisterVersionRequest(
                    model=f"new-{uuid.uuid4().hex}", digest=digest, request_id=uuid.uuid4().hex
                )
                try:
                    await stub.RegisterVersion(request, timeout=CALL_SECONDS)
                except grpc.aio.AioRpcError:
                    failed += 1
                durations.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(call())
    return (calls - failed) / (time.perf_counter() - begun), failed, durations


def _upload(address: str) -> str:
    with tempfile.TemporaryDirectory() as folder, rf.Client(address) as client:
        (Path(folder) / "weights").write_bytes(b"weights")
        return client.artifacts.upload(folder)[0]


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep processors busy with other programs."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


MEASURES = {"watchers": measure_watchers, "writers": measure_writers}


@contextmanager
def _trees(commit: str) -> Iterator[dict[str, Path]]:
    """Yield this work tree, and a new one of another commit, which is gone at the end."""
    trees = {"here": Path.cwd()}
    if not commit:
        yield trees
        return
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        try:
            yield {**trees, commit: tree}
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*text: str) -> None:
    subprocess.run(["git", *text], check=True)  # noqa: S607 - the git of whoever measures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--beside", default="", metavar="COMMIT", help="another commit, measured in the same run")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--back", type=int, default=1_000, help="watchers that come back after a restart")
    parser.add_argument("--behind", type=int, default=500, help="by how many positions they are behind")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long moves are made without a watcher")
    parser.add_argument("--limit", type=float, default=120.0, help="how long watchers are waited for, in seconds")
    parser.add_argument("--callers", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--each", type=int, default=8, help="calls by each caller")
    parser.add_argument("--busy", type=int, default=0, help="how many busy programs run beside the writers")
    options = parser.parse_args()
    with _trees(options.beside) as trees:
        results: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
        for _ in range(options.rounds):
            for name, tree in trees.items():
                results[name].append(MEASURES[options.what](name, tree, options))
    for name, rounds in results.items():
        for figure in rounds[0]:
            print(f"{name}: {figure}: {statistics.median(one[figure] for one in rounds):.2f}")


if __name__ == "__main__":
    main()
