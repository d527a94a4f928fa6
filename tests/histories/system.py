"""The systems that histories are recorded on: real processes that can be killed, stopped, paused and started again."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.nats_child import NatsConfig, find_nats_server
from services.nats_server import NatsAddress
from tests.e2e.program import Program, until
from tests.servers.ports import free_port

PROGRAM = [sys.executable, "-m", "tests.histories.program"]
NATS_DEATHS = 4  # a supervisor gives a server up that dies more often than this within half a minute


class Process:
    """A program that is always started in the same way."""

    def __init__(self, command: Sequence[str], log: Path, ready: str, environment: Mapping[str, str]) -> None:
        self._command, self._log, self._ready, self._environment = command, log, ready, environment
        self._program: Program | None = None

    @property
    def pid(self) -> int:
        """The process id of now, or the last one."""
        assert self._program is not None
        return self._program.pid

    def start(self) -> None:
        """Starts it; returns once it is ready."""
        self.spawn()
        self.ready()

    def spawn(self) -> None:
        """Starts it; it is not ready yet."""
        self._program = Program(self._command, self._log, self._environment)

    def ready(self) -> None:
        """Returns once it is ready, where it says so."""
        assert self._program is not None
        if self._ready:
            self._program.line(self._ready)

    def kill(self) -> None:
        """Ends it as a crash would; harmless when it has ended."""
        if self._program is not None:
            self._program.kill()

    def stop(self) -> None:
        """Ends it in good order."""
        assert self._program is not None
        assert self._program.terminate() == 0

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._program is not None and not self._program.running

    def child(self, name: str) -> int:
        """The process id of its child program of a name, once there is one that runs."""
        found: list[int] = []

        def is_there() -> bool:
            assert self._program is not None
            found[:] = [child.pid for child in self._program.children(name)]
            return bool(found)

        until(is_there, f"a {name}")
        return found[0]


@dataclass
class System:
    """Registry processes over one log, by the addresses that clients use, and how NATS is found and brought back."""

    registries: dict[str, Process]
    nats: Nats

    @property
    def addresses(self) -> list[str]:
        """One for each registry process."""
        return list(self.registries)

    def check_running(self) -> None:
        """Fails when a process has ended that nobody ended."""
        ended = [process for process in self.registries.values() if process.ended]
        assert not ended, "a service has ended by itself"


class Nats:
    """The server of a log: its address, and how to do it harm."""

    def __init__(self, url: str, home: Path, process: Process | None = None, owner: Process | None = None) -> None:
        self._url, self._home, self._process, self._owner = url, home, process, owner
        self._deaths = 0

    @property
    def address(self) -> NatsAddress:
        """How to connect as of now: an embedded server has new credentials with each start of its owner."""
        text = (self._home / "nats-server.conf").read_text()
        user, password = re.findall(r'user: "([^"]*)", password: "([^"]*)"', text)[0]
        return NatsAddress(self._url, user, password, "", "")

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._owner:
            return self._owner.child("nats-server")
        assert self._process
        return self._process.pid

    def crash(self) -> None:
        """Kills it; whoever owns it brings it back."""
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
    """Stops a process, and lets it go on after so long or at the end, as it were from the same moment."""
    process = psutil.Process(pid)
    process.suspend()
    going_on = threading.Timer(seconds, process.resume)
    going_on.start()
    try:
        yield
    finally:
        going_on.join()


@contextmanager
def one_process(home: Path, bug: str = "none") -> Iterator[System]:
    """Everything in one process with NATS built in, as `rollforward up` runs it."""
    address, port = f"127.0.0.1:{free_port()}", free_port()
    command = [*PROGRAM, bug, "up", "--data", str(home / "data"), "--grpc", address]
    process = Process(command, home / "up.log", " listens on ", {"ROLLFORWARD_NATS_PORT": str(port)})
    nats = Nats(f"nats://127.0.0.1:{port}", home / "data" / "nats", owner=process)
    with ExitStack() as stack:
        stack.callback(process.kill)
        process.start()
        yield System({address: process}, nats)


@contextmanager
def two_writers(home: Path, bug: str = "none") -> Iterator[System]:
    """Two registry processes with rows of their own over one log, and a NATS server of its own."""
    with ExitStack() as stack:
        nats, environment = _nats(home, stack)
        tracking = f"127.0.0.1:{free_port()}"
        first = _service(home, "tracking", 0, tracking, (bug, environment), stack)
        registries = {}
        for number in range(2):
            address = f"127.0.0.1:{free_port()}"
            process = _service(home, "registry", number, address, (bug, environment), stack)
            registries[f"tracking={tracking},registry={address}"] = process
        for process in [first, *registries.values()]:
            process.ready()
        yield System(registries, nats)


def _nats(home: Path, stack: ExitStack) -> tuple[Nats, dict[str, str]]:
    data, port, secret = home / "nats", free_port(), secrets.token_hex(8)
    data.mkdir()
    NatsConfig(port, "rollforward", secret, "system", secret).write(data)
    command = ["/bin/sh", "-c", 'cd "$0" && exec "$1" -c nats-server.conf', str(data), str(find_nats_server())]
    process = Process(command, home / "nats.log", "", {})
    stack.callback(process.kill)
    process.start()
    url = f"nats://127.0.0.1:{port}"
    credentials = {"ROLLFORWARD_NATS_USER": "rollforward", "ROLLFORWARD_NATS_PASSWORD": secret}
    return Nats(url, data, process), {"ROLLFORWARD_NATS": url, **credentials}


def _service(
    home: Path, service: str, number: int, address: str, how: tuple[str, Mapping[str, str]], stack: ExitStack
) -> Process:
    bug, environment = how
    command = [*PROGRAM, bug, "start", service, "--grpc", address]
    command += ["--data", str(home / f"{service}-{number}"), "--artifacts", str(home / "artifacts")]
    process = Process(command, home / f"{service}-{number}.log", " listens on ", environment)
    stack.callback(process.kill)
    process.spawn()
    return process


SHAPES = {"one process": one_process, "two writers": two_writers}
