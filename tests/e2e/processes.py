"""The programs of the system as real processes, which can be killed and restarted, and never stay behind."""

from __future__ import annotations

import os
import signal
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rollforward import Client
from services.nats.server import NatsAddress
from tests.e2e.program import Program, gone, until
from tests.servers.ports import free_port
from tests.timeouts import scaled

ROLLFORWARD = str(Path(sysconfig.get_path("scripts"), "rollforward"))


def start_service(service: str, home: Path, nats: NatsAddress, number: int = 0) -> tuple[Program, str]:
    """Start one service with its own rows, over the artifacts that all in `home` share; return where it listens."""
    command = [ROLLFORWARD, "start", service, "--nats", nats.url, "--grpc", "127.0.0.1:0"]
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

    As a context manager it is started, and killed at the end unless it was stopped before. Its rows are in SQLite, or
    in a `database` that a URL names.
    """

    def __init__(self, data: Path, database: str = "") -> None:
        self.data = data
        self.database = database
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
        """Return the current process, or the last one."""
        assert self._program is not None
        return self._program

    @property
    def running(self) -> bool:
        """Return whether the process was started and has not ended."""
        return self._program is not None and self._program.running

    def spawn(self, *options: str) -> Program:
        """Start the services; they are not ready yet."""
        self.data.mkdir(exist_ok=True)
        command = [ROLLFORWARD, "up", "--data", str(self.data)]
        command += ["--grpc", self.address, "--http", "127.0.0.1:0", "--webhooks-allow-private"]
        if self.database:
            command += ["--database", self.database]
        self._program = Program([*command, *options], self.data.with_suffix(".log"))
        return self._program

    def start(self, *options: str) -> float:
        """Start the services and wait until they are ready; return the seconds that this took."""
        started = time.monotonic()
        self.spawn(*options).line(" listens on ")
        assert self.nats()
        return time.monotonic() - started

    def nats(self) -> int:
        """Return the process id of the nats-server; 0 while there is none."""
        found = [child.pid for child in self.program.children("nats-server")]
        assert len(found) <= 1
        self._nats.update(found)
        return found[0] if found else 0

    def kill_nats(self) -> int:
        """Kill nats-server, which the services restart; return its process id."""
        pid = 0

        def is_there() -> bool:
            nonlocal pid
            pid = self.nats()
            return pid > 0

        until(is_there, "a nats-server")
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self) -> None:
        """Kill the services' process, and check that its nats-server dies with it."""
        if self._program is not None:
            self.nats()
            self._program.kill()
            self.expect_no_nats()

    def stop(self) -> int:
        """Stop everything gracefully; return the exit status."""
        self.nats()
        status = self.program.terminate()
        self.expect_no_nats()
        return status

    def expect_no_nats(self) -> None:
        """Fail when one of the nats-servers that were seen is left."""
        until(lambda: all(gone(pid) for pid in self._nats), "the nats-servers have ended")

    def connect(self, actor: str, timeout: float = scaled(30.0)) -> Client:
        """Return an SDK connection with a timeout for its calls."""
        return Client(self.address, actor=actor, timeout=timeout)


class Pod:
    """A serving pod in its own process, always at the same address and with the same cache.

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
        """Return the current process, or the last one."""
        assert self._program is not None
        return self._program

    @property
    def running(self) -> bool:
        """Return whether the process was started and has not ended."""
        return self._program is not None and self._program.running

    def start(self) -> None:
        """Start the pod; it is not ready yet."""
        self._directory.mkdir(exist_ok=True)
        cache = str(self._directory / "cache")
        command = [
            ROLLFORWARD,
            "serve",
            self._target,
            "--server",
            self._server,
            "--grpc",
            self.address,
            "--cache",
            cache,
        ]
        self.starts.append(time.time_ns())
        self._program = Program(command, self._directory / "pod.log")

    def ready(self) -> None:
        """Wait until the pod serves something; count the time until now as an outage."""
        since, _ = self.program.line("^serving ")
        self.outages.append((self._down_since, since))

    def kill(self) -> None:
        """Kill the pod."""
        self._down_since = time.monotonic()
        self.program.kill()

    def was_down(self, begun: float, ended: float) -> bool:
        """Return whether the pod was down at some moment of a span of time, in seconds of the monotonic clock."""
        return any(begun <= up and ended >= down for down, up in self.outages)
