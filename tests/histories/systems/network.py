"""TCP proxies between clients, services and NATS, which can delay, stall or cut traffic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from tests.servers.ports import free_port

HOST = "127.0.0.1"
_CHUNK = 65_536  # bytes
_JOIN_SECONDS = 10.0


class Proxy:
    """One port that leads to another. Its traffic is shaped from any thread; connections live on the network's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: int) -> None:
        self.port = free_port()
        self._loop = loop
        self._target = target
        self._delay = 0.0
        self._is_cut = False
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Add a delay to every chunk of bytes, in both directions."""
        self._delay = seconds
        try:
            yield
        finally:
            self._delay = 0.0

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Hold all bytes back, and keep the connections: as a network that loses every packet."""
        self._loop.call_soon_threadsafe(self._open.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._open.set)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Cut all connections, and reject new ones."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._abort)
        try:
            yield
        finally:
            self._is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side ends it."""
        self._writers.add(writer)
        try:
            if not self._is_cut:
                # The calling protocol logs a cancellation as an error.
                with suppress(asyncio.CancelledError):
                    await self._carry(reader, writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(HOST, self._target)
        except OSError:
            return
        self._writers.add(back)
        both = [asyncio.create_task(self._pump(reader, back)), asyncio.create_task(self._pump(there, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            self._writers.discard(back)
            back.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open.wait()
                writer.write(chunk)
                await writer.drain()

    def _abort(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()


class Network:
    """An event loop on a thread of its own that carries the connections of proxies."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end_all(), self._loop).result(_JOIN_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)
        self._loop.close()

    def proxy(self, target: int) -> Proxy:
        """Open a port that leads to a port of this machine, whether or not a program listens there yet."""
        return asyncio.run_coroutine_threadsafe(self._open(target), self._loop).result(_JOIN_SECONDS)

    async def _open(self, target: int) -> Proxy:
        proxy = Proxy(self._loop, target)
        self._servers.append(await asyncio.start_server(proxy.serve, HOST, proxy.port))
        return proxy

    async def _end_all(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
