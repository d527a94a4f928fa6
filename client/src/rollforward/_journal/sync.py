"""Delivers what jobs left behind in their journals, and says how those runs ended that nobody else will end."""

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
from rollforward._journal.directory import FIRST_STRAND, Head, Journal, home, journals
from rollforward._journal.records import Count
from rollforward._transport.connection import DEFAULT_TIMEOUT, Connection
from rollforward.errors import InvalidRequest, RollforwardError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike

State = Literal["delivered", "alive", "undelivered"]

# A new run looks no further for what others left behind.
_LOOK: Final = 100
_OPEN: Final = {v1.RUN_STATUS_UNSPECIFIED, v1.RUN_STATUS_RUNNING, v1.RUN_STATUS_SCHEDULED, v1.RUN_STATUS_LOST}
_NOBODY: Final = Head("", "", "")
# What keeps artifacts from being delivered, and nothing else.
_OF_ARTIFACTS: Final = {"BLOB_STORE_FULL", "BLOB_STORE_UNAVAILABLE"}


class Synced(NamedTuple):
    """What became of one journal."""

    run_id: str
    state: State
    """"delivered": it is gone; "alive": a process still writes or delivers it; "undelivered": `reason` says why."""
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
    """Deliver the journals whose process is gone, below `directory` (else where journals are kept by default).

    Each goes to the service that its job meant, else to `address`, in the name of who logged it, exactly once, however
    often this is tried. A run that its job neither ended nor promised to stay in touch for ends as FAILED, at its last
    record. `progress` is called with the bytes done and in all. Raises OSError when there is no such directory.
    """
    place = home() if directory is None else Path(directory)
    if directory is not None and not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    left = list(_open_journals(place))
    meter, away = _Meter(left, progress), dict[str, Unavailable]()
    results: dict[Path, Synced] = {}
    while left:
        for journal in left:
            way = _ScanPlan(address or journal.head.address, timeout, away)
            results[journal.folder] = _sync(journal, way, meter)
        early = [journal for journal in left if results[journal.folder].reason == "RUN_NOT_FOUND"]
        # Their run, or the one that it is a part of, may have been started by a journal that came later.
        left = early if len(early) < len(left) else []
    return list(results.values())


def waiting(directory: Path | None = None) -> int:
    """How many journals wait whose process is gone, as far as a quick look tells."""
    try:
        return sum(map(_is_left, islice(journals(directory or home()), _LOOK)))
    except OSError:
        return 0


def _is_left(folder: Path) -> bool:
    journal = Journal(folder, _NOBODY)
    try:
        # One without strands is just being begun or removed, by a job that lives.
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
            # Whoever delivers it has just removed it.
            continue
        except (OSError, ValueError):
            opened.append(Journal(folder, replace(_NOBODY, run_id=folder.parent.name)))
    # A worker's goes after the one that may start the run.
    yield from sorted(opened, key=lambda journal: (journal.head.run_id, journal.head.worker, journal.folder))


class _ScanPlan(NamedTuple):
    """Where to."""

    address: str
    timeout: float
    away: dict[str, Unavailable]
    """What did not answer: it is not waited for again, for each journal."""


class _Meter:
    """Tells how many bytes of all journals are done."""

    def __init__(self, found: Sequence[Journal], tell: Callable[[int, int], None] | None) -> None:
        self._left = {journal.folder: journal.size() for journal in found}
        self._waiting = self._total = sum(self._left.values())
        self._tell = tell

    def note(self, journal: Journal, left: int) -> None:
        """So many bytes are left of a journal."""
        self._waiting += left - self._left[journal.folder]
        self._left[journal.folder] = left
        # What still is written adds to both.
        self._total = max(self._total, self._waiting)
        if self._tell is not None:
            self._tell(self._total - self._waiting, self._total)


def _sync(journal: Journal, way: _ScanPlan, meter: _Meter) -> Synced:
    tally = _Tally(journal)
    try:
        state = _try(journal, way, tally, meter)
    except RollforwardError as error:
        if isinstance(error, Unavailable) and error.reason not in _OF_ARTIFACTS:
            way.away[way.address] = error
        return tally.result("undelivered", error)
    except FileNotFoundError:
        # Somebody else has just delivered it.
        return tally.result("delivered")
    except (OSError, ValueError) as error:
        return tally.result("undelivered", InvalidRequest("INVALID_JOURNAL", str(error)))
    finally:
        journal.unlock()
    return tally.result(state)


def _try(journal: Journal, way: _ScanPlan, tally: _Tally, meter: _Meter) -> State:
    if not journal.lock():
        return "alive"
    if not journal.head.actor:
        message = f"{journal.folder} does not say, or not to this user, whose it is"
        raise InvalidRequest("INVALID_JOURNAL", message)
    if way.address in way.away:
        raise way.away[way.address]
    with Connection(way.address, actor=journal.head.actor, timeout=way.timeout) as link:
        return _deliver(journal, link, tally, meter)


def _deliver(journal: Journal, link: Connection, tally: _Tally, meter: _Meter) -> State:
    left = held = 0

    def note_upload(done: int, _total: int) -> None:
        meter.note(journal, max(0, left - done))

    delivery = Delivery(
        journal,
        link,
        refused=tally.refuse,
        settled=tally.settle,
        uploaded=note_upload,
        patience=link.timeout,
        # Forked processes may go on logging for days.
        ends=journal.ends(),
    )
    status = _status(link, journal.head.run_id)
    last = _last_written(journal)
    left, held = journal.size(), journal.artifact_bytes()
    while delivery.round():
        held = held and journal.artifact_bytes()
        left = held + sum(reader.waiting_bytes() for reader in delivery.readers.values())
        meter.note(journal, left)
    first = delivery.readers.get(FIRST_STRAND)
    if first is not None and not first.cursor.ended and _is_abandoned(journal, status):
        _end(link, journal, last)
    if not delivery.sweep():
        return "alive"
    journal.remove()
    return "delivered"


def _is_abandoned(journal: Journal, status: v1.RunStatus.ValueType) -> bool:
    """Whether nobody else will end the run, as it stood before its journal was delivered."""
    if journal.head.worker or status not in _OPEN or (journal.head.heartbeat and status != v1.RUN_STATUS_LOST):
        return False
    # Its job may have been started again here, and go on.
    others = (folder for folder in journals(journal.folder.parent) if folder != journal.folder)
    return all(map(_is_left, others))


def _end(link: Connection, journal: Journal, last: float) -> None:
    """End the run as one whose job died."""
    moment = Timestamp()
    moment.FromNanoseconds(int(last * 1e9))
    request = v1.FinishRunRequest(
        run_id=journal.head.run_id,
        status=v1.RUN_STATUS_FAILED,
        end_time=moment,
        request_id=hashlib.sha256(f"{journal.folder.name}/end".encode()).hexdigest()[:32],
    )
    link.call(link.tracking.FinishRun, request)


def _status(link: Connection, run_id: str) -> v1.RunStatus.ValueType:
    try:
        return link.call(link.tracking.GetRun, v1.GetRunRequest(run_id=run_id)).run.status
    except RollforwardError as error:
        if error.reason != "RUN_NOT_FOUND":
            raise
        return v1.RUN_STATUS_UNSPECIFIED


def _last_written(journal: Journal) -> float:
    paths = [path for segment_log in journal.segment_logs() for path in journal.segments(segment_log).values()]
    return max((path.stat().st_mtime for path in paths), default=time.time())


class _Tally:
    """Counts what a delivery settles."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._size = journal.size()
        self._delivered = self._refused = Count(0, 0)
        self._failure: RollforwardError | None = None

    def settle(self, content: Count) -> None:
        self._delivered = self._delivered.plus(content)

    def refuse(self, content: Count, failure: RollforwardError) -> None:
        self._refused = self._refused.plus(content)
        self._failure = self._failure or failure

    def result(self, state: State, failure: RollforwardError | None = None) -> Synced:
        failure = failure or self._failure
        reason, message = (failure.reason, failure.message) if failure else ("", "")
        journal = self._journal
        waiting_bytes = self._size if state == "alive" else self._left()
        return Synced(
            journal.head.run_id, state, self._delivered, self._refused, waiting_bytes, reason, message, journal.folder
        )

    def _left(self) -> int:
        try:
            return self._journal.size()
        except FileNotFoundError:
            return 0
