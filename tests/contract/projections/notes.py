"""A projection that reveals every missed or duplicate event, and projectors that run it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import StringValue

from eventstore.epochs import EPOCH_STREAM
from eventstore.event import RecordedEvent
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector, RebuildProgress
from eventstore.projections.snapshots.store import Objects
from eventstore.store import EventStore
from tests.contract.store.events import following, new

tables = sa.MetaData()

notes = sa.Table(
    "notes",
    tables,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
)

Row = tuple[str, str, int, int]
Hook = Callable[[RecordedEvent], None]


class Notes:
    """A projection of each stream's last text and number of events: a missed or duplicate event is visible."""

    name = "notes"
    tables = tables

    def __init__(self, version: int = 1, hook: Hook | None = None) -> None:
        self.version = version
        self.applied: list[int] = []
        self.hook = hook

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            if event.stream != EPOCH_STREAM:
                self._write(connection, event)

    def _write(self, connection: sa.Connection, event: RecordedEvent) -> None:
        assert isinstance(event.data, StringValue)
        values = {"text": event.data.value, "position": event.position}
        change = sa.update(notes).where(notes.c.stream == event.stream)
        if connection.execute(change.values(**values, count=notes.c.count + 1)).rowcount == 0:
            connection.execute(sa.insert(notes).values(**values, stream=event.stream, count=1))
        self.applied.append(event.position)
        if self.hook:
            self.hook(event)


def fails_at(position: int) -> Hook:
    def fail(event: RecordedEvent) -> None:
        if event.position == position:
            raise ArithmeticError("a bug in a projection")

    return fail


async def write(log: EventStore, count: int, streams: int = 5, size: int = 1) -> int:
    """Append `size` events `count` times; return the last position."""
    last = 0
    for number in range(count):
        last = (await log.append([new(f"s{(number + n) % streams}", f"{number}") for n in range(size)]))[-1]
    return last


def all_notes(connection: sa.Connection) -> list[Row]:
    rows = connection.execute(sa.select(notes).order_by(notes.c.stream))
    return [(stream, text, count, position) for stream, text, count, position in rows]


async def folded(log: EventStore) -> list[Row]:
    """Return the expected rows, computed directly from the log."""
    rows: dict[str, Row] = {}
    head = await log.head()
    async with aclosing(log.subscribe()) as subscription:
        while head:
            for event in await anext(subscription):
                head = 0 if event.position == head else head
                if event.stream == EPOCH_STREAM:
                    continue
                assert isinstance(event.data, StringValue)
                count = rows[event.stream][2] + 1 if event.stream in rows else 1
                rows[event.stream] = (event.stream, event.data.value, count, event.position)
    return [rows[stream] for stream in sorted(rows)]


@asynccontextmanager
async def running(
    log: EventStore, location: str, projection: Notes | None = None, objects: Objects | None = None
) -> AsyncIterator[Projector]:
    """Run a projector that has reached the log's head."""
    async with following(log) as tail:
        projector = Projector(tail, projection or Notes(), Database(location), objects)
        try:
            await projector.start()
            yield projector
        finally:
            await projector.stop()


async def rebuilt(projector: Projector) -> RebuildProgress:
    last = None
    async for progress in projector.rebuild():
        assert not last or progress.position >= last.position
        last = progress
    assert last
    return last


def generations(location: str) -> list[tuple[str, int]]:
    return Database(location).generations("notes")


def unfinished(location: str) -> list[str]:
    """Return the names of generations that are being built, or were when their process died."""
    if "://" in location:
        return [f"{mark}_{number}" for mark, number in generations(location)[1:]]
    return [path.name for path in Path(location).glob("*.unfinished")]


def lose_rows(location: str) -> None:
    database = Database(location)
    for mark, number in database.generations("notes"):
        database.drop("notes", mark, number)
