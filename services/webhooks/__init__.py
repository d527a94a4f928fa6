"""Webhooks: endpoints that are told of every change of an alias over HTTP, signed and in order.

It owns the webhooks log; a stream is one endpoint's, ``webhook/<webhook_id>``. Its cursor is the fold of that stream.
"""

from eventstore import EventTypes
from rollforward import v1

EVENTS = EventTypes(
    [
        v1.WebhookCreated,
        v1.WebhookChanged,
        v1.WebhookDeleted,
        v1.WebhookSecretRotated,
        v1.WebhookDelivered,
        v1.WebhookParked,
        v1.WebhookResumed,
        v1.WebhookReplayed,
        v1.LogEpochBegan,
    ]
)


def webhook_stream(webhook_id: str) -> str:
    """The stream of an endpoint."""
    return f"webhook/{webhook_id}"
