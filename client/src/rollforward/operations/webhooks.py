"""Webhooks: endpoints that are told of every change of an alias over HTTP, signed and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rollforward import v1
from rollforward._transport.connection import Connection, current, new_request_id
from rollforward._transport.paging import collect
from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS: Final = {"moved": v1.WEBHOOK_CHANGE_KIND_MOVED, "removed": v1.WEBHOOK_CHANGE_KIND_REMOVED}


def create_webhook(
    url: str,
    *,
    model: str = "*",
    alias: str = "*",
    changes: Iterable[str] = (),
    description: str = "",
    from_revision: int | None = None,
    epoch: int | None = None,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.CreateWebhookResponse:
    """Set an endpoint up; the response has it and its secret ("whsec_..."), which is never shown again.

    `model` and `alias` are shell patterns of what it hears of; `changes` are "moved", "removed" or, without any, all.
    It is told of every change after `from_revision` of the registry log (0 for all that there ever were), without one
    of those to come.

    Raises InvalidRequest (INVALID_URL, INVALID_PATTERN, INVALID_CHANGE_KIND, INVALID_DESCRIPTION, POSITION_AHEAD,
    REQUEST_ID_REUSED), Unavailable.
    """
    link = current(connection)
    request = v1.CreateWebhookRequest(
        url=url,
        model=model,
        alias=alias,
        changes=_kinds(changes),
        description=description,
        from_revision=from_revision,
        epoch=link.epoch("registry") if epoch is None else epoch,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.webhooks.CreateWebhook, request)


def get_webhook(webhook_id: str, *, connection: Connection | None = None) -> v1.Webhook:
    """One endpoint: its settings, how far it is, and what is wrong with it.

    Raises NotFound (WEBHOOK_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    return link.call(link.webhooks.GetWebhook, v1.GetWebhookRequest(webhook_id=webhook_id)).webhook


def list_webhooks(*, limit: int | None = None, connection: Connection | None = None) -> list[v1.Webhook]:
    """Endpoints, oldest first: the first `limit`, None for all. Raises InvalidRequest (INVALID_LIMIT), Unavailable."""
    link = current(connection)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.Webhook], str]:
        page = link.call(link.webhooks.ListWebhooks, v1.ListWebhooksRequest(page_size=size, page_token=token))
        return page.webhooks, page.next_page_token

    return collect(fetch, limit)


def update_webhook(
    webhook_id: str,
    *,
    url: str | None = None,
    model: str | None = None,
    alias: str | None = None,
    changes: Iterable[str] = (),
    description: str | None = None,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Webhook:
    """Change an endpoint's settings; what is not given stays as it is. See `create_webhook` for the arguments.

    Raises NotFound (WEBHOOK_NOT_FOUND), InvalidRequest (as `create_webhook`), Unavailable.
    """
    link = current(connection)
    request = v1.UpdateWebhookRequest(
        webhook_id=webhook_id,
        url=url,
        model=model,
        alias=alias,
        changes=_kinds(changes),
        description=description,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.webhooks.UpdateWebhook, request).webhook


def delete_webhook(
    webhook_id: str, *, reason: str = "", request_id: str | None = None, connection: Connection | None = None
) -> None:
    """Take an endpoint away: nothing more is sent to it. Raises NotFound (WEBHOOK_NOT_FOUND), Unavailable."""
    link = current(connection)
    request = v1.DeleteWebhookRequest(webhook_id=webhook_id, reason=reason, request_id=request_id or new_request_id())
    link.call(link.webhooks.DeleteWebhook, request)


def rotate_webhook_secret(
    webhook_id: str,
    *,
    overlap_seconds: int | None = None,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.RotateWebhookSecretResponse:
    """Replace an endpoint's secret; for `overlap_seconds` (24 hours) requests are signed with the old one too.

    Raises NotFound (WEBHOOK_NOT_FOUND), InvalidRequest (INVALID_OVERLAP), Unavailable.
    """
    link = current(connection)
    request = v1.RotateWebhookSecretRequest(
        webhook_id=webhook_id,
        overlap_seconds=overlap_seconds,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.webhooks.RotateWebhookSecret, request)


def try_webhook(webhook_id: str, *, connection: Connection | None = None) -> v1.TestWebhookResponse:
    """Send an endpoint one signed request of type "webhook.test", and say what came of it.

    Raises NotFound (WEBHOOK_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    return link.call(link.webhooks.TestWebhook, v1.TestWebhookRequest(webhook_id=webhook_id))


def resume_webhook(
    webhook_id: str,
    *,
    skip_revision: int | None = None,
    epoch: int | None = None,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Webhook:
    """Send on at once: to a parked endpoint, or to one that waits for its next attempt.

    With `skip_revision` nothing up to that revision of the registry log is sent any more.

    Raises NotFound (WEBHOOK_NOT_FOUND), InvalidRequest (POSITION_AHEAD), PreconditionFailed (SKIP_BEHIND), Unavailable.
    """
    link = current(connection)
    request = v1.ResumeWebhookRequest(
        webhook_id=webhook_id,
        skip_revision=skip_revision,
        epoch=link.epoch("registry") if epoch is None else epoch,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.webhooks.ResumeWebhook, request).webhook


def replay_webhook(
    webhook_id: str,
    from_revision: int,
    *,
    epoch: int | None = None,
    reason: str = "",
    request_id: str | None = None,
    connection: Connection | None = None,
) -> v1.Webhook:
    """Send every change after a revision of the registry log again, in order, each with the id that it had.

    Raises NotFound (WEBHOOK_NOT_FOUND), PreconditionFailed (REPLAY_AHEAD), Unavailable.
    """
    link = current(connection)
    request = v1.ReplayWebhookRequest(
        webhook_id=webhook_id,
        from_revision=from_revision,
        epoch=link.epoch("registry") if epoch is None else epoch,
        reason=reason,
        request_id=request_id or new_request_id(),
    )
    return link.call(link.webhooks.ReplayWebhook, request).webhook


def webhook_deliveries(
    webhook_id: str, *, limit: int | None = 100, connection: Connection | None = None
) -> list[v1.WebhookDelivery]:
    """The steps of an endpoint's cursor, newest first: what was delivered, parked, resumed and replayed.

    Raises NotFound (WEBHOOK_NOT_FOUND), InvalidRequest (INVALID_LIMIT), Unavailable.
    """
    link = current(connection)

    def fetch(size: int, token: str) -> tuple[Iterable[v1.WebhookDelivery], str]:
        request = v1.ListDeliveriesRequest(webhook_id=webhook_id, page_size=size, page_token=token)
        page = link.call(link.webhooks.ListDeliveries, request)
        return page.deliveries, page.next_page_token

    return collect(fetch, limit)


def webhook_attempts(webhook_id: str, *, connection: Connection | None = None) -> list[v1.WebhookAttempt]:
    """The last requests to an endpoint that the service made since it started, newest first; at most 100.

    Raises NotFound (WEBHOOK_NOT_FOUND), Unavailable.
    """
    link = current(connection)
    request = v1.ListDeliveriesRequest(webhook_id=webhook_id, page_size=1)
    return list(link.call(link.webhooks.ListDeliveries, request).attempts)


def _kinds(changes: Iterable[str]) -> list[v1.WebhookChangeKind.ValueType]:
    names = list(changes)
    if unknown := sorted({*names} - {*_KINDS}):
        message = f"no kind of change: {', '.join(map(repr, unknown))}; there are {', '.join(_KINDS)}"
        raise InvalidRequest("INVALID_CHANGE_KIND", message)
    return [_KINDS[name] for name in names]
