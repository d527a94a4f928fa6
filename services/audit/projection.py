"""The rows of audit: one for each event of a log, and every name that a model ever had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import RecordedEvent
from rollforward import v1
from services.sql.write_buffer import put_all
from services.timestamps import timestamp

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
    sa.Column("model", sa.Text),
    sa.Column("alias", sa.Text),
    sa.Column("cause", sa.Integer, nullable=False),
    sa.Column("left_out", sa.BigInteger, nullable=False),  # bytes of the payload that only the log has
    sa.Column("event", sa.LargeBinary, nullable=False),
    sa.Index("recorded_by_stream", "stream", "position"),
    sa.Index("recorded_by_actor", "actor", "position"),
    sa.Index("recorded_by_type", "type", "position"),
    sa.Index("recorded_by_time", "time"),
)
_ABOUT_MODELS = recorded.c.model.is_not(None)
sa.Index(
    "recorded_by_model",
    recorded.c.model,
    recorded.c.position,
    sqlite_where=_ABOUT_MODELS,
    postgresql_where=_ABOUT_MODELS,
)

model_names = sa.Table(
    "model_names",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Index("model_names_by_origin", "origin"),
)


class AuditProjection:
    """The projection of every event of one log, without the points of metrics, which are many."""

    # Raise it also in a release that adds an event type: events that older releases cannot read get other rows.
    version = 3
    tables = tables
    shows_unreadable = True

    def __init__(self, log: str) -> None:
        self.log = log
        self.name = f"audit-{log}"

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Write the rows of events."""
        put_all(connection, recorded, [_row(self.log, event) for event in events])
        origins: dict[str, str] = {}
        for event in events:
            match event.data:
                case v1.ModelCreated() as payload:
                    origins[payload.model] = payload.model
                case v1.ModelNameTaken() as payload:
                    origins[payload.name] = payload.origin
                case _:
                    pass
        put_all(connection, model_names, [*origins.items()])


def _row(log: str, event: RecordedEvent) -> tuple[Any, ...]:
    """Return the columns of an event, in the order of the table's."""
    view = _view(log, event)
    left_out = 0
    if event.unreadable:
        view.undecodable = event.unreadable
        view.payload = event.data.value  # type: ignore[attr-defined]
    elif isinstance(event.data, v1.MetricsLogged):
        view.data.type_url = f"type.googleapis.com/{view.type}"
        left_out = event.data.ByteSize()
    else:
        view.data.Pack(event.data, deterministic=True)
    context = (view.actor, view.request_id, view.correlation_id)
    body = view.SerializeToString(deterministic=True)
    subject = (None, None, 0) if event.unreadable else _subject(event.data)
    return event.position, event.time, view.type, view.stream, *context, *subject, left_out, body


def _subject(payload: Message) -> tuple[str | None, str | None, int]:
    """Return the model (by its name then) and alias that an event is about, and the cause of an alias's change."""
    if isinstance(payload, v1.ModelNameTaken):
        return payload.origin, None, 0
    named = getattr(payload, "target", payload)
    return getattr(named, "model", None), getattr(named, "alias", None), getattr(payload, "cause", 0)


def _view(log: str, event: RecordedEvent) -> v1.RecordedEvent:
    """Return an event as auditors see it, without its payload."""
    return v1.RecordedEvent(
        log=log,
        position=event.position,
        event_id=event.id,
        stream=event.stream,
        type=event.type_name,
        time=timestamp(event.time),
        actor=event.metadata.actor,
        reason=event.metadata.reason,
        request_id=event.metadata.request_id,
        correlation_id=event.metadata.correlation_id,
        causation_id=event.metadata.causation_id,
        traceparent=event.metadata.traceparent,
    )
