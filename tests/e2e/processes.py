"""The programs of the system as real processes: started, killed and started again, and never left behind."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from rollforward import Connection
from services.nats_child import leashed
from services.nats_server import NatsAddress

ROOT = Path(__file__).parents[2]
READY_SECONDS = 40.0
STOP_SECONDS = 30.0

_POD = """
import sys
from pathlib import Path
from services.serving.pod import command
server, grpc, cache, *targets = sys.argv[1:]
sys.exit(command(*targets, server=server, grpc=grpc, cache=Path(cache)))
"""


def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Returns once a condition holds that no event tells of; fails the test when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def gone(pid: int) -> bool:
    """Whether a process has ended, even if nobody has asked yet how."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def free_port() -> int:
    """A port that stays free while its program is down.

    It is none of those that the system gives to outgoing connections: such a port, connected to while nobody listens,
    may be connected to itself and be taken from then on.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Program:
    """A process that cannot outlive this one, with the lines that it prints; its errors go to the file `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                leashed(list(command)),
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._log = log
        self._lines: list[tuple[float, str]] = []
        self._ended = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, name=f"reader-{self.pid}")
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def errors(self) -> str:
        """What it and its predecessors with the same log wrote to standard error."""
        return self._log.read_text()

    def line(self, pattern: str, seconds: float = READY_SECONDS) -> tuple[float, str]:
        """The first line that matches, once it was printed, and when (monotonic seconds) it came."""

        def found() -> tuple[float, str] | None:
            return next((entry for entry in self._lines if re.search(pattern, entry[1])), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, seconds)
            entry = found()
        assert entry, f"no line {pattern!r} but {self._lines}; {self._log.name} ends with: {self.errors[-3000:]}"
        return entry

    def kill(self) -> None:
        """Ends it as a crash would, whatever it is doing; harmless when it has ended."""
        self._process.kill()
        self._finish()

    def terminate(self) -> int:
        """Asks it to stop; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._finish()
        return self._process.returncode

    def children(self, name: str) -> list[psutil.Process]:
        """Its child processes of a name."""
        try:
            return [child for child in psutil.Process(self.pid).children() if child.name() == name]
        except psutil.NoSuchProcess:
            return []

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines.append((time.monotonic(), line.rstrip("\n")))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _finish(self) -> None:
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def start_service(service: str, home: Path, nats: NatsAddress, number: int = 0) -> tuple[Program, str]:
    """One service alone, with rows of its own, over the artifacts that all in `home` share; where it listens."""
    command = [sys.executable, "-m", "services", "run", service, "--nats", nats.url, "--grpc", "127.0.0.1:0"]
    command += ["--data", str(home / f"{service}-{number}"), "--artifacts", str(home / "artifacts")]
    environment = {"ROLLFORWARD_NATS_USER": nats.user, "ROLLFORWARD_NATS_PASSWORD": nats.password}
    program = Program(command, home / f"{service}-{number}.log", environment)
    try:
        return program, program.line(" listens on ")[1].split()[-1]
    except BaseException:
        program.kill()
        raise


class Services:
    """All services and NATS over one data directory, as `up` runs them, always at the same address.

    As a context manager it is started, and killed at the end unless it was stopped before.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.address = f"127.0.0.1:{free_port()}"
        self._program: Program | None = None
        self._nats: set[int] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def program(self) -> Program:
        """The process of now, or the last one."""
        assert self._program is not None
        return self._program

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._program is not None and self._program.running

    def spawn(self) -> Program:
        """Starts it; it is not ready yet."""
        self.data.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "services", "up", "--data", str(self.data)]
        command += ["--grpc", self.address, "--http", "127.0.0.1:0"]
        self._program = Program(command, self.data.with_suffix(".log"))
        return self._program

    def start(self) -> float:
        """Starts it and waits until it is ready; the seconds that this took."""
        started = time.monotonic()
        self.spawn().line(" listens on ")
        assert self.nats()
        return time.monotonic() - started

    def nats(self) -> int:
        """The process id of its nats-server; 0 while there is none."""
        found = [child.pid for child in self.program.children("nats-server")]
        assert len(found) <= 1
        self._nats.update(found)
        return found[0] if found else 0

    def kill_nats(self) -> int:
        """Kills nats-server, which the services bring back by themselves; the process id that it had."""
        pid = 0

        def is_there() -> bool:
            nonlocal pid
            pid = self.nats()
            return pid > 0

        until(is_there, "a nats-server")
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self) -> None:
        """Kills the services' process, and sees that its nats-server dies with it."""
        if self._program is not None:
            self.nats()
            self._program.kill()
            self.expect_no_nats()

    def stop(self) -> int:
        """Stops everything in good order; the exit status."""
        self.nats()
        status = self.program.terminate()
        self.expect_no_nats()
        return status

    def expect_no_nats(self) -> None:
        """Fails when one of the nats-servers that were seen is left."""
        until(lambda: all(gone(pid) for pid in self._nats), "the nats-servers have ended")

    def connect(self, actor: str) -> Connection:
        """A connection of the SDK."""
        return Connection(self.address, actor=actor)


class Pod:
    """A serving pod in a process of its own, always at the same address and over the same cache.

    `starts` are the times (ns since 1970) at which it was started; `outages` the spans (monotonic seconds) in which it
    could not answer.
    """

    def __init__(self, server: str, directory: Path, target: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.outages: list[tuple[float, float]] = []
        self.starts: list[int] = []
        self._server = server
        self._directory = directory
        self._target = target
        self._program: Program | None = None
        self._down_since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._program is not None:
            self._program.kill()

    @property
    def program(self) -> Program:
        """The process of now, or the last one."""
        assert self._program is not None
        return self._program

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._program is not None and self._program.running

    def start(self) -> None:
        """Starts it; it is not ready yet."""
        self._directory.mkdir(exist_ok=True)
        cache = str(self._directory / "cache")
        command = [sys.executable, "-c", _POD, self._server, self.address, cache, self._target]
        self.starts.append(time.time_ns())
        self._program = Program(command, self._directory / "pod.log")

    def ready(self) -> None:
        """Waits until it serves something; what it did not answer until now counts as an outage."""
        since, _ = self.program.line("^serving ")
        self.outages.append((self._down_since, since))

    def kill(self) -> None:
        """Kills it, whatever it is doing."""
        self._down_since = time.monotonic()
        self.program.kill()

    def was_down(self, begun: float, ended: float) -> bool:
        """Whether it was down at some moment of a span of time, in seconds of the monotonic clock."""
        return any(begun <= up and ended >= down for down, up in self.outages)

