"""The embedded NATS server: a supervised `nats-server` child process over one data directory.

The directory is locked from_os_error nats-server itself takes no lock and two servers on one store lose acknowledged
events. The child shares the lock: as long as anything can write the store, it stays locked. Each `start` makes new
credentials, kept in memory and in `DATA/nats-server.conf` (mode 0600), and the server listens on 127.0.0.1 only,
so no other user's program can write to the log.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from services.nats.data_directory import DataDirectoryError, DataDirectoryInUse, DataDirectoryUnusable, DirectoryLock
from services.nats.errors import HOST, NatsServerError, NatsServerFailed, NatsServerMissing, NoSpace, PortInUse
from services.nats.process import NatsChild, NatsConfig, find_nats_server

__all__ = [
    "DataDirectoryError",
    "DataDirectoryInUse",
    "DataDirectoryUnusable",
    "EmbeddedNats",
    "NatsAddress",
    "NatsServerError",
    "NatsServerFailed",
    "NatsServerMissing",
    "NoSpace",
    "PortInUse",
]

_STABLE = 30.0  # seconds a server must live for its death not to count as a quick failure
_QUICK_FAILURES = 5
_ROOM_SECONDS = 2.0  # between attempts to start a server whose disk is full
_BACKOFF = 0.05  # seconds, doubled with each quick failure

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """The address and credentials of a server; no password shows in a `repr`.

    The system user may ask the server how it is set up and has no access to the log.
    """

    url: str
    user: str
    password: str = field(repr=False)
    system_user: str
    system_password: str = field(repr=False)


class EmbeddedNats:
    """A `nats-server` over the directory `data`, restarted when it dies, stopped with its owner.

    `port` None takes a free one; either way a restart comes back on the same port with the same credentials.
    `sync_always` False lets acknowledged events be lost in a power cut. The directory holds the store, the
    server's log `nats-server.log` (rotated at 16 MB), its configuration and the lock. `write_error` is why the
    server cannot write, if known.
    """

    def __init__(self, data: Path, *, port: int | None = None, sync_always: bool = True) -> None:
        self._data = data.absolute()
        self._port = port
        self._sync_always = sync_always
        self._lock: DirectoryLock | None = None
        self._child: NatsChild | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._address: NatsAddress | None = None
        self._restarts = 0
        self._renewing = False
        self.write_error = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def address(self) -> NatsAddress:
        """Where and how to connect, the same until `stop`; to be asked for after `start`."""
        if self._address is None:
            raise RuntimeError("the embedded NATS server is not started. Call start() first")
        return self._address

    @property
    def data(self) -> Path:
        """Its directory."""
        return self._data

    @property
    def pid(self) -> int | None:
        """The process id of the running server, None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def restarts(self) -> int:
        """The number of restarts since `start`."""
        return self._restarts

    async def start(self) -> NatsAddress:
        """Start the server; return once JetStream answers a client with the address's credentials.

        Raises `DataDirectoryInUse`, `DataDirectoryUnusable`, `PortInUse`, `NatsServerMissing`, `NatsServerFailed`,
        `NoSpace`.
        """
        binary = find_nats_server()
        lock = self._lock = await DirectoryLock.acquire(self._data)
        secret, system_secret = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        config = NatsConfig(self._port, "rollforward", secret, "system", system_secret, self._sync_always)
        self._restarts = 0
        try:
            self._child, port = await _launch(binary, self._data, lock, config)
        except BaseException:
            self._lock = None
            lock.leave()
            raise
        supervision = self._supervise(binary, lock, replace(config, port=port))
        self._supervisor = asyncio.create_task(supervision, name="nats-server supervisor")
        url = f"nats://{HOST}:{port}"
        self._address = NatsAddress(url, config.user, config.password, config.system_user, config.system_password)
        return self._address

    async def stop(self) -> None:
        """Stop the server (SIGTERM, SIGKILL at a limit) and unlock the directory; harmless if none runs."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            if self._child is not None:
                await self._child.end()
        except BaseException:
            lock.leave()
            raise
        lock.release()

    async def renew(self) -> None:
        """Stop the server gracefully, if one runs; a new one replaces it."""
        if (child := self._child) is not None:
            self._renewing = True
            await child.end()

    async def failed(self) -> None:
        """Wait until supervision ends: return when stopped, raise the last error after too many failures."""
        if self._supervisor is None:
            return
        await asyncio.wait({self._supervisor})
        if not self._supervisor.cancelled():
            self._supervisor.result()

    async def _supervise(self, binary: Path, lock: DirectoryLock, config: NatsConfig) -> None:
        """Restart the server whenever it dies; raise if it fails too often in a row."""
        quick = 0
        while quick <= _QUICK_FAILURES:
            since = time.monotonic()
            error = await self._life(binary, lock, config)
            if self._renewing:
                self._renewing = False
                continue
            if isinstance(error, NoSpace):
                _log.error("disk full, nats-server is waiting", error=str(error))
                await asyncio.sleep(_ROOM_SECONDS)
                continue
            quick = 1 if time.monotonic() - since >= _STABLE else quick + 1
            _log.error("nats-server is down", quick_failures=quick, error=str(error))
            if quick > _QUICK_FAILURES:
                raise error
            await asyncio.sleep(_BACKOFF * 2**quick)

    async def _life(
        self, binary: Path, lock: DirectoryLock, config: NatsConfig
    ) -> NatsServerError | DataDirectoryError:
        """Run a server until it ends, and return why it ended or did not start."""
        try:
            child = self._child or await self._relaunch(binary, lock, config)
        except (NatsServerError, DataDirectoryError) as error:
            return error
        failure = await child.death()
        self._child = None
        return failure

    async def _relaunch(self, binary: Path, lock: DirectoryLock, config: NatsConfig) -> NatsChild:
        child, port = await _launch(binary, self._data, lock, config)
        self._child = child
        self._restarts += 1
        _log.warning("nats-server restarted", pid=child.pid, port=port, restarts=self._restarts)
        return child


async def _launch(binary: Path, data: Path, lock: DirectoryLock, config: NatsConfig) -> tuple[NatsChild, int]:
    """Start a server and wait until it is ready; return it with its port. On an error none is left."""
    try:
        config.write(data)
        child = await NatsChild.spawn(binary, data, lock)
    except OSError as error:
        raise DataDirectoryUnusable.from_os_error(data, error) from error
    return child, await child.ready(config)
