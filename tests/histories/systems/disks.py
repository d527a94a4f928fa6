"""A small disk for a data directory, which can be filled: a tmpfs, where this user may mount one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

MEGABYTES = 160
_SOURCE = "rollforward-histories-"
_BALLAST = "ballast"
_BLOCK = 4096


class Disk:
    """A small disk at a directory."""

    def __init__(self, home: Path) -> None:
        self._ballast = home / _BALLAST

    @contextmanager
    def full(self) -> Iterator[None]:
        """Take all of its room."""
        try:
            self._fill()
            yield
        finally:
            self._ballast.unlink(missing_ok=True)

    def _fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            status = os.statvfs(self._ballast)
            block = max(_BLOCK, status.f_bavail * status.f_frsize // 2)
            while block >= _BLOCK:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), block)
                except OSError:
                    block //= 2


@contextmanager
def small_disk(home: Path) -> Iterator[Disk | None]:
    """Mount a small disk at a new directory; None where that is not permitted."""
    home.mkdir()
    source = f"{_SOURCE}{os.getpid()}"
    command = ["/bin/mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0700", source, str(home)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        yield None
        return
    try:
        yield Disk(home)
    finally:
        _unmount(str(home))


def unmount_abandoned() -> None:
    """Remove the disks of checkers that were killed."""
    mounts = Path("/proc/self/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        found = re.match(rf"{_SOURCE}(\d+) (\S+) ", line)
        if found and not psutil.pid_exists(int(found[1])):
            _unmount(found[2])


def _unmount(path: str) -> None:
    # Lazily: processes with open files on it are about to end.
    subprocess.run(["/bin/umount", "-l", path], capture_output=True, check=False)
