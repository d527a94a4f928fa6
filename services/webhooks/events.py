"""The events of the webhooks log.

Rules, folds and rows match on these unions: an event that one of them does not handle fails the type check.
"""

from __future__ import annotations

from typing import TypeAlias, get_args

from google.protobuf.message import Message

from rollforward import v1

WebhookEvent: TypeAlias = (
    v1.WebhookDelivered
    | v1.WebhookCreated
    | v1.WebhookChanged
    | v1.WebhookDeleted
    | v1.WebhookSecretRotated
    | v1.WebhookParked
    | v1.WebhookResumed
    | v1.WebhookReplayed
)
WebhooksEvent: TypeAlias = WebhookEvent | v1.LogEpochBegan

WEBHOOKS_EVENTS: tuple[type[Message], ...] = get_args(WebhooksEvent)
"""The types of all events of the log; those that come most often are first."""


def webhook_event(data: Message) -> WebhookEvent:
    """Return an event's payload as an event of a webhook.

    Raises:
        TypeError: It is not one.
    """
    if isinstance(data, WebhookEvent):
        return data
    raise TypeError(f"not an event of a webhook: {type(data).__name__}")
