"""Journals on disk: where they are, whose they are, and who may touch them."""

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

from rollforward._journal.cursor import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The strand of the process that a journal belongs to; those of processes forked from it bear other names.
FIRST_STRAND: Final = "0"
ARTIFACTS: Final = "artifacts"

_HEAD: Final = "head.json"
_LOCK: Final = "lock"


def home() -> Path:
    """Return the directory of all journals: ROLLFORWARD_JOURNAL, else below $XDG_STATE_HOME or ~/.local/state.

    Raises FileNotFoundError when there is no home directory.
    """
    chosen, state = os.environ.get("ROLLFORWARD_JOURNAL"), os.environ.get("XDG_STATE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(state) if state else Path.home() / ".local/state") / "rollforward/journal"
    except RuntimeError as error:
        message = "there is no home directory, and ROLLFORWARD_JOURNAL does not say where journals are"
        raise FileNotFoundError(errno.ENOENT, message) from error


def take_lock(path: Path) -> int | None:
    """Lock a file and return its descriptor; None while another process, or another part of this one, has it.

    The lock ends with the process, however it ends.

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
        # Whoever had it before has removed the file meanwhile.
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Head:
    """What whoever delivers a journal must know."""

    run_id: str
    address: str
    """Where the services are."""
    actor: str
    """Who acts: request ids count per actor, so that a repetition must be the same one's."""
    worker: bool = False
    """Whether its process is one of several of the run, and not the one that ends it."""
    heartbeat: bool = False
    """Whether the service notices by itself that the job died."""


class Journal:
    """The journal of one process for one run: a directory, locked by whoever delivers it.

    It holds a strand for that process and one for each process forked from it: segments NAME.<number>, a cursor and
    a lock.
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
            # Somebody who looks for what was left behind may just have found it, and found it empty.
            with contextlib.suppress(FileNotFoundError):
                if journal.lock():
                    journal.ensure()
                    return journal
            shutil.rmtree(journal.folder, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a journal that exists.

        Raises:
            OSError: See the message.
            ValueError: When it does not say whose it is.
        """
        try:
            return cls(folder, Head(**json.loads((folder / _HEAD).read_text())))
        except TypeError as error:
            raise ValueError(f"{folder / _HEAD} cannot be read") from error

    def ensure(self) -> None:
        """Make the directory, if it is not there.

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
        """Become the one who delivers it; False when somebody is.

        Raises:
            OSError: See the message.
        """
        if self._lock is None:
            self._lock = take_lock(self.folder / _LOCK)
        return self._lock is not None

    def unlock(self) -> None:
        """Leave the delivering to others."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def segment_logs(self) -> list[str]:
        """Return the names of its segment logs, that of the journal's own process first."""
        return sorted((path.stem for path in self.folder.glob("*.lock")), key=lambda name: (name != FIRST_STRAND, name))

    def segments(self, segment_log: str) -> dict[int, Path]:
        """Return the files of a segment log by number, in order."""
        found = {int(path.suffix[1:]): path for path in self.folder.glob(f"{segment_log}.[0-9]*")}
        return dict(sorted(found.items()))

    def ends(self) -> dict[str, Place]:
        """Where each strand ends now."""
        segments = {segment_log: self.segments(segment_log) for segment_log in self.segment_logs()}
        return {
            segment_log: Place(*max((number, _size_of(path)) for number, path in files.items()))
            for segment_log, files in segments.items()
            if files
        }

    def cursor(self, segment_log: str) -> Path:
        """Return the file that says how far a segment log was delivered."""
        return self.folder / f"{segment_log}.cursor"

    def strand_lock(self, segment_log: str) -> Path:
        """Return the file that the writer of a segment log keeps locked."""
        return self.folder / f"{segment_log}.lock"

    def artifact(self, request_id: str) -> Path:
        """Where the files of an artifact wait."""
        return artifact_folder(self.folder, request_id)

    def size(self) -> int:
        """How many bytes wait in its strands and artifacts."""
        segment_logs = sum(
            _size_of(path) for segment_log in self.segment_logs() for path in self.segments(segment_log).values()
        )
        return segment_logs + self.artifact_bytes()

    def artifact_bytes(self) -> int:
        """How many bytes wait in its artifacts."""
        return bytes_below(self.folder / ARTIFACTS)

    def remove_strand(self, segment_log: str, is_delivered: Callable[[], bool]) -> bool:
        """Remove a strand if no process writes it any more and then, still, all of it is delivered; whether it was."""
        held = take_lock(self.strand_lock(segment_log))
        if held is None:
            return False
        try:
            if not is_delivered():
                return False
            # The cursor after what it speaks of: without it everything would be sent again.
            for path in self.segments(segment_log).values():
                path.unlink()
            self.cursor(segment_log).unlink(missing_ok=True)
            self.strand_lock(segment_log).unlink()
        finally:
            os.close(held)
        return True

    def remove(self) -> None:
        """Remove the directory of a journal without strands that this process has locked."""
        shutil.rmtree(self.folder / ARTIFACTS, ignore_errors=True)
        for path in self.folder.glob(".*"):
            path.unlink()
        (self.folder / _HEAD).unlink(missing_ok=True)
        (self.folder / _LOCK).unlink(missing_ok=True)
        self.unlock()
        try:
            self.folder.rmdir()
        except OSError:
            # A forked process has just begun a strand: it stays.
            self.ensure()
            return
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def artifact_folder(folder: Path, request_id: str) -> Path:
    """Where the files of an artifact wait in a journal."""
    return folder / ARTIFACTS / request_id


def bytes_below(place: Path, *, without: str = "") -> int:
    """How many bytes all files below a place have, but for those in folders of the name `without`.

    Raises:
        OSError: See the message.
    """
    total = 0
    for folder, names, files in os.walk(place):
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
    # Whoever delivers may just have removed it.
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
