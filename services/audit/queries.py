"""Queries of audit: events that match a filter, newest first, or all of them, oldest first."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from rollforward import v1
from services.audit.projection import model_names, recorded
from services.listings.pages import enough
from services.timestamps import nanoseconds

Key = tuple[int, str, int]
"""The key that orders the events of several logs: time (ns), log, position."""

Conditions = Sequence[sa.ColumnElement[bool]]

CHUNK_EVENTS = 500
CHUNK_BYTES = 256 * 1024


def names_of(connection: sa.Connection, model: str) -> Sequence[str]:
    """Return all names that a model has had; empty if no model ever had the given one.

    Args:
        connection: To the rows of the registry log.
        model: Any of the names.
    """
    origin = sa.select(model_names.c.origin).where(model_names.c.name == model).scalar_subquery()
    return connection.scalars(sa.select(model_names.c.name).where(model_names.c.origin == origin)).all()


def has_model(connection: sa.Connection, name: str) -> bool:
    """Return whether there is an event about a model of this name."""
    return (
        connection.execute(sa.select(recorded.c.position).where(recorded.c.model == name).limit(1)).first() is not None
    )


def full_type(name: str) -> str:
    """Return the full name of an event type."""
    return name if "." in name else f"rollforward.v1.{name}"


def has_type(connection: sa.Connection, full: str) -> bool:
    """Return whether there is an event of a type."""
    return (
        connection.execute(sa.select(recorded.c.position).where(recorded.c.type == full).limit(1)).first() is not None
    )


def conditions(request: v1.ListEventsRequest, names: Sequence[str]) -> Conditions:
    """Return the conditions of a filter; `names` are all names of the model in it.

    Raises:
        Rejected: INVALID_TIME.
    """
    wanted: list[sa.ColumnElement[bool]] = []
    if request.type:
        wanted.append(recorded.c.type == full_type(request.type))
    if request.model:
        wanted.append(recorded.c.model.in_(names))
    fields = ("stream", "actor", "request_id", "correlation_id", "alias", "cause")
    wanted += [recorded.c[field] == value for field in fields if (value := getattr(request, field))]
    if request.HasField("since"):
        wanted.append(recorded.c.time >= nanoseconds(request.since))
    if request.HasField("until"):
        wanted.append(recorded.c.time < nanoseconds(request.until))
    return wanted


def newest(
    connection: sa.Connection, log: str, wanted: Conditions, before: Key | None, limit: int
) -> list[tuple[Key, v1.RecordedEvent]]:
    """Return the newest matching events of one log before a key: `limit`, or as many as fill a page.

    They lack the points of metrics.
    """
    time, position = recorded.c.time, recorded.c.position
    statement = sa.select(time, position, recorded.c.event, recorded.c.left_out).where(*wanted)
    if before:
        # Ordered by (time, log, position), descending: at the key's time, greater logs have no more events.
        same_moment = {-1: sa.true(), 0: position < before[2], 1: sa.false()}[_compare(log, before[1])]
        statement = statement.where(sa.or_(time < before[0], sa.and_(time == before[0], same_moment)))
    statement = statement.order_by(time.desc(), position.desc()).limit(limit).execution_options(yield_per=20)
    with connection.execute(statement) as rows:
        return [
            ((row.time, log, row.position), v1.RecordedEvent.FromString(row.event))
            for row in enough(rows, lambda row: len(row.event) + row.left_out)
        ]


def chunk(connection: sa.Connection, wanted: Conditions, after: int, until: int) -> list[v1.RecordedEvent]:
    """Return the next matching events of one log, oldest first: after one position and until another.

    It ends with the event that makes it CHUNK_BYTES or CHUNK_EVENTS; empty if there are no more. The events lack the
    points of metrics.
    """
    position = recorded.c.position
    statement = sa.select(recorded.c.event, recorded.c.left_out).where(position > after, position <= until, *wanted)
    statement = statement.order_by(position).limit(CHUNK_EVENTS).execution_options(yield_per=20)
    events: list[v1.RecordedEvent] = []
    size = 0
    with connection.execute(statement) as result:
        for row in result:
            events.append(v1.RecordedEvent.FromString(row.event))
            size += len(row.event) + row.left_out
            if size >= CHUNK_BYTES:
                break
    return events


def _compare(left: str, right: str) -> int:
    return (left > right) - (left < right)
