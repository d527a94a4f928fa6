"""The logs of a process, opened at start after a comparison with the rows, snapshots and notes that know them."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from eventstore import (
    Generations,
    KnownPosition,
    LogLost,
    Loss,
    Metadata,
    Snapshots,
    StoreUnavailable,
    Tail,
    UnknownEventType,
    begin_epoch,
    end,
    error_text,
    find_loss,
    mark_of,
    next_epoch,
    replace_durably,
)
from eventstore.jetstream import JetStreamStore
from rollforward import v1
from services.settings import Settings

NOTE_SECONDS = 2.0
POLL_SECONDS = 0.1

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Derived:
    """The state that a process computes from one log and keeps outside of it: rows and snapshots of its projections."""

    log: str
    rows: Sequence[tuple[Generations, Snapshots]]


class Knowledge:
    """The positions that rows, snapshots and the notes in the data directory have reached in each log.

    Args:
        data: The data directory.
        derived: What is kept of each log.
    """

    def __init__(self, data: Path, derived: Sequence[Derived]) -> None:
        self._data = data
        self._derived = {state.log: state for state in derived}
        self._known: dict[str, list[KnownPosition]] = {}

    def read(self) -> None:
        """Read all known positions; this blocks.

        Raises:
            sa.exc.OperationalError: The database is out of reach.
        """
        reaches_snapshots = True
        for log, derived in self._derived.items():
            known = [at for generations, _ in derived.rows for at in generations.known()]
            if noted := read_note(self._data, log):
                known.append(noted)
            for _, snapshots in derived.rows if reaches_snapshots else ():
                try:
                    known += snapshots.known()
                except StoreUnavailable as error:
                    _logger.warning("snapshots unavailable, not compared with the log", error=str(error))
                    reaches_snapshots = False
                    break
            self._known[log] = [at for at in known if at.position]

    def of(self, log: str) -> Sequence[KnownPosition]:
        """Return what was read about a log, empty rows left out."""
        return self._known.get(log, ())

    def put_aside(self, losses: Sequence[Loss], number: int) -> None:
        """Rename state that is ahead of its log, so that it is kept and never opened; this blocks."""
        for loss in losses:
            aside = self._put_aside(loss.log, loss.known, number)
            _logger.warning("derived state set aside", log=loss.log, source=loss.known.source, name=aside)

    def _put_aside(self, log: str, lost: KnownPosition, number: int) -> str | None:
        if lost.source.startswith("file "):
            path = note_path(self._data, log)
            return str(path.rename(path.with_name(f"lost-{number}-{path.name}")))
        for generations, snapshots in self._derived[log].rows:
            keeper = generations if lost.source.startswith("rows ") else snapshots
            with _claimed(generations):
                if aside := keeper.put_aside(lost, number):
                    return aside
        return None


@contextmanager
def _claimed(generations: Generations) -> Iterator[None]:
    while not (release := generations.lock()):
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        release()


async def open_log(store: JetStreamStore, knowledge: Knowledge, settings: Settings, *, erasable: bool) -> None:
    """Open a log that has all known events; create it if it is missing and nothing is known of it.

    If it lost events, which the operator accepted, a new epoch begins and state that is ahead is set aside.
    """
    losses = await find_losses(store, knowledge)
    await store.open(replicas=settings.replicas, erasable=erasable)
    if not losses:
        if store.log in settings.accept_log_loss:
            _logger.warning("no loss found, remove --accept-log-loss", log=store.log)
        return
    time_ms = time.time_ns() // 1_000_000
    if any(loss.known.epoch not in store.epochs[:-1] for loss in losses):
        await _begin(store, losses, settings, time_ms)
    await asyncio.to_thread(knowledge.put_aside, losses, time_ms)


async def refuse_losses(stores: Sequence[JetStreamStore], knowledge: Knowledge, settings: Settings) -> None:
    """Raise `LogLost` with the losses of all logs that are not accepted, before any log is changed."""
    unaccepted = [store for store in stores if store.log not in settings.accept_log_loss]
    if losses := [loss for store in unaccepted for loss in await find_losses(store, knowledge)]:
        raise LogLost(losses)


async def find_losses(store: JetStreamStore, knowledge: Knowledge) -> list[Loss]:
    """Return the losses of a log; a missing log lost all that is known of it."""
    known = knowledge.of(store.log)
    if not await store.find():
        return missing_losses(store.log, known)
    return [loss for at in known if (loss := await find_loss(store, at))]


def missing_losses(log: str, known: Sequence[KnownPosition]) -> list[Loss]:
    """Return the losses of a missing log."""
    return [Loss(log, 0, at, 0) for at in known]


def refuse_missing_store(settings: Settings, knowledge: Knowledge, logs: Sequence[str]) -> None:
    """Raise `LogLost` if the built-in NATS server has no data but rows exist: a volume is not mounted."""
    if (settings.data / "nats" / "store" / "jetstream").exists():
        return
    unaccepted = [log for log in logs if log not in settings.accept_log_loss]
    if losses := [loss for log in unaccepted for loss in missing_losses(log, knowledge.of(log))]:
        raise LogLost(losses)


async def _begin(store: JetStreamStore, losses: Sequence[Loss], settings: Settings, time_ms: int) -> None:
    furthest = max(losses, key=Loss.rank)
    epoch = next_epoch([*store.epochs, *(loss.known.epoch for loss in losses)], time_ms)
    began = v1.LogEpochBegan(
        epoch=epoch,
        previous_epoch=store.epochs[-1],
        kept_until=furthest.head,
        lost_until=furthest.known.position,
        detail=str(furthest)[:1000],
    )
    await begin_epoch(store, began, Metadata(operator(settings), "--accept-log-loss"))
    await store.find()
    _logger.warning("new epoch begins", log=store.log, epoch=store.epochs[-1], loss=str(furthest))


def operator(settings: Settings) -> str:
    """Return who runs this process: ROLLFORWARD_ACTOR, else the user of the operating system."""
    try:
        return settings.actor or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())  # a container's user id often has no name


class PositionNotes:
    """Notes in the data directory of each log's last known position: rows may lag behind, or be lost.

    Args:
        data: The data directory.
        tails: What follows the logs, by name.
    """

    def __init__(self, data: Path, tails: Mapping[str, Tail]) -> None:
        self._data = data
        self._tails = tails
        self._noted: dict[str, int] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._run(), name="position notes")

    async def stop(self) -> None:
        """Write the last positions. Stopping again is harmless."""
        await end(self._task)
        await self._note()

    async def _run(self) -> None:
        while True:
            await self._note()
            await asyncio.sleep(NOTE_SECONDS)

    async def _note(self) -> None:
        for log, tail in self._tails.items():
            if tail.position == self._noted.get(log, 0):
                continue
            try:
                await asyncio.to_thread(_write_note, note_path(self._data, log), await self._known(tail))
            except (OSError, StoreUnavailable, UnknownEventType) as error:
                _logger.warning("cannot note log position", log=log, error=error_text(error))
            else:
                self._noted[log] = tail.position

    async def _known(self, tail: Tail) -> KnownPosition | None:
        event = tail.last or await tail.store.event_at(tail.position)
        if event is None:  # it was erased
            return None
        return KnownPosition("file", tail.store.epochs[-1], event.position, mark_of(event.id))


def note_path(data: Path, log: str) -> Path:
    """Return where the position of a log is noted."""
    return data / "known" / f"{log}.json"


def read_note(data: Path, log: str) -> KnownPosition | None:
    """Return the noted position of a log; None if there is no readable note."""
    path = note_path(data, log)
    try:
        noted = json.loads(path.read_bytes())
        return KnownPosition(f"file {path}", int(noted["epoch"]), int(noted["position"]), str(noted["mark"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _write_note(path: Path, known: KnownPosition | None) -> None:
    if known is None:
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    note = {"epoch": known.epoch, "position": known.position, "mark": known.mark}
    replace_durably(path, [json.dumps(note).encode()])
