"""Delivery of the journals that dead processes left, and the end of their runs."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward._journal.delivery import Delivery
from rollforward._journal.directory import FIRST_SEGMENT_LOG, Head, Journal, home, journals
from rollforward._journal.records import Count
from rollforward._transport.connection import DEFAULT_TIMEOUT, Connection
from rollforward.errors import InvalidRequest, RollforwardError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike

JournalState = Literal["delivered", "alive", "undelivered"]

# The maximum number of journals that a new run checks.
_MAX_JOURNALS: Final = 100
_OPEN: Final = {v1.RUN_STATUS_UNSPECIFIED, v1.RUN_STATUS_RUNNING, v1.RUN_STATUS_SCHEDULED, v1.RUN_STATUS_LOST}
_UNKNOWN_HEAD: Final = Head("", "", "")
# Errors that block artifacts only, not the other records.
_ARTIFACT_REASONS: Final = {"BLOB_STORE_FULL", "BLOB_STORE_UNAVAILABLE"}


class Synced(NamedTuple):
    """The result for one journal."""

    run_id: str
    state: JournalState
    """"delivered": it is removed; "alive": a process still writes or delivers it; "undelivered": see `reason`."""
    delivered: Count
    refused: Count
    waiting_bytes: int
    reason: str
    message: str
    folder: Path


def sync(
    directory: str | PathLike[str] | None = None,
    *,
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    progress: Callable[[int, int], None] | None = None,
) -> list[Synced]:
    """Deliver the journals of processes that are gone, below `directory` (default: where journals are kept).

    Each journal is delivered exactly once, however often this is called: to the service that its process used, or to
    `address`, in the name of its actor. A run that its process did not end, and for which it sent no heartbeats, ends
    as FAILED at the time of its last record.

    Args:
        directory: A directory of journals, of a run's journals, or one journal.
        address: The address to deliver to, instead of the journals' own.
        timeout: Seconds for each call, with all its retries.
        progress: Called with the bytes done and in all.

    Returns:
        A result for each journal.

    Raises:
        OSError: `directory` does not exist.
    """
    root = home() if directory is None else Path(directory)
    if directory is not None and not root.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))
    left = list(_open_journals(root))
    meter, unreachable = _ProgressMeter(left, progress), dict[str, Unavailable]()
    results: dict[Path, Synced] = {}
    while left:
        for journal in left:
            target = _Target(address or journal.head.address, timeout, unreachable)
            results[journal.folder] = _sync(journal, target, meter)
        early = [journal for journal in left if results[journal.folder].reason == "RUN_NOT_FOUND"]
        # A journal that came later may have started their run, or its parent run.
        left = early if len(early) < len(left) else []
    return list(results.values())


def count_waiting(directory: Path | None = None) -> int:
    """Return the number of undelivered journals whose process is gone, from a quick look at the first 100."""
    try:
        return sum(map(_is_waiting, islice(journals(directory or home()), _MAX_JOURNALS)))
    except OSError:
        return 0


def _is_waiting(folder: Path) -> bool:
    journal = Journal(folder, _UNKNOWN_HEAD)
    try:
        # A journal without segment logs is just being created or removed by a live process.
        return bool(journal.segment_logs()) and journal.lock() and bool(journal.segment_logs())
    except OSError:
        return False
    finally:
        journal.unlock()


def _open_journals(directory: Path) -> Iterator[Journal]:
    opened = []
    for folder in journals(directory):
        try:
            opened.append(Journal.open(folder))
        except FileNotFoundError:
            # Another process has just delivered and removed it.
            continue
        except (OSError, ValueError):
            opened.append(Journal(folder, replace(_UNKNOWN_HEAD, run_id=folder.parent.name)))
    # A worker's journal after the one that may start the run.
    yield from sorted(opened, key=lambda journal: (journal.head.run_id, journal.head.worker, journal.folder))


class _Target(NamedTuple):
    """The services to deliver to."""

    address: str
    timeout: float
    unreachable: dict[str, Unavailable]
    """By address, the error of a service that did not answer: later journals do not wait for it again."""


class _ProgressMeter:
    """The progress of a sync, in bytes of all journals."""

    def __init__(self, journals: Sequence[Journal], progress: Callable[[int, int], None] | None) -> None:
        self._left = {journal.folder: journal.size() for journal in journals}
        self._waiting = self._total = sum(self._left.values())
        self._progress = progress

    def note(self, journal: Journal, left: int) -> None:
        """Note how many bytes of a journal are left."""
        self._waiting += left - self._left[journal.folder]
        self._left[journal.folder] = left
        # Records that are still being written add to both.
        self._total = max(self._total, self._waiting)
        if self._progress is not None:
            self._progress(self._total - self._waiting, self._total)


def _sync(journal: Journal, target: _Target, meter: _ProgressMeter) -> Synced:
    counts = _SyncCounts(journal)
    try:
        state = _try(journal, target, counts, meter)
    except RollforwardError as error:
        if isinstance(error, Unavailable) and error.reason not in _ARTIFACT_REASONS:
            target.unreachable[target.address] = error
        return counts.result("undelivered", error)
    except FileNotFoundError:
        # Another process has just delivered it.
        return counts.result("delivered")
    except (OSError, ValueError) as error:
        return counts.result("undelivered", InvalidRequest("INVALID_JOURNAL", str(error)))
    finally:
        journal.unlock()
    return counts.result(state)


def _try(journal: Journal, target: _Target, counts: _SyncCounts, meter: _ProgressMeter) -> JournalState:
    if not journal.lock():
        return "alive"
    if not journal.head.actor:
        message = f"{journal.folder} has no readable metadata: sync it as the user who wrote it, or remove it"
        raise InvalidRequest("INVALID_JOURNAL", message)
    if target.address in target.unreachable:
        raise target.unreachable[target.address]
    with Connection(target.address, actor=journal.head.actor, timeout=target.timeout) as connection:
        return _deliver(journal, connection, counts, meter)


def _deliver(journal: Journal, connection: Connection, counts: _SyncCounts, meter: _ProgressMeter) -> JournalState:
    left = artifact_bytes = 0

    def note_upload(done: int, _total: int) -> None:
        meter.note(journal, max(0, left - done))

    delivery = Delivery(
        journal,
        connection,
        on_rejected=counts.reject,
        on_settled=counts.settle,
        on_uploaded=note_upload,
        call_timeout=connection.timeout,
        # A forked process may continue to log for days.
        ends=journal.ends(),
    )
    status = _status(connection, journal.head.run_id)
    last = _last_written(journal)
    left, artifact_bytes = journal.size(), journal.artifact_bytes()
    while delivery.round():
        artifact_bytes = artifact_bytes and journal.artifact_bytes()
        left = artifact_bytes + sum(reader.waiting_bytes() for reader in delivery.readers.values())
        meter.note(journal, left)
    first = delivery.readers.get(FIRST_SEGMENT_LOG)
    if first is not None and not first.cursor.ended and _is_abandoned(journal, status):
        _end(connection, journal, last)
    if not delivery.sweep():
        return "alive"
    journal.remove()
    return "delivered"


def _is_abandoned(journal: Journal, status: v1.RunStatus.ValueType) -> bool:
    """Return whether no other process will end the run, given its status before the delivery."""
    if journal.head.worker or status not in _OPEN or (journal.head.heartbeat and status != v1.RUN_STATUS_LOST):
        return False
    # The job may have been restarted on this machine.
    others = (folder for folder in journals(journal.folder.parent) if folder != journal.folder)
    return all(map(_is_waiting, others))


def _end(connection: Connection, journal: Journal, last: float) -> None:
    """End the run as failed, as of its last record."""
    moment = Timestamp()
    moment.FromNanoseconds(int(last * 1e9))
    request = v1.FinishRunRequest(
        run_id=journal.head.run_id,
        status=v1.RUN_STATUS_FAILED,
        end_time=moment,
        request_id=hashlib.sha256(f"{journal.folder.name}/end".encode()).hexdigest()[:32],
    )
    connection.call(connection.tracking.FinishRun, request)


def _status(connection: Connection, run_id: str) -> v1.RunStatus.ValueType:
    try:
        return connection.call(connection.tracking.GetRun, v1.GetRunRequest(run_id=run_id)).run.status
    except RollforwardError as error:
        if error.reason != "RUN_NOT_FOUND":
            raise
        return v1.RUN_STATUS_UNSPECIFIED


def _last_written(journal: Journal) -> float:
    paths = [path for segment_log in journal.segment_logs() for path in journal.segments(segment_log).values()]
    return max((path.stat().st_mtime for path in paths), default=time.time())


class _SyncCounts:
    """The numbers of delivered and rejected records."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._size = journal.size()
        self._delivered = self._rejected = Count(0, 0)
        self._failure: RollforwardError | None = None

    def settle(self, content: Count) -> None:
        self._delivered = self._delivered.plus(content)

    def reject(self, content: Count, failure: RollforwardError) -> None:
        self._rejected = self._rejected.plus(content)
        self._failure = self._failure or failure

    def result(self, state: JournalState, failure: RollforwardError | None = None) -> Synced:
        failure = failure or self._failure
        reason, message = (failure.reason, failure.message) if failure else ("", "")
        journal = self._journal
        waiting_bytes = self._size if state == "alive" else self._left()
        return Synced(
            journal.head.run_id, state, self._delivered, self._rejected, waiting_bytes, reason, message, journal.folder
        )

    def _left(self) -> int:
        try:
            return self._journal.size()
        except FileNotFoundError:
            return 0
