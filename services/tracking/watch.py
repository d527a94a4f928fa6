"""The watch of runs: a snapshot, then every append's events, whole, in order, each once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, closing
from tempfile import SpooledTemporaryFile

import sqlalchemy as sa
from cachetools import LRUCache
from google.protobuf.message import Message

from eventstore import Kind, Projector, RecordedEvent, Rejected, StoreUnavailable, check_epoch, on_wire, position_of
from rollforward import v1
from services.listings.pages import fitting
from services.rpc.watches import between_appends, with_bookmarks
from services.timestamps import timestamp
from services.tracking.projection.tables import runs
from services.tracking.queries.experiment_scope import experiment_number
from services.tracking.queries.metric_pages import run_metrics
from services.tracking.queries.runs import run_number
from services.tracking.queries.views import runs_of

BOOKMARK_SECONDS = 5.0
KNOWN_RUNS = 50_000
"""Of so many runs a watch remembers whether it follows them."""

IN_MEMORY_BYTES = 16_000_000
"""How much of a snapshot is kept in memory until it is sent; the rest is on disk."""

_LOOKED_AT = 10_000  # runs that may come in one part

_FIELDS: Mapping[type[Message], str] = {
    v1.RunStarted: "started",
    v1.RunLogged: "logged",
    v1.MetricsLogged: "metrics",
    v1.ArtifactLogged: "artifact",
    v1.RunInputsLogged: "inputs",
    v1.RunOutputsLogged: "outputs",
    v1.RunRenamed: "renamed",
    v1.RunDescribed: "described",
    v1.RunFinished: "finished",
    v1.RunResumed: "resumed",
    v1.RunLost: "lost",
    v1.RunDeleted: "deleted",
    v1.RunRestored: "restored",
}


async def steps(projector: Projector, request: v1.WatchRunsRequest) -> AsyncGenerator[v1.WatchRunsResponse]:
    """Yield the steps of a watch; every step's position is where to resume.

    Raises:
        Conflict: LOG_EPOCH_CHANGED when `from_position` was read in another epoch.
        Rejected: INVALID_WATCH unless it is of one run or one experiment; RUN_NOT_FOUND, EXPERIMENT_NOT_FOUND;
            POSITION_AHEAD if `from_position` is after the end of the log.
        FollowerTooSlow: The watcher did not keep up.
        StoreUnavailable: The service stops, the database does not answer, or SNAPSHOT_TOO_LARGE.
    """
    if bool(request.run_id) == bool(request.experiment_id):
        raise Rejected(Kind.INVALID, "INVALID_WATCH", "invalid watch: expected either run_id or experiment_id")
    if request.HasField("from_position"):
        check_epoch("tracking", request.epoch, projector.store.epochs[-1])
    await projector.wait_for(projector.tail.position)  # the snapshot includes all earlier results
    parts, after = await _begin(projector, request)
    epoch = on_wire(projector.store.epochs[-1])
    if request.HasField("from_position"):
        async with projector.tail.turns.turn():
            after = await between_appends(projector.store, request.from_position)
    with closing(parts):
        for part in parts.read():
            yield v1.WatchRunsResponse(snapshot=part, position=0 if part.continues else after, epoch=epoch)
    followed = _Followed(projector, request)

    async def steps_of(events: Sequence[RecordedEvent], position: int) -> Iterator[v1.WatchRunsResponse]:
        return _changes_by_append(events, await followed.among(events, position), request.without_metrics, epoch)

    def bookmark(position: int) -> v1.WatchRunsResponse:
        return v1.WatchRunsResponse(bookmark=v1.Bookmark(), position=position, epoch=epoch)

    batches = projector.follow(after, BOOKMARK_SECONDS)
    async with aclosing(with_bookmarks(batches, BOOKMARK_SECONDS, steps_of, bookmark)) as watched:
        async for step in watched:
            yield step


class _Parts:
    """A snapshot, in parts that fit a message: encoded, and on disk if they are large."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - it lasts until it is read
        self._sizes: deque[int] = deque()
        self.close = self._file.close

    def write(self, part: v1.RunSnapshot) -> None:
        """Add a part. Raises `StoreUnavailable` SNAPSHOT_TOO_LARGE without space for it."""
        encoded = part.SerializeToString()
        try:
            self._file.write(encoded)
        except OSError as error:
            raise StoreUnavailable(
                "cannot write the snapshot: no space left. Free space in the temporary directory", "SNAPSHOT_TOO_LARGE"
            ) from error
        self._sizes.append(len(encoded))

    def read(self) -> Iterator[v1.RunSnapshot]:
        """Yield the parts as they were added, once."""
        self._file.seek(0)
        while self._sizes:
            yield v1.RunSnapshot.FromString(self._file.read(self._sizes.popleft()))


async def _begin(projector: Projector, request: v1.WatchRunsRequest) -> tuple[_Parts, int]:
    """Return the snapshot, without parts when none is requested, and its position."""
    left = threading.Event()
    try:
        return await projector.query(lambda connection: _snapshot(connection, request, left))
    finally:
        left.set()


def _snapshot(connection: sa.Connection, request: v1.WatchRunsRequest, left: threading.Event) -> tuple[_Parts, int]:
    """Read the snapshot in one transaction, so at one position; end early once the watcher has `left`."""
    if request.run_id:
        numbers: Sequence[int] = [run_number(connection, request.run_id)]
    else:
        experiment = experiment_number(connection, request.experiment_id)
        numbers = () if request.HasField("from_position") else _runs_in(connection, experiment)
    with ExitStack() as undo:
        parts = _Parts()
        undo.callback(parts.close)
        done, continues = 0, not request.HasField("from_position")
        while continues and not left.is_set():
            part = fitting(numbers[done : done + _LOOKED_AT], lambda some: runs_of(connection, some))
            _write(connection, parts, part, numbers[done : done + len(part)], last=done + len(part) >= len(numbers))
            done += len(part)
            continues = done < len(numbers)
        if not left.is_set():
            undo.pop_all()
    return parts, position_of(connection)


def _write(
    connection: sa.Connection, parts: _Parts, shown: Sequence[v1.Run], numbers: Sequence[int], *, last: bool
) -> None:
    """Write a part, and the metrics that its runs have no room for as parts behind it."""
    rest = [(run, number) for run, number in zip(shown, numbers, strict=True) if run.next_metrics_token]
    parts.write(v1.RunSnapshot(runs=shown, continues=bool(rest) or not last))
    for at, (run, number) in enumerate(rest, 1):
        token = run.next_metrics_token
        while token:
            page = run_metrics(connection, number, 0, token)
            token = page.next_page_token
            more = v1.Run(run_id=run.run_id, metrics=page.metrics, next_metrics_token=token)
            parts.write(v1.RunSnapshot(runs=[more], continues=bool(token) or at < len(rest) or not last))


def _runs_in(connection: sa.Connection, experiment: int) -> Sequence[int]:
    return connection.scalars(sa.select(runs.c.run).where(runs.c.experiment == experiment).order_by(runs.c.run)).all()


class _Followed:
    """Which runs a watch follows."""

    def __init__(self, projector: Projector, request: v1.WatchRunsRequest) -> None:
        self._projector = projector
        self._run_id = request.run_id
        self._experiment_id = request.experiment_id
        self._known: LRUCache[str, bool] = LRUCache(KNOWN_RUNS)

    async def among(self, events: Sequence[RecordedEvent], position: int) -> Collection[str]:
        """Return the ids of the runs that events are about; the events reach up to a position."""
        if self._run_id:
            return (self._run_id,)
        followed: dict[str, bool] = {}
        unknown: set[str] = set()
        for event in events:
            run_id = _run_of(event)
            if isinstance(event.data, v1.RunStarted):
                followed[run_id] = event.data.experiment_id == self._experiment_id
            elif run_id and run_id not in followed:
                followed[run_id] = self._known.get(run_id, False)
                if run_id not in self._known:
                    unknown.add(run_id)
        if unknown:
            await self._projector.wait_for(position)  # a run that started before is in the rows then
            followed.update(await self._projector.query(lambda connection: self._ask(connection, unknown)))
        self._known.update(followed)
        return {run_id for run_id, mine in followed.items() if mine}

    def _ask(self, connection: sa.Connection, run_ids: Collection[str]) -> dict[str, bool]:
        statement = sa.select(runs.c.run_id).where(runs.c.run_id.in_(run_ids))
        mine = set(connection.scalars(statement.where(runs.c.experiment == int(self._experiment_id))))
        return {run_id: run_id in mine for run_id in run_ids}


def _run_of(event: RecordedEvent) -> str:
    """Return the id of the run that an event is about; empty for an event of an experiment or a logged model."""
    return event.data.run_id if type(event.data) in _FIELDS else ""  # type: ignore[attr-defined]


def _changes_by_append(
    events: Sequence[RecordedEvent], followed: Collection[str], without_metrics: bool, epoch: int
) -> Iterator[v1.WatchRunsResponse]:
    changes = v1.RunChanges()
    for event in events:
        if _run_of(event) in followed and not (without_metrics and isinstance(event.data, v1.MetricsLogged)):
            changes.changes.append(_change_of(event))
        if event.closes_append and changes.changes:
            yield v1.WatchRunsResponse(changes=changes, position=event.position, epoch=epoch)
            changes = v1.RunChanges()


def _change_of(event: RecordedEvent) -> v1.RunChange:
    change = v1.RunChange(
        run_id=_run_of(event), position=event.position, time=timestamp(event.time), actor=event.metadata.actor
    )
    getattr(change, _FIELDS[type(event.data)]).CopyFrom(event.data)
    return change
