"""The rows of webhooks: the endpoints, and the steps of their cursors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import sqlalchemy as sa

from eventstore import EPOCH_STREAM, USED_BY_APPLY, RecordedEvent
from rollforward import v1
from services.timestamps import timestamp
from services.webhooks.events import webhook_event

tables = sa.MetaData()

webhooks = sa.Table(
    "webhooks",
    tables,
    sa.Column("webhook_id", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False, unique=True),
    sa.Column("settings", sa.LargeBinary, nullable=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.Column("trouble", sa.LargeBinary),
    sa.Column("rotation", sa.Integer, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

deliveries = sa.Table(
    "webhook_deliveries",
    tables,
    sa.Column("revision", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("webhook_id", sa.Text, nullable=False),
    sa.Column("delivery", sa.LargeBinary, nullable=False),
    sa.Index("webhook_deliveries_by_webhook", "webhook_id", "revision", info=USED_BY_APPLY),
)


class WebhooksProjection:
    """The projection of webhooks. `number`, the position of the creation, orders endpoints."""

    name = "webhooks"
    version = 1
    tables = tables

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Apply events to the rows."""
        for event in events:
            if event.stream != EPOCH_STREAM:
                self._write(connection, event)

    def _write(self, connection: sa.Connection, event: RecordedEvent) -> None:
        payload = webhook_event(event.data)
        match payload:
            case v1.WebhookCreated():
                _create(connection, event, payload)
            case v1.WebhookChanged():
                _set(connection, event, payload.webhook_id, settings=_packed(payload.to_settings))
            case v1.WebhookDeleted():
                _delete(connection, payload.webhook_id)
            case v1.WebhookSecretRotated():
                _set(connection, event, payload.webhook_id, rotation=payload.rotation)
            case v1.WebhookDelivered():
                _step(
                    connection,
                    event,
                    v1.WebhookDelivery(delivered=payload),
                    payload.webhook_id,
                    cursor=payload.position,
                )
            case v1.WebhookParked():
                last_error = _packed(_last_error(event, payload))
                _step(connection, event, v1.WebhookDelivery(parked=payload), payload.webhook_id, trouble=last_error)
            case v1.WebhookResumed() | v1.WebhookReplayed():
                _step(
                    connection,
                    event,
                    _set_by_hand(payload),
                    payload.webhook_id,
                    cursor=payload.to_revision,
                    trouble=None,
                )
            case _:
                assert_never(payload)


def _create(connection: sa.Connection, event: RecordedEvent, payload: v1.WebhookCreated) -> None:
    row = {
        "webhook_id": payload.webhook_id,
        "number": event.position,
        "settings": _packed(payload.settings),
        "cursor": payload.from_revision,
        "trouble": None,
        "rotation": 0,
        "created_at": event.time,
        "actor": event.metadata.actor,
        "revision": event.position,
    }
    connection.execute(sa.insert(webhooks), row)


def _delete(connection: sa.Connection, webhook_id: str) -> None:
    for table in (webhooks, deliveries):
        connection.execute(sa.delete(table).where(table.c.webhook_id == webhook_id))


def _set_by_hand(payload: v1.WebhookResumed | v1.WebhookReplayed) -> v1.WebhookDelivery:
    if isinstance(payload, v1.WebhookResumed):
        return v1.WebhookDelivery(resumed=payload)
    return v1.WebhookDelivery(replayed=payload)


def _step(
    connection: sa.Connection, event: RecordedEvent, delivery: v1.WebhookDelivery, webhook_id: str, **values: object
) -> None:
    delivery.time.CopyFrom(timestamp(event.time))
    delivery.actor, delivery.reason, delivery.revision = event.metadata.actor, event.metadata.reason, event.position
    row = {"revision": event.position, "webhook_id": webhook_id, "delivery": _packed(delivery)}
    connection.execute(sa.insert(deliveries), row)
    _set(connection, event, webhook_id, **values)


def _set(connection: sa.Connection, event: RecordedEvent, webhook_id: str, **values: object) -> None:
    change = sa.update(webhooks).where(webhooks.c.webhook_id == webhook_id)
    connection.execute(change.values(revision=event.position, **values))


def _last_error(event: RecordedEvent, payload: v1.WebhookParked) -> v1.WebhookTrouble:
    return v1.WebhookTrouble(
        position=payload.position,
        event_id=payload.event_id,
        attempts=payload.attempts,
        status_code=payload.status_code,
        detail=payload.detail,
        since=timestamp(event.time),
    )


def _packed(message: v1.WebhookSettings | v1.WebhookTrouble | v1.WebhookDelivery) -> bytes:
    return message.SerializeToString(deterministic=True)
