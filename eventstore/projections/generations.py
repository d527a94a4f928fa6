"""The generations of a projection: one is live, the next is built from the log and takes its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import sqlalchemy as sa
import structlog

from eventstore.epochs import FIRST_EPOCH, begins_epoch, epoch_of
from eventstore.errors import CannotApply
from eventstore.event import KnownPosition, RecordedEvent
from eventstore.projections.damage import RowsDamaged, damage_of
from eventstore.projections.database import Database
from eventstore.projections.generation import Generation
from eventstore.projections.snapshots.dump import Part, load
from eventstore.projections.statements import insert_rows
from eventstore.projections.tables import checkpoint, epoch, events, fingerprint

# Made once: SQLAlchemy takes longer to make a statement than SQLite to run it.
_MOVE_CHECKPOINT = (
    sa.update(checkpoint)
    .where(checkpoint.c.position == sa.bindparam("before"), checkpoint.c.live == sa.bindparam("is_live"))
    .values(position=sa.bindparam("upto"), event_id=sa.bindparam("last_id"))
    .returning(checkpoint.c.time)
)
_logger = structlog.get_logger(__name__)

_SET_TIME = sa.update(checkpoint).values(time=sa.bindparam("last_time"))
_SET_ALL = sa.update(checkpoint).values(live=True)


class Projection(Protocol):
    """What a slice says about its rows.

    Attributes:
        name: A word, unique among the projections of a database.
        version: One more whenever `apply` gives other rows for the same events.
        tables: The tables; each with a primary key.

    One that only shows events, and interprets none, has `shows_unreadable = True`: it is given those too that this
    program cannot read. Every other one stops before them.
    """

    @property
    def name(self) -> str:
        """The projection's name."""
        ...

    @property
    def version(self) -> int:
        """Its version: rows of another one are computed again."""
        ...

    @property
    def tables(self) -> sa.MetaData:
        """Its tables."""
        ...

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Write what the next events of the log mean; called in the transaction of the checkpoint.

        What is written must not depend on how the log is cut into calls. While rows are rebuilt it is called for two
        generations at once, from two threads.
        """
        ...


class CheckpointMoved(Exception):
    """The checkpoint is not where it was: another process writes this generation too, or it was replaced."""


class Generations:
    """The generations of one projection in one database. Every call blocks."""

    def __init__(self, projection: Projection, database: Database) -> None:
        self.name = projection.name
        self.fingerprint = fingerprint(projection.tables, projection.version)
        self.kind = database.kind
        self.tables = [events, *projection.tables.sorted_tables]
        self._projection = projection
        self._shows_unreadable = getattr(projection, "shows_unreadable", False)
        self._database = database

    def lock(self) -> Callable[[], None] | None:
        """Lock the creation of generations; see `Database.lock`."""
        return self._database.lock(self.name)

    def live(self, newer_than: int = 0) -> Generation | None:
        """Return the newest live generation with this fingerprint."""
        for mark, number in reversed(self._database.generations(self._projection.name)):
            if mark == self.fingerprint and number > newer_than and (rows := self._opened(number)):
                return rows
        return None

    def known(self) -> list[KnownPosition]:
        """Return how far the live rows have come, those of other versions of the projection too."""
        return self._database.known(self.name)

    def put_aside(self, lost: KnownPosition, number: int) -> str | None:
        """Keep lost rows under another name, which is returned; None when others took their place.

        Only for the holder of the lock.
        """
        return self._database.put_aside(lost.source.removeprefix("rows "), number) if lost in self.known() else None

    def _opened(self, number: int) -> Generation | None:
        """Return a generation if it is live; a damaged one is put aside."""
        try:
            rows = self._open(number)
            if rows.checkpoint().live:
                return rows
        except (RowsDamaged, sa.exc.DBAPIError, sa.exc.NoResultFound) as error:
            if not (why := damage_of(error)):
                raise
            self.retire_damaged(number, why)
        else:
            rows.close()
        return None

    def retire_damaged(self, number: int, why: str) -> None:
        """Take damaged rows out of use: they are computed again."""
        where = self._database.retire_damaged(self.name, self.fingerprint, number)
        _logger.error("rows damaged, rebuilding", projection=self.name, why=why, put_aside=where)

    def create_live(self) -> Generation:
        """Create a live, empty generation."""
        rows = self.create_unread()
        rows.set_live()
        return rows

    def create_unread(self) -> Generation:
        """Create an empty generation that nobody reads."""
        return self._open(self._next_number())

    def _next_number(self) -> int:
        return max((number for _, number in self._database.generations(self._projection.name)), default=0) + 1

    def unfinished(self) -> Generation:
        """Create an empty generation that can only be filled, quickly, until it is finished."""
        name, number = self._projection.name, self._next_number()
        return self._database.open_unfinished(name, self.fingerprint, number, self._projection.tables)

    def finish(self, generation: Generation) -> Generation:
        """Close an unfinished generation and open it as one that may become live."""
        self._database.finish(generation)
        finished = self._open(generation.number)
        finished.create_indexes()
        return finished

    def filled(
        self, parts: Iterator[Part], position: int, event_id: str, time: int, began: int = FIRST_EPOCH
    ) -> Generation:
        """Create a live generation from a dump of this position; only for the holder of the lock."""
        if self.kind == "sqlite":
            return self._adopted(next(parts, iter(())))
        rows = self.create_unread()
        try:
            with rows.writing(durably=True) as connection:
                load(connection, self.tables, parts)
                connection.execute(_SET_ALL, {"position": position, "event_id": event_id, "time": time})
                if began != FIRST_EPOCH:
                    set_epoch(connection, began)
        except BaseException:
            self.discard(rows)
            raise
        return rows

    def _adopted(self, file: Part) -> Generation:
        number = self._database.adopt(self.name, self.fingerprint, file)
        try:
            return self._open(number)
        except (RowsDamaged, sa.exc.DBAPIError):
            self._database.drop(self.name, self.fingerprint, number)
            raise

    def discard(self, generation: Generation) -> None:
        """Drop a generation."""
        generation.close()
        self._database.drop(self._projection.name, self.fingerprint, generation.number)

    def discard_older(self, generation: Generation) -> None:
        """Drop all generations before this one, whatever their fingerprints."""
        for mark, number in self._database.generations(self._projection.name):
            if number < generation.number:
                self._database.drop(self._projection.name, mark, number)
        self._database.drop_unfinished(self._projection.name)

    def apply(self, generation: Generation, before: int, batch: Sequence[RecordedEvent], *, live: bool = True) -> None:
        """Apply events to a generation at position `before`, all or none.

        Raises:
            CheckpointMoved: They are at another position, or live when they should not be, or the other way round.
            CannotApply: An event cannot be read.
        """
        last = batch[-1]
        if not self._shows_unreadable and any(event.unreadable for event in batch):
            raise CannotApply(self.name, batch)
        with generation.writing() as connection:
            # First of all, because it locks the checkpoint: from here on the rows are ours.
            moved = {"before": before, "is_live": live, "upto": last.position, "last_id": last.id}
            time = connection.scalar(_MOVE_CHECKPOINT, moved)
            if time is None:
                raise CheckpointMoved
            self._projection.apply(connection, batch)
            index = _index(time, batch)
            insert_rows(connection, events, index)
            connection.execute(_SET_TIME, {"last_time": index[-1][1]})
            for event in batch:
                if begins_epoch(event):
                    set_epoch(connection, epoch_of(event))

    def switch(self, old: Generation, new: Generation) -> tuple[str, str] | None:
        """Make `new` live in place of `old` if the two are equal; return the digests of both.

        None: they are not at one position, and nothing was compared.
        """
        with old.writing() as locking:
            # As long as its checkpoint is locked, no process applies anything to `old`; all may read it.
            locking.execute(sa.update(checkpoint).values(live=checkpoint.c.live))
            if old.checkpoint().position != new.checkpoint().position:
                return None
            digests = old.digest(), new.digest()
            if digests[0] == digests[1]:
                new.set_live()
                locking.execute(sa.update(checkpoint).values(live=False))
        return digests

    def _open(self, number: int) -> Generation:
        return self._database.open(self._projection.name, self.fingerprint, number, self._projection.tables)


def set_epoch(connection: sa.Connection, began: int) -> None:
    """Write down the epoch that rows are computed in from now on."""
    connection.execute(sa.delete(epoch))
    connection.execute(sa.insert(epoch), {"id": 1, "epoch": began})


def _index(time: int, batch: Sequence[RecordedEvent]) -> list[tuple[Any, ...]]:
    """Return the index rows of events: when each was recorded, by which request; `time` is that of the last one."""
    index: list[tuple[Any, ...]] = []
    opens = True
    for event in batch:
        # An append is seen whole, so all of it has the time of its first event.
        time = max(time, event.time) if opens else time
        opens = event.closes_append
        asked = event.metadata
        index.append((event.position, time, asked.actor, asked.request_id, asked.request_digest))
    return index
