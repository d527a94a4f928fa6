"""Files in a directory that several processes share: locks, and files that are written whole and stay after a crash."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO


def try_lock(fd: int) -> bool:
    """Lock an open file for whoever has it open, and return False if it is locked already."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_file(path: Path) -> Callable[[], None] | None:
    """Lock a file, created if it is missing, until the result is called or the process ends; None if it is locked."""
    file = path.open("ab")
    if try_lock(file.fileno()):
        return file.close
    file.close()
    return None


def write_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a file; on return its bytes are on disk."""
    with path.open("wb") as file:
        _write(file, pieces)


def replace_durably(path: Path, pieces: Iterable[bytes]) -> None:
    """Replace a file by another, all or nothing; on return it survives a power cut. Only its owner may read it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            _write(file, pieces)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _write(file: BinaryIO, pieces: Iterable[bytes]) -> None:
    file.writelines(pieces)
    file.flush()
    os.fsync(file.fileno())


def sync_directory(folder: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_name(file: Path, name: Path) -> bool:
    """Give a file a second name, and return whether that name was free."""
    try:
        name.hardlink_to(file)
    except FileExistsError:
        return False
    return True
