"""Files in a directory that several processes share: locks, and files that are written whole."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path


def locked(path: Path) -> Callable[[], None] | None:
    """Locks a file, made when it is missing, until what is returned is called or the process ends.

    None: another one has the lock.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file.close


def write_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file; on return its bytes are on disk."""
    with path.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def take_name(file: Path, name: Path) -> bool:
    """Give a file a second name, and return whether that name was free."""
    try:
        name.hardlink_to(file)
    except FileExistsError:
        return False
    return True
