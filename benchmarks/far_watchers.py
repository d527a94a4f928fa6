"""Watchers in another process, for `benchmarks.under_load`: when each has reached a position.

    python -m benchmarks.far_watchers ADDRESS COUNT FROM UNTIL SECONDS

Prints "watching" once all are connected, then one line of JSON: for each watcher after how many seconds it had come to
UNTIL (null if it had not), and how many changes came. A stream that breaks is resumed from where it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import grpc
import grpc.aio

from rollforward import v1

CONNECTIONS = 4
PAUSE_SECONDS = 0.1


class Watcher:
    """One watcher of all aliases."""

    def __init__(self, stub: v1.RegistryServiceAsyncStub, position: int) -> None:
        self._stub = stub
        self.position = position
        self.changes = 0
        self.connected = asyncio.Event()

    async def run(self, until: int, begun: float) -> float:
        """Return after how many seconds the watcher had come to a position."""
        while self.position < until:
            request = v1.WatchAliasesRequest(from_revision=self.position, several_appends=True)
            try:
                async for step in self._stub.WatchAliases(request):
                    self.connected.set()
                    self._take(step)
                    if self.position >= until:
                        break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(PAUSE_SECONDS)
        self.connected.set()
        return time.monotonic() - begun

    def _take(self, step: v1.WatchAliasesResponse) -> None:
        self.changes += len(step.changes.changes) + sum(len(append.changes) for append in step.appends.appends)
        self.position = max(self.position, step.position)


async def main(address: str, count: int, start: int, until: int, seconds: float) -> None:
    """Watch, and say how it went."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)]
    stubs: list[v1.RegistryServiceAsyncStub] = [v1.RegistryServiceStub(channel) for channel in channels]
    watchers = [Watcher(stubs[number % CONNECTIONS], start) for number in range(count)]
    begun = time.monotonic()
    tasks = [asyncio.create_task(watcher.run(until, begun)) for watcher in watchers]
    print("watching", flush=True)
    await asyncio.wait(tasks, timeout=seconds)
    reached = [task.result() if task.done() else None for task in tasks]
    print(json.dumps({"seconds": reached, "changes": [watcher.changes for watcher in watchers]}), flush=True)
    os._exit(0)  # no goodbye to each stream


if __name__ == "__main__":
    os.nice(10)  # elsewhere, watchers would not take their part of the service's processors
    address, *numbers = sys.argv[1:]
    count, start, until, seconds = map(float, numbers)
    asyncio.run(main(address, int(count), int(start), int(until), seconds))
