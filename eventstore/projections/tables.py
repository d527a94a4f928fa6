"""The kernel's own tables in a generation: its checkpoint, the index of its events, its epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from eventstore.epochs import FIRST_EPOCH

USED_BY_APPLY = {"used_by_apply": True}
"""The `info` of an index that a projection's `apply` needs; every other index of rows being filled is made last."""

kernel_tables = sa.MetaData()

checkpoint = sa.Table(
    "rf_checkpoint",
    kernel_tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("live", sa.Boolean, nullable=False),
)

events = sa.Table(
    "rf_events",
    kernel_tables,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("request_digest", sa.Text, nullable=False),
    sa.Index("rf_events_by_request", "request_id", "actor"),
    sa.Index("rf_events_by_time", "time"),
)

epoch_tables = sa.MetaData()
"""Beside the other tables of the kernel: rows of before there were epochs keep their fingerprint."""

epoch = sa.Table(
    "rf_epoch",
    epoch_tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
)


def fingerprint(tables: sa.MetaData, version: int) -> str:
    """Return a hash of a projection's version, tables and indexes: rows with another one are not its own."""
    both = [*kernel_tables.sorted_tables, *tables.sorted_tables]
    indexes = sorted((index for table in both for index in table.indexes), key=lambda index: str(index.name))
    ddl = [str(make) for make in (*map(CreateTable, both), *map(CreateIndex, indexes))]
    return hashlib.sha256("\n".join([str(version), *ddl]).encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far rows have come, by which event of which epoch, and whether they are the ones that are read."""

    position: int
    event_id: str
    live: bool
    epoch: int = FIRST_EPOCH


SELECT_CHECKPOINT = sa.select(checkpoint.c.position, checkpoint.c.event_id, checkpoint.c.live)

SELECT_EPOCH = sa.select(epoch.c.epoch)

SELECT_INDEXED_EVENT = sa.select(events.c.time, events.c.actor, events.c.request_id, events.c.request_digest).where(
    events.c.position == sa.bindparam("at")
)


_POSITION = sa.select(checkpoint.c.position)

POSITION = _POSITION.scalar_subquery()
"""The position of the rows, as a column of a query; `TIME` is that of the event there, in ns since 1970."""

TIME = sa.select(checkpoint.c.time).scalar_subquery()


def position_of(connection: sa.Connection) -> int:
    """Return the position that the rows have come to, 0 before the first event."""
    return connection.scalar(_POSITION) or 0


def moment_of(connection: sa.Connection) -> tuple[int, int]:
    """Return the position of the rows, and the time of the event there in ns since 1970."""
    row = connection.execute(sa.select(checkpoint.c.position, checkpoint.c.time)).one()
    return row.position, row.time


def event_at_or_before(position: sa.ColumnElement[int]) -> sa.Subquery:
    """Return a query of the last event at or before a position: its ``position`` and ``time`` (ns since 1970)."""
    query = sa.select(events.c.position, events.c.time).where(events.c.position <= position)
    return query.order_by(events.c.position.desc()).limit(1).subquery()
