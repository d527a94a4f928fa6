"""Journals on disk: their directories, owners and locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from rollforward._journal.cursor import Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The segment log of the process that owns the journal; forked processes use other names.
FIRST_SEGMENT_LOG: Final = "0"
ARTIFACTS: Final = "artifacts"

_HEAD: Final = "head.json"
_LOCK: Final = "lock"


def home() -> Path:
    """Return the directory of all journals: ROLLFORWARD_JOURNAL, else below $XDG_STATE_HOME or ~/.local/state.

    Raises:
        FileNotFoundError: There is no home directory.
    """
    configured, state = os.environ.get("ROLLFORWARD_JOURNAL"), os.environ.get("XDG_STATE_HOME")
    try:
        if configured:
            return Path(configured).expanduser()
        return (Path(state) if state else Path.home() / ".local/state") / "rollforward/journal"
    except RuntimeError as error:
        message = "no home directory for journals: set ROLLFORWARD_JOURNAL to a directory"
        raise FileNotFoundError(errno.ENOENT, message) from error


def acquire_lock(path: Path) -> int | None:
    """Lock a file and return its descriptor; None if it is locked already, by another process or this one.

    The lock is released when the process ends, even if it crashes.

    Raises:
        OSError: See the message.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        # The previous owner removed the file meanwhile.
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Head:
    """The metadata that the delivery of a journal needs."""

    run_id: str
    address: str
    """The address of the services."""
    actor: str
    """The actor of the calls: a request id identifies a request of one actor, so retries must name the same."""
    worker: bool = False
    """Whether its process is one of several of the run, and another one ends the run."""
    heartbeat: bool = False
    """Whether the process sends heartbeats, so that the service notices when it dies."""


class Journal:
    """The journal of one process for one run: a directory, locked by the process that delivers it.

    It holds a segment log for its process and one for each process forked from it: segments NAME.<number>, a cursor
    and a lock.
    """

    def __init__(self, folder: Path, head: Head) -> None:
        self.folder = folder
        self.head = head
        self._lock: int | None = None

    @classmethod
    def create(cls, head: Head, directory: Path | None = None) -> Self:
        """Create a locked journal below `directory`, by default home().

        Raises:
            OSError: See the message.
        """
        run = (directory or home()) / head.run_id
        while True:
            journal = cls(run / uuid.uuid4().hex[:16], head)
            journal.ensure()
            # A sync may have found the journal meanwhile, and removed it because it is empty.
            with contextlib.suppress(FileNotFoundError):
                if journal.lock():
                    journal.ensure()
                    return journal
            shutil.rmtree(journal.folder, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing journal.

        Raises:
            OSError: See the message.
            ValueError: Its metadata is damaged.
        """
        try:
            return cls(folder, Head(**json.loads((folder / _HEAD).read_text())))
        except TypeError as error:
            raise ValueError(f"invalid journal metadata in {folder / _HEAD}") from error

    def ensure(self) -> None:
        """Create the directory if it is missing.

        Raises:
            OSError: See the message.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        head = self.folder / _HEAD
        if not head.exists():
            scratch = self.folder / f".{uuid.uuid4().hex}"
            scratch.write_text(json.dumps(asdict(self.head)))
            scratch.replace(head)

    def lock(self) -> bool:
        """Lock the journal for delivery; return False if another process has locked it.

        Raises:
            OSError: See the message.
        """
        if self._lock is None:
            self._lock = acquire_lock(self.folder / _LOCK)
        return self._lock is not None

    def unlock(self) -> None:
        """Release the lock, so that another process can deliver the journal."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def segment_logs(self) -> list[str]:
        """Return the names of the segment logs, that of the journal's own process first."""
        return sorted(
            (path.stem for path in self.folder.glob("*.lock")), key=lambda name: (name != FIRST_SEGMENT_LOG, name)
        )

    def segments(self, segment_log: str) -> dict[int, Path]:
        """Return the files of a segment log by number, in order."""
        paths = {int(path.suffix[1:]): path for path in self.folder.glob(f"{segment_log}.[0-9]*")}
        return dict(sorted(paths.items()))

    def ends(self) -> dict[str, Position]:
        """Return the current end of each segment log."""
        segments = {segment_log: self.segments(segment_log) for segment_log in self.segment_logs()}
        return {
            segment_log: Position(*max((number, _size_of(path)) for number, path in files.items()))
            for segment_log, files in segments.items()
            if files
        }

    def cursor(self, segment_log: str) -> Path:
        """Return the cursor file of a segment log."""
        return self.folder / f"{segment_log}.cursor"

    def segment_log_lock(self, segment_log: str) -> Path:
        """Return the file that the writer of a segment log keeps locked."""
        return self.folder / f"{segment_log}.lock"

    def artifact(self, request_id: str) -> Path:
        """Return the folder with the files of an artifact."""
        return artifact_folder(self.folder, request_id)

    def size(self) -> int:
        """Return the size of the undelivered segments and artifacts, in bytes."""
        segment_logs = sum(
            _size_of(path) for segment_log in self.segment_logs() for path in self.segments(segment_log).values()
        )
        return segment_logs + self.artifact_bytes()

    def artifact_bytes(self) -> int:
        """Return the size of the undelivered artifacts, in bytes."""
        return bytes_below(self.folder / ARTIFACTS)

    def remove_segment_log(self, segment_log: str, is_delivered: Callable[[], bool]) -> bool:
        """Remove a segment log if no process writes to it and all of it is delivered; return whether it was removed.

        `is_delivered` is called while the segment log is locked.
        """
        lock = acquire_lock(self.segment_log_lock(segment_log))
        if lock is None:
            return False
        try:
            if not is_delivered():
                return False
            # The cursor goes last: segments without a cursor would be sent again.
            for path in self.segments(segment_log).values():
                path.unlink()
            self.cursor(segment_log).unlink(missing_ok=True)
            self.segment_log_lock(segment_log).unlink()
        finally:
            os.close(lock)
        return True

    def remove(self) -> None:
        """Remove the directory of a journal that has no segment logs and that this process has locked."""
        shutil.rmtree(self.folder / ARTIFACTS, ignore_errors=True)
        for path in self.folder.glob(".*"):
            path.unlink()
        (self.folder / _HEAD).unlink(missing_ok=True)
        (self.folder / _LOCK).unlink(missing_ok=True)
        self.unlock()
        try:
            self.folder.rmdir()
        except OSError:
            # A forked process has just started a segment log: keep the journal.
            self.ensure()
            return
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def artifact_folder(folder: Path, request_id: str) -> Path:
    """Return the folder with the files of an artifact in a journal."""
    return folder / ARTIFACTS / request_id


def bytes_below(root: Path, *, without: str = "") -> int:
    """Return the size of all files below a directory, except those in folders named `without`.

    Raises:
        OSError: See the message.
    """
    total = 0
    for folder, names, files in os.walk(root):
        if without in names:
            names.remove(without)
        total += sum(_size_of(Path(folder, name)) for name in files)
    return total


def journals(directory: Path) -> Iterator[Path]:
    """Yield the folders of the journals below a directory of journals, of a run, or of one journal."""
    if (directory / _HEAD).is_file():
        yield directory
        return
    for pattern in (f"*/{_HEAD}", f"*/*/{_HEAD}"):
        yield from (head.parent for head in directory.glob(pattern))


def _size_of(path: Path) -> int:
    # The delivery may have removed the file meanwhile.
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
