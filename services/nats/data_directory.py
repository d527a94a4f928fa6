"""The lock of a data directory: one owner at a time, released when its last process ends."""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Self

from eventstore import try_lock

_GRACE = 1.0  # seconds: a killed process takes a moment to end
_POLL = 0.01  # seconds


class DataDirectoryError(Exception):
    """A data directory cannot be used."""


class DataDirectoryInUse(DataDirectoryError):
    """Process `pid` has the lock of data directory `path` (None: the holder cannot be named)."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(
            f"data directory {path} is in use by process {pid or 'unknown'}. Stop it, or use another directory"
        )
        self.path = path
        self.pid = pid


class DataDirectoryUnusable(DataDirectoryError):
    """Data directory `path` cannot hold a log, for the cause `fault`."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"cannot use data directory {path}: {fault}")
        self.path = path
        self.fault = fault

    @classmethod
    def from_os_error(cls, path: Path, error: OSError) -> Self:
        """Return the error with the operating system's message."""
        return cls(path, error.strerror or str(error))


class DirectoryLock:
    """A held `flock` on `DATA/lock`; the file names the pids of the owner and of the child that shares the lock.

    The lock belongs to the open file, so a child given `fd` keeps the directory locked if it outlives the owner.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    async def acquire(cls, data: Path, name: str = "lock") -> Self:
        """Create the directory `data` (mode 0700) if necessary, and lock it, or the file `name` in it.

        Raises `DataDirectoryInUse` naming the holder, `DataDirectoryUnusable` if `data` cannot be written by this
        user or can be by every user.
        """
        lock = cls(_open(data, name))
        try:
            await lock._take(data)
        except BaseException as error:
            os.close(lock.fd)
            if isinstance(error, OSError):
                raise DataDirectoryUnusable.from_os_error(data, error) from error
            raise
        return lock

    def name_holders(self, child: int | None = None) -> None:
        """Write the lock's owners, this process and its child, to the file."""
        pids = [os.getpid()] if child is None else [os.getpid(), child]
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, " ".join(map(str, pids)).encode(), 0)

    def release(self) -> None:
        """Unlock it, even if a child process still has the file open."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)

    def leave(self) -> None:
        """Close this process's file: the directory stays locked until the child has ended too."""
        os.close(self.fd)

    async def _take(self, data: Path) -> None:
        for _ in range(round(_GRACE / _POLL)):
            if try_lock(self.fd):
                return self.name_holders()
            await asyncio.sleep(_POLL)
        raise DataDirectoryInUse(data, self._holder())

    def _holder(self) -> int | None:
        """Return the owner's pid, or its child's if only that still lives."""
        pids = map(int, os.pread(self.fd, 64, 0).split())
        return next(filter(_alive, pids), None)


def _open(data: Path, name: str) -> int:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if data.stat().st_mode & 0o002:
            raise DataDirectoryUnusable(data, "every local user can write to it. Restrict it with chmod o-w")
        (data / name).parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(data / name, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DataDirectoryUnusable.from_os_error(data, error) from error


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
