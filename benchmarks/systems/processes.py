"""Programs that a benchmark starts, which end with it, children included."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from services.nats.process import leashed

_TIMEOUT_SECONDS = 20.0  # seconds, for a program to end in good order
_SETTLING_LIMIT = 90.0  # seconds
_QUIET = 0.1  # of one core


class DidNotStart(Exception):
    """A program ended, or printed nothing, before it was ready; the text is its output."""


@contextmanager
def program(
    command: list[str], environment: Mapping[str, str] | None = None, ready: str = ""
) -> Iterator[tuple[str, int]]:
    """Run a program until it says a line with `ready` in it, by default any; yield that line and the program's id.

    Raises DidNotStart: the program ended before it said so.
    """
    with subprocess.Popen(
        leashed(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    ) as process:
        try:
            lines: Iterable[str] = process.stdout or ()
            said = next((line for line in lines if ready in line), "")
            if not said:
                raise DidNotStart(" ".join(command))
            yield said.strip(), process.pid
        finally:
            end(process)


@contextmanager
def silent_program(command: list[str], home: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a directory, with its output in the file `log`."""
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(
            leashed(command),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            end(process)


def wait_until_quiet(pid: int) -> None:
    """Wait until a program and its children are almost idle, which ends their start.

    Raises DidNotStart.
    """
    deadline = time.monotonic() + _SETTLING_LIMIT
    used, quiet = cpu_seconds([pid]), 0
    while quiet < 3:
        if time.monotonic() > deadline:
            raise DidNotStart(f"process {pid} did not come to rest")
        time.sleep(1.0)
        before, used = used, cpu_seconds([pid])
        quiet = quiet + 1 if used - before < _QUIET else 0


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that programs and their children have used."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def memory_bytes(pids: Iterable[int]) -> int:
    """Return the memory that programs and their children use."""
    total = 0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Stop a program and its children: first with SIGTERM, then with SIGKILL."""
    family: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_TIMEOUT_SECONDS)
    process.kill()
    process.wait()
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=_TIMEOUT_SECONDS)
