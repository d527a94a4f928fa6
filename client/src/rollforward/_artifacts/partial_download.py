"""The staging directory of a download: next to its destination, and kept for a retry if the download fails."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rollforward._artifacts.transfer import RESUMABLE_BYTES
from rollforward.errors import InternalError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_ABANDONED_SECONDS: Final = 7 * 24 * 60 * 60  # seconds
_LOCK: Final = "lock"
_SUFFIX: Final = ".part"
# Errors after which a later call may resume the download.
_RESUMABLE_ERRORS: Final = (Unavailable, InternalError, KeyboardInterrupt, SystemExit)


@contextmanager
def staging_directory(digest: str, destination: Path) -> Iterator[Path]:
    """Provide a directory next to `destination` for a download in progress.

    If the download of that digest fails, or its process is killed, the directory stays for a week, and the next
    download to the same destination resumes it. A second concurrent download gets a temporary directory of its own.
    """
    parent = destination.parent
    parent.mkdir(parents=True, exist_ok=True)
    _discard_abandoned(parent)
    folder = parent / f".{digest.removeprefix('sha256:')}{_SUFFIX}"
    lock = _locked(folder)
    if lock is None:
        with tempfile.TemporaryDirectory(prefix=".", suffix=_SUFFIX, dir=parent) as own:
            yield Path(own)
        return
    stays = False
    try:
        yield folder
    except _RESUMABLE_ERRORS:
        stays = _size(folder) >= RESUMABLE_BYTES
        raise
    finally:
        if not stays:
            remove(folder)
        os.close(lock)


def is_staging_directory(path: Path) -> bool:
    """Return whether a path is named like a staging directory."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove(folder: Path) -> None:
    """Remove a directory atomically: rename it first, so that no other process finds half of it."""
    aside = folder.with_name(f".{uuid.uuid4().hex}{_SUFFIX}")
    folder.rename(aside)
    shutil.rmtree(aside)


def _locked(folder: Path) -> int | None:
    """Lock a directory, created if missing; return None if another process or user owns it."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    lock = None
    try:
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return None
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), (folder / _LOCK).lstat()):
            os.utime(lock)
            return lock
    except OSError:  # the file system has no locks, or the directory was removed meanwhile
        pass
    if lock is not None:
        os.close(lock)
    return None


def _discard_abandoned(parent: Path) -> None:
    for path in parent.glob(f".{'[0-9a-f]' * 64}{_SUFFIX}"):
        with suppress(OSError):  # another process removed it, or it belongs to another user
            if time.time() - (path / _LOCK).lstat().st_mtime < _ABANDONED_SECONDS:
                continue
            lock = _locked(path)
            if lock is not None:
                remove(path)
                os.close(lock)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
