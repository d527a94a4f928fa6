"""The processes that the demo starts: each with a log, and all of them ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from services.demo.console import StepFailed
from services.nats.process import leashed

STOP_SECONDS = 15.0
_POLL = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The demo's system is its own: settings meant for another one must not reach it.
_KEPT = frozenset({"ROLLFORWARD_ACTOR", "ROLLFORWARD_LOG", "ROLLFORWARD_NATS_SERVER"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Child:
    """A process, and the file that holds all it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[str]:
        """Return the output so far."""
        return self.log.read_text(errors="replace").splitlines()

    def check(self) -> None:
        """Raise StepFailed if it has ended, unless it ended well."""
        if self.process.poll():
            last = "\n".join(self.lines()[-15:])
            raise StepFailed(f"{self.name} ended with {self.process.returncode}:\n{last}")


class Children:
    """Starts processes; as a context manager it ends them all, the last one first, on signals too."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._starting = False
        self._signal = 0

    def start(self, name: str, module: str, *arguments: str) -> Child:
        """Start a Python module as a process, `python -m module arguments`."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ROLLFORWARD_") or key in _KEPT}
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        journal = {"ROLLFORWARD_JOURNAL": str(self._logs / "journal")}
        log = self._logs / f"{name}.log"
        with self._undisturbed(), log.open("wb") as output:
            # A process group of its own: Ctrl-C reaches the demo alone, which ends the others in order. The leash ends
            # them when the demo itself is killed.
            process = subprocess.Popen(
                leashed([sys.executable, "-P", "-m", module, *arguments]),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=kept | quiet | journal,
                process_group=0,
            )
            child = Child(name, process, log)
            self._children.append(child)
        return child

    def check(self) -> None:
        """Raise StepFailed if one of them failed."""
        for child in self._children:
            child.check()

    def wait_for(self, condition: str, result_of: Callable[[], _T | None], seconds: float = 60.0) -> _T:
        """Wait for a result that is not None. Raises StepFailed if a process fails or on a timeout."""
        deadline = time.monotonic() + seconds
        while (value := result_of()) is None:
            self.check()
            if time.monotonic() > deadline:
                raise StepFailed(f"{condition}: nothing within {seconds:.0f} s")
            time.sleep(_POLL)
        return value

    def stop(self) -> None:
        """End all processes in good order, those that do not by force."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
            try:
                child.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            if child.process.stdin:
                child.process.stdin.close()
        self._children.clear()

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._leave) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nothing may interrupt the ending, or it would leave processes behind.
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.stop()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        # A signal amid the start of a process would leave one that is on no list.
        self._starting = True
        try:
            yield
        finally:
            self._starting = False
        if self._signal:
            raise SystemExit(128 + self._signal)

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        if not self._starting:
            raise SystemExit(128 + number)
