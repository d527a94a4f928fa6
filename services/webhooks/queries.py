"""The answers of webhooks, each from rows of one moment."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from eventstore import Kind, Rejected, position_of
from rollforward import v1
from services.listings.pages import cut, key_of, page_size
from services.timestamps import timestamp
from services.webhooks.projection import deliveries, webhooks


def webhook(connection: sa.Connection, webhook_id: str) -> v1.Webhook:
    """One endpoint. Raises `Rejected` WEBHOOK_NOT_FOUND."""
    found = find_webhook(connection, webhook_id)
    if found is None:
        message = f"no webhook {webhook_id[:100]!r}"
        raise Rejected(Kind.NOT_FOUND, "WEBHOOK_NOT_FOUND", message, webhook_id=webhook_id[:100])
    return found


def find_webhook(connection: sa.Connection, webhook_id: str) -> v1.Webhook | None:
    """Return an endpoint; None when there is none, or none any more."""
    row = connection.execute(sa.select(webhooks).where(webhooks.c.webhook_id == webhook_id)).first()
    return None if row is None else _webhook(row)


def list_webhooks(connection: sa.Connection, request: v1.ListWebhooksRequest) -> v1.ListWebhooksResponse:
    """Return a page of endpoints, oldest first."""
    size = page_size(request.page_size)
    statement = sa.select(webhooks).order_by(webhooks.c.number).limit(size + 1)
    if key := key_of(request.page_token, int):
        statement = statement.where(webhooks.c.number > key[0])
    found = connection.execute(statement).all()
    page, token = cut(found, size, lambda row: [row.number], lambda some: [_webhook(row) for row in some])
    return v1.ListWebhooksResponse(webhooks=page, next_page_token=token)


def list_deliveries(connection: sa.Connection, request: v1.ListDeliveriesRequest) -> v1.ListDeliveriesResponse:
    """Return a page of the steps of an endpoint's cursor, newest first. Raises `Rejected` WEBHOOK_NOT_FOUND."""
    webhook(connection, request.webhook_id)
    size = page_size(request.page_size)
    statement = sa.select(deliveries).where(deliveries.c.webhook_id == request.webhook_id)
    if key := key_of(request.page_token, int):
        statement = statement.where(deliveries.c.revision < key[0])
    statement = statement.order_by(deliveries.c.revision.desc()).limit(size + 1)
    found = connection.execute(statement).all()
    page, token = cut(found, size, lambda row: [row.revision], lambda some: [_delivery(row) for row in some])
    return v1.ListDeliveriesResponse(deliveries=page, next_page_token=token)


def _delivery(row: sa.Row[tuple[object, ...]]) -> v1.WebhookDelivery:
    return v1.WebhookDelivery.FromString(row.delivery)


def all_ids(connection: sa.Connection) -> tuple[Sequence[str], int]:
    """Return the ids of all endpoints, and the position of the webhooks log that this holds at."""
    ids = connection.scalars(sa.select(webhooks.c.webhook_id).order_by(webhooks.c.number)).all()
    return ids, position_of(connection)


def _webhook(row: sa.Row[tuple[object, ...]]) -> v1.Webhook:
    trouble = v1.WebhookTrouble.FromString(row.trouble) if row.trouble is not None else None
    return v1.Webhook(
        webhook_id=row.webhook_id,
        settings=v1.WebhookSettings.FromString(row.settings),
        state=v1.WEBHOOK_STATE_ACTIVE if trouble is None else v1.WEBHOOK_STATE_PARKED,
        cursor=row.cursor,
        trouble=trouble,
        rotation=row.rotation,
        created_at=timestamp(row.created_at),
        actor=row.actor,
        revision=row.revision,
    )
