"""A program that is always started in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.e2e.program import READY_SECONDS, Program, until


class Process:
    """A program with its command, its log and its environment, however often it is started."""

    def __init__(self, command: Sequence[str], log: Path, ready: str, environment: Mapping[str, str]) -> None:
        self._command, self._log, self._ready, self._environment = command, log, ready, environment
        self._program: Program | None = None

    @property
    def pid(self) -> int:
        """Return the id of the current process, or of the last one."""
        assert self._program is not None
        return self._program.pid

    @property
    def log(self) -> Path:
        """Return the file that the process writes its errors to."""
        return self._log

    @property
    def last_lines(self) -> str:
        """Return the end of the process's log."""
        return self._log.read_text(errors="replace")[-3000:]

    def start(self) -> None:
        """Start it; return once it is ready."""
        self.spawn()
        self.ready()

    def spawn(self, *arguments: str) -> None:
        """Start it, with further arguments; it is not ready yet."""
        self._program = Program([*self._command, *arguments], self._log, self._environment)

    def ready(self) -> None:
        """Return once it is ready, where it says so."""
        assert self._program is not None
        if self._ready:
            self._program.line(self._ready)

    def starts(self) -> bool:
        """Return whether it becomes ready, and does not end before."""
        program = self._program
        assert program is not None
        until(lambda: not program.running or self._is_ready(program), f"{self._ready} or an end", READY_SECONDS)
        return self._is_ready(program)

    def _is_ready(self, program: Program) -> bool:
        return any(self._ready in line for _, line in program.lines())

    def kill(self) -> None:
        """End it as a crash would; harmless when it has ended."""
        if self._program is not None:
            self._program.kill()

    def stop(self) -> None:
        """End it in good order."""
        assert self._program is not None
        status = self._program.terminate()
        assert status == 0, f"a service ended with status {status}: {self.last_lines}"

    @property
    def ended(self) -> bool:
        """Return whether the process has ended by itself."""
        return self._program is not None and not self._program.running

    def child(self, name: str) -> int:
        """Return the process id of its child program of a name, once there is one that runs."""
        pids: list[int] = []

        def move_unchanged() -> bool:
            assert self._program is not None
            pids[:] = [child.pid for child in self._program.children(name)]
            return bool(pids)

        until(move_unchanged, f"a {name}")
        return pids[0]
