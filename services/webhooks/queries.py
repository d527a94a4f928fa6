"""Queries of webhooks, each on one consistent snapshot of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from eventstore import Kind, Rejected, position_of
from rollforward import v1
from services.listings.pages import cut, key_of, page_size
from services.timestamps import timestamp
from services.webhooks.projection import deliveries, webhooks


def webhook(connection: sa.Connection, webhook_id: str) -> v1.Webhook:
    """Return an endpoint. Raises `Rejected` WEBHOOK_NOT_FOUND."""
    webhook = find_webhook(connection, webhook_id)
    if webhook is None:
        message = f"no webhook has the id {webhook_id[:100]!r}. List the ids with ListWebhooks"
        raise Rejected(Kind.NOT_FOUND, "WEBHOOK_NOT_FOUND", message, webhook_id=webhook_id[:100])
    return webhook


def find_webhook(connection: sa.Connection, webhook_id: str) -> v1.Webhook | None:
    """Return an endpoint; None if it does not exist or is deleted."""
    row = connection.execute(sa.select(webhooks).where(webhooks.c.webhook_id == webhook_id)).first()
    return None if row is None else _webhook(row)


def list_webhooks(connection: sa.Connection, request: v1.ListWebhooksRequest) -> v1.ListWebhooksResponse:
    """Return a page of endpoints, oldest first."""
    size = page_size(request.page_size)
    statement = sa.select(webhooks).order_by(webhooks.c.number).limit(size + 1)
    if key := key_of(request.page_token, int):
        statement = statement.where(webhooks.c.number > key[0])
    rows = connection.execute(statement).all()
    page, token = cut(rows, size, lambda row: [row.number], lambda shown: [_webhook(row) for row in shown])
    return v1.ListWebhooksResponse(webhooks=page, next_page_token=token)


def list_deliveries(connection: sa.Connection, request: v1.ListDeliveriesRequest) -> v1.ListDeliveriesResponse:
    """Return a page of the steps of an endpoint's cursor, newest first. Raises `Rejected` WEBHOOK_NOT_FOUND."""
    webhook(connection, request.webhook_id)
    size = page_size(request.page_size)
    statement = sa.select(deliveries).where(deliveries.c.webhook_id == request.webhook_id)
    if key := key_of(request.page_token, int):
        statement = statement.where(deliveries.c.revision < key[0])
    statement = statement.order_by(deliveries.c.revision.desc()).limit(size + 1)
    rows = connection.execute(statement).all()
    page, token = cut(rows, size, lambda row: [row.revision], lambda shown: [_delivery(row) for row in shown])
    return v1.ListDeliveriesResponse(deliveries=page, next_page_token=token)


def _delivery(row: sa.Row[tuple[object, ...]]) -> v1.WebhookDelivery:
    return v1.WebhookDelivery.FromString(row.delivery)


def all_ids(connection: sa.Connection) -> tuple[Sequence[str], int]:
    """Return the ids of all endpoints, and the position of the webhooks log that they reflect."""
    ids = connection.scalars(sa.select(webhooks.c.webhook_id).order_by(webhooks.c.number)).all()
    return ids, position_of(connection)


def _webhook(row: sa.Row[tuple[object, ...]]) -> v1.Webhook:
    last_error = v1.WebhookTrouble.FromString(row.trouble) if row.trouble is not None else None
    return v1.Webhook(
        webhook_id=row.webhook_id,
        settings=v1.WebhookSettings.FromString(row.settings),
        state=v1.WEBHOOK_STATE_ACTIVE if last_error is None else v1.WEBHOOK_STATE_PARKED,
        cursor=row.cursor,
        trouble=last_error,
        rotation=row.rotation,
        created_at=timestamp(row.created_at),
        actor=row.actor,
        revision=row.revision,
    )
