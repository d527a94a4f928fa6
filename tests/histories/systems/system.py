"""A system to record histories on: real processes that can be killed, stopped, paused and started."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.nats.server import NatsAddress
from tests.histories.systems.clocks import ProcessClock
from tests.histories.systems.cluster import Cluster
from tests.histories.systems.databases import Database
from tests.histories.systems.disks import Disk
from tests.histories.systems.network import Proxy
from tests.histories.systems.processes import Process

NATS_DEATHS = 4  # a supervisor gives a server up that dies more often than this within half a minute


@dataclass
class System:
    """Services over one log, and the means to disturb each part.

    Attributes:
        registries: The processes that move aliases, by the addresses that clients use.
        nats: The server of the log, or the cluster's address.
        processes: All service processes.
        clocks: The wall clocks of processes, where they can be set.
        client_links: The network between clients and services.
        log_links: The network between services and NATS; none where NATS is a child process.
        disk: The disk of the data directory, where it can be filled.
        database: Where the rows are.
        cluster: The NATS servers, where there are several.
        data: The data directory, where one directory holds both log and rows.
        lacks: What is unavailable here, and which faults are therefore skipped; empty for nothing.
    """

    registries: dict[str, Process]
    nats: Nats
    processes: Sequence[Process] = ()
    clocks: Sequence[ProcessClock] = ()
    client_links: Sequence[Proxy] = ()
    log_links: Sequence[Proxy] = ()
    disk: Disk | None = None
    database: Database | None = None
    cluster: Cluster | None = None
    data: Path | None = None
    lacks: str = ""

    @property
    def addresses(self) -> list[str]:
        """Return the addresses of the registry processes."""
        return list(self.registries)

    def check_running(self) -> None:
        """Fail when a process has ended that nobody ended."""
        ended = [process for process in self.processes if process.ended]
        assert not ended, f"a service has ended by itself: {ended[0].last_lines}"


class Nats:
    """The server of a log: its address, and how to do it harm."""

    def __init__(
        self, url: str, home: Path | None, process: Process | None = None, owner: Process | None = None
    ) -> None:
        self._url, self._home, self._process, self._owner = url, home, process, owner
        self._deaths = 0

    @property
    def address(self) -> NatsAddress:
        """Return how to connect now: an embedded server has new credentials at each start of its owner."""
        if self._home is None:
            return NatsAddress(self._url, "", "", "", "")
        text = (self._home / "nats-server.conf").read_text()
        user, password = re.findall(r'user: "([^"]*)", password: "([^"]*)"', text)[0]
        return NatsAddress(self._url, user, password, "", "")

    @property
    def is_single(self) -> bool:
        """Return whether NATS is one server, which can be paused and killed."""
        return self._home is not None

    @property
    def pid(self) -> int:
        """Return the server's process id."""
        if self._owner:
            return self._owner.child("nats-server")
        assert self._process
        return self._process.pid

    def crash(self) -> None:
        """Kill it; whoever owns it brings it back."""
        if self._owner:
            if self._deaths == NATS_DEATHS:
                self._deaths = 0
                self._owner.kill()
                self._owner.start()
            self._deaths += 1
            os.kill(self.pid, signal.SIGKILL)
        else:
            assert self._process
            self._process.kill()
            self._process.start()


@contextmanager
def paused(pid: int, seconds: float) -> Iterator[None]:
    """Stop a process, and let it continue after so long or at the end, as it were from the same moment."""
    process = psutil.Process(pid)
    process.suspend()
    resuming = threading.Timer(seconds, process.resume)
    resuming.start()
    try:
        yield
    finally:
        resuming.join()
