"""The rows of audit: one for each event of a log, as the log holds it."""

from __future__ import annotations

import sqlalchemy as sa

from eventstore.event import RecordedEvent
from rollforward import v1
from services.times import timestamp

tables = sa.MetaData()

recorded = sa.Table(
    "recorded_events",
    tables,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("correlation_id", sa.Text, nullable=False),
    sa.Column("event", sa.LargeBinary, nullable=False),
    sa.Index("recorded_by_stream", "stream", "position"),
    sa.Index("recorded_by_actor", "actor", "position"),
    sa.Index("recorded_by_type", "type", "position"),
    sa.Index("recorded_by_time", "time"),
)


class AuditProjection:
    """Keeps every event of one log."""

    version = 1
    tables = tables

    def __init__(self, log: str) -> None:
        self.log = log
        self.name = f"audit-{log}"

    def apply(self, rows: sa.Connection, event: RecordedEvent) -> None:
        """Writes an event down."""
        view = recorded_view(self.log, event)
        row = {
            "position": event.position,
            "time": event.time,
            "type": view.type,
            "stream": view.stream,
            "actor": view.actor,
            "request_id": view.request_id,
            "correlation_id": view.correlation_id,
            "event": view.SerializeToString(deterministic=True),
        }
        rows.execute(sa.insert(recorded), row)


def recorded_view(log: str, event: RecordedEvent) -> v1.RecordedEvent:
    """An event as auditors see it."""
    view = v1.RecordedEvent(
        log=log,
        position=event.position,
        event_id=event.id,
        stream=event.stream,
        type=event.data.DESCRIPTOR.full_name,
        time=timestamp(event.time),
        actor=event.metadata.actor,
        reason=event.metadata.reason,
        request_id=event.metadata.request_id,
        correlation_id=event.metadata.correlation_id,
        causation_id=event.metadata.causation_id,
        traceparent=event.metadata.traceparent,
    )
    view.data.Pack(event.data, deterministic=True)
    return view
