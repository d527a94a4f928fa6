"""A process of a test: its output, ways to kill it, and a guarantee that it never outlives the tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from services.nats.process import leashed
from tests.timeouts import scaled

ROOT = Path(__file__).parents[2]
READY_SECONDS = scaled(40.0)
STOP_SECONDS = scaled(30.0)


def until(condition: Callable[[], bool], what: str, seconds: float = scaled(30.0)) -> None:
    """Wait until a condition without an event becomes true; fail the test when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def gone(pid: int) -> bool:
    """Return whether a process has ended, even if nobody has waited for it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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
        """Return the process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.poll() is None

    @property
    def errors(self) -> str:
        """Return the standard error of this process and its predecessors with the same log."""
        return self._log.read_text()

    def line(self, pattern: str, seconds: float = READY_SECONDS) -> tuple[float, str]:
        """Return the first matching line, once it was printed, and when (monotonic seconds)."""

        def found() -> tuple[float, str] | None:
            return next((entry for entry in self._lines if re.search(pattern, entry[1])), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._ended, seconds)
            entry = found()
        assert entry, f"no line {pattern!r} but {self._lines}; {self._log.name} ends with: {self.errors[-3000:]}"
        return entry

    def lines(self) -> list[tuple[float, str]]:
        """Return all lines so far, each with when (monotonic seconds) it was printed."""
        with self._changed:
            return list(self._lines)

    def kill(self) -> None:
        """Kill the process with SIGKILL; do nothing when it has ended."""
        self._process.kill()
        self._finish()

    def terminate(self) -> int:
        """Stop the process with SIGTERM; return its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait until the process ends by itself; return its exit status."""
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._finish()
        return self._process.returncode

    def children(self, name: str) -> list[psutil.Process]:
        """Return its child processes with a name."""
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
