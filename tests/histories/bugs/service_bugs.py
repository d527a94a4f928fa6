"""Planted bugs of tracking, webhooks and logs, each at one stable place."""

from __future__ import annotations

from typing import Any

import services.tracking.servicer as tracking
from eventstore import epochs
from eventstore.event import RecordedEvent
from eventstore.ids import new_id
from eventstore.projections.snapshots import schedule
from rollforward import v1
from services import event_logs
from services.webhooks import delivery, http_client
from tests.histories.bugs.planting import every, replace_attribute


def lost_events_are_not_missed() -> None:
    """Open a log that is shorter than its projections."""

    async def none(_store: Any, _known: Any) -> None:
        return None

    for module in (epochs, schedule, event_logs):
        replace_attribute(module, "find_loss", none)
    replace_attribute(event_logs, "missing_losses", lambda _log, _known: [])


def batches_are_forgotten() -> None:
    """Acknowledge every fourth batch of points without writing it."""
    log, is_due = tracking.TrackingServicer.LogBatch, every(4)

    async def forgetful(servicer: Any, request: v1.LogBatchRequest, context: Any) -> v1.LogBatchResponse:
        if request.series and is_due():
            return v1.LogBatchResponse(position=1)
        return await log(servicer, request, context)

    replace_attribute(tracking.TrackingServicer, "LogBatch", forgetful)


def batches_are_duplicated() -> None:
    """Write every fourth batch of points again, as another request."""
    log, is_due = tracking.TrackingServicer.LogBatch, every(4)

    async def eager(servicer: Any, request: v1.LogBatchRequest, context: Any) -> v1.LogBatchResponse:
        response = await log(servicer, request, context)
        if request.series and is_due():
            request.request_id = new_id()
            response = await log(servicer, request, context)
        return response

    replace_attribute(tracking.TrackingServicer, "LogBatch", eager)


def webhook_skips_a_change() -> None:
    """Mark every tenth change as delivered without sending it."""
    deliver, is_due = delivery.DeliverySession._deliver, every(10)

    async def careless(sender: Any, event: RecordedEvent) -> bool:
        return True if is_due() else await deliver(sender, event)

    replace_attribute(delivery.DeliverySession, "_deliver", careless)


def webhook_ignores_rejections() -> None:
    """Treat rejected deliveries as accepted."""
    replace_attribute(http_client.Answer, "taken", property(lambda answer: answer.status_code > 0))


def webhook_is_signed_for_another_message() -> None:
    """Sign every tenth request for another message id."""
    post, is_due = delivery.DeliveryContext.post, every(10)

    async def confused(means: Any, webhook_id: str, state: Any, message_id: str, body: str, *more: Any) -> Any:
        if not is_due():
            return await post(means, webhook_id, state, message_id, body, *more)
        headers = means.signer.headers

        def signed(*about: Any) -> Any:
            wrong = headers(*about[:3], "another", *about[4:])
            return {**wrong, "webhook-id": message_id}

        means.signer.headers = signed
        try:
            return await post(means, webhook_id, state, message_id, body, *more)
        finally:
            means.signer.headers = headers

    replace_attribute(delivery.DeliveryContext, "post", confused)
