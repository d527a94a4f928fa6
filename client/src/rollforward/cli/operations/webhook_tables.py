"""Tables and JSON of webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rollforward as rf
from rollforward.cli.output.tables import enum_name, grid, moment, pairs, plain, short_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1


def plain_webhook(webhook: v1.Webhook) -> dict[str, Any]:
    """Return an endpoint as JSON."""
    fields = plain(webhook)
    return {"webhook_id": fields.pop("webhook_id"), **fields.pop("settings"), **fields}


def plain_delivery(delivery: v1.WebhookDelivery) -> dict[str, Any]:
    """Return a step of an endpoint's cursor as JSON."""
    kind = delivery.WhichOneof("step")
    fields = plain(delivery)
    step = fields.pop(kind) if kind else {}
    return {"kind": kind, **fields, **step}


def webhooks_table(webhooks: Sequence[v1.Webhook], *, wide: bool) -> RenderableType:
    """Return a table of endpoints."""
    rows = [
        (
            short_id(webhook.webhook_id, wide=wide),
            _state(webhook),
            str(webhook.cursor),
            webhook.settings.model,
            webhook.settings.alias,
            webhook.settings.url,
        )
        for webhook in webhooks
    ]
    return grid(("ID", "STATE", "CURSOR>", "MODEL", "ALIAS", "URL"), rows, empty="no webhooks")


def webhook_details(webhook: v1.Webhook, secret: str = "") -> RenderableType:
    """Return the settings and state of an endpoint, and its secret if given."""
    settings, error = webhook.settings, webhook.trouble
    kinds = [enum_name(rf.v1.WebhookChangeKind.DESCRIPTOR, kind) or "" for kind in settings.changes]
    shown = {"id": webhook.webhook_id, "url": settings.url, "state": _state(webhook), "cursor": str(webhook.cursor)}
    shown |= {"model": settings.model, "alias": settings.alias, "changes": ", ".join(kinds)}
    shown |= {"description": settings.description, "created": moment(webhook.created_at), "actor": webhook.actor}
    shown |= {"secret": secret}
    if webhook.HasField("trouble"):
        shown |= {"last error": f"change {error.position}: {error.detail} (attempt {error.attempts})"}
        shown |= {"failing since": moment(error.since)}
        shown |= {"next attempt": moment(error.next_attempt_at) if error.HasField("next_attempt_at") else ""}
    return pairs(shown)


def _state(webhook: v1.Webhook) -> str:
    return enum_name(rf.v1.WebhookState.DESCRIPTOR, webhook.state) or "-"


def test_result_table(result: v1.TestWebhookResponse) -> RenderableType:
    """Return the outcome of a test request."""
    return pairs(
        {"accepted": "yes" if result.delivered else "no", "status": str(result.status_code or "")}
        | {"error": result.detail, "seconds": f"{result.seconds:.3f}"}
    )


def deliveries_table(steps: Sequence[v1.WebhookDelivery]) -> RenderableType:
    """Return a table of the steps of an endpoint's cursor."""
    rows = [
        (moment(step.time), step.WhichOneof("step") or "", *_step(step), step.actor, step.reason or step.parked.detail)
        for step in steps
    ]
    headers = ("TIME", "KIND", "UP TO>", "CHANGES>", "ATTEMPTS>", "STATUS>", "ACTOR", "REASON")
    return grid(headers, rows, empty="no deliveries")


def _step(delivery: v1.WebhookDelivery) -> tuple[str, str, str, str]:
    match delivery.WhichOneof("step"):
        case "delivered":
            sent = delivery.delivered
            return str(sent.position), str(sent.deliveries), str(sent.attempts), str(sent.status_code)
        case "parked":
            return (
                str(delivery.parked.position),
                "",
                str(delivery.parked.attempts),
                str(delivery.parked.status_code or ""),
            )
        case "resumed":
            return str(delivery.resumed.to_revision), "", "", ""
        case _:
            return str(delivery.replayed.to_revision), "", "", ""


def attempts_table(requests: Sequence[v1.WebhookAttempt]) -> RenderableType:
    """Return a table of requests."""
    rows = [
        (
            moment(request.time),
            str(request.position),
            str(request.number),
            str(request.status_code or ""),
            f"{request.seconds:.3f}",
            request.detail,
        )
        for request in requests
    ]
    return grid(("TIME", "CHANGE>", "ATTEMPT>", "STATUS>", "SECONDS>", "ERROR"), rows, empty="no attempts")
