"""Webhooks: endpoints that are told of every change of an alias over HTTP, signed and in order.

It owns the webhooks log; a stream is one endpoint's, ``webhook/<webhook_id>``. Its cursor is the fold of that stream.
"""

from eventstore import EventTypes
from services.webhooks.events import WEBHOOKS_EVENTS

EVENTS = EventTypes(WEBHOOKS_EVENTS)


def webhook_stream(webhook_id: str) -> str:
    """Return the stream of an endpoint."""
    return f"webhook/{webhook_id}"
