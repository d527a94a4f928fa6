"""Many watchers of one alias: gRPC streams over a few channels in other processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import grpc
import grpc.aio

from rollforward import v1

_PROCESSES = 2
_CHANNELS = 2  # in one process
_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


class Streams:
    """A number of open watches; created by `streams`."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def received_at(self, seconds: float) -> list[float]:
        """Return when each watcher received the next change (time.perf_counter). Raises TimeoutError."""
        times: list[float] = []
        for pipe in self._pipes:
            if not pipe.poll(seconds):
                raise TimeoutError
            times.extend(pipe.recv())
        return times


@contextmanager
def streams(address: str, model: str, alias: str, count: int) -> Iterator[Streams]:
    """Start watches, wait for their snapshots, and stop their processes at the end."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    try:
        shares = [count // _PROCESSES, count - count // _PROCESSES]
        for share in filter(None, shares):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, address, model, alias, share), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()
        yield Streams(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.terminate()
            process.join()


def _work(pipe: Connection, address: str, model: str, alias: str, count: int) -> None:
    asyncio.run(_Watchers(pipe, count).run(address, v1.WatchAliasesRequest(model=model, alias=alias)))


class _Watchers:
    """The streams of one process, which reports over the pipe when all have begun, then the times of each change."""

    def __init__(self, pipe: Connection, count: int) -> None:
        self._pipe = pipe
        self._count = count
        self._begun = 0
        self._times: list[float] = []

    async def run(self, address: str, request: v1.WatchAliasesRequest) -> None:
        """Watch until cancelled."""
        channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(min(_CHANNELS, self._count))]
        stubs = [v1.RegistryServiceStub(channel) for channel in channels]
        async with asyncio.TaskGroup() as watchers:
            for number in range(self._count):
                watchers.create_task(self._watch(stubs[number % len(stubs)], request))

    async def _watch(self, stub: v1.RegistryServiceAsyncStub, request: v1.WatchAliasesRequest) -> None:
        begun = False
        async for step in stub.WatchAliases(request):
            now = time.perf_counter()
            if not begun:
                begun = True
                self._note_begin()
            elif step.changes.changes:
                self._note(now)

    def _note_begin(self) -> None:
        self._begun += 1
        if self._begun == self._count:
            self._pipe.send("ready")

    def _note(self, now: float) -> None:
        self._times.append(now)
        if len(self._times) == self._count:
            self._pipe.send(self._times)
            self._times = []
