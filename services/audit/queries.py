"""The answers of audit: events that match a filter, newest first."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from rollforward import v1
from services.audit.projection import recorded
from services.times import nanoseconds

Key = tuple[int, str, int]
"""What events of several logs are ordered by: time (ns), log, position."""


def matching(
    rows: sa.Connection, log: str, request: v1.ListEventsRequest, before: Key | None, limit: int
) -> list[tuple[Key, v1.RecordedEvent]]:
    """The newest events of one log that match, at most `limit`, all of them before a key."""
    time, position = recorded.c.time, recorded.c.position
    question = sa.select(recorded).where(*_conditions(request))
    if before:
        # Ordered by (time, log, position), descending: of the same moment, the logs before this one are through.
        same_moment = {-1: sa.true(), 0: position < before[2], 1: sa.false()}[_compare(log, before[1])]
        question = question.where(sa.or_(time < before[0], sa.and_(time == before[0], same_moment)))
    found = rows.execute(question.order_by(time.desc(), position.desc()).limit(limit))
    return [((row.time, log, row.position), v1.RecordedEvent.FromString(row.event)) for row in found]


def _conditions(request: v1.ListEventsRequest) -> Sequence[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if request.type:
        full = request.type if "." in request.type else f"rollforward.v1.{request.type}"
        conditions.append(recorded.c.type == full)
    fields = ("stream", "actor", "request_id", "correlation_id")
    conditions += [recorded.c[field] == value for field in fields if (value := getattr(request, field))]
    if request.HasField("since"):
        conditions.append(recorded.c.time >= nanoseconds(request.since))
    if request.HasField("until"):
        conditions.append(recorded.c.time < nanoseconds(request.until))
    return conditions


def _compare(one: str, other: str) -> int:
    return (one > other) - (one < other)
