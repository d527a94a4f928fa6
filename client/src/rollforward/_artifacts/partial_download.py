"""Where a download gathers its files until all are there: beside its destination, and kept when it breaks off."""

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

from rollforward._artifacts.transfer import RESUMED
from rollforward.errors import InternalError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_ABANDONED: Final = 7 * 24 * 60 * 60  # seconds
_LOCK: Final = "lock"
_SUFFIX: Final = ".part"
# After these a later call may go on with what arrived.
_BROKEN_OFF: Final = (Unavailable, InternalError, KeyboardInterrupt, SystemExit)


@contextmanager
def gathering(digest: str, destination: Path) -> Iterator[Path]:
    """Provide a directory next to `destination` for a download in progress.

    When the download of that digest breaks off, or its program is killed, what arrived stays for the next one into the
    same directory, for a week. Of two at once the later one has a directory of its own, which does not stay.
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
    except _BROKEN_OFF:
        stays = _size(folder) >= RESUMED
        raise
    finally:
        if not stays:
            remove(folder)
        os.close(lock)


def is_part(path: Path) -> bool:
    """Whether something has the name of a directory in which files are gathered."""
    return path.name.startswith(".") and path.name.endswith(_SUFFIX)


def remove(folder: Path) -> None:
    """Remove a directory that others may come to meanwhile: out of the way at once, so that none finds half of it."""
    aside = folder.with_name(f".{uuid.uuid4().hex}{_SUFFIX}")
    folder.rename(aside)
    shutil.rmtree(aside)


def _locked(folder: Path) -> int | None:
    """Lock a directory, created if it is missing; None when another process has it, or it is not this user's."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    lock = None
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), (folder / _LOCK).lstat()):
            os.utime(lock)
            return lock
    except OSError:  # also where a file system has no locks, and when it was removed meanwhile
        pass
    if lock is not None:
        os.close(lock)
    return None


def _discard_abandoned(parent: Path) -> None:
    for path in parent.glob(f".{'[0-9a-f]' * 64}{_SUFFIX}"):
        with suppress(OSError):  # another one was faster, or it is another user's
            if time.time() - (path / _LOCK).lstat().st_mtime < _ABANDONED:
                continue
            lock = _locked(path)
            if lock is not None:
                remove(path)
                os.close(lock)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
