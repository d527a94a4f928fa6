"""Webhooks: endpoints that receive every change of an alias over HTTP, signed and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rollforward import v1
from rollforward._transport.connection import new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable

_KINDS: Final = {"moved": v1.WEBHOOK_CHANGE_KIND_MOVED, "removed": v1.WEBHOOK_CHANGE_KIND_REMOVED}


class Webhooks(Resource):
    """Endpoints that receive every change of an alias over HTTP, signed and in order."""

    def create(
        self,
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
    ) -> v1.CreateWebhookResponse:
        """Create an endpoint; the response has its secret ("whsec_..."), which is never shown again.

        Args:
            url: The URL to send changes to.
            model: A shell pattern for the names of models.
            alias: A shell pattern for the names of aliases.
            changes: "moved" or "removed"; by default both.
            description: The endpoint's description.
            from_revision: Send every change after this revision of the registry log, 0 for all; by default only new
                ones.
            epoch: The registry log's epoch when you read the revision, if not by this connection.
            reason: Why; recorded in the event.
            request_id: The id of the request, to repeat it safely; random by default.

        Raises:
            InvalidRequest: INVALID_URL, INVALID_PATTERN, INVALID_CHANGE_KIND, INVALID_DESCRIPTION, POSITION_AHEAD,
                REQUEST_ID_REUSED.
            Unavailable: No result within the timeout.
        """
        request = v1.CreateWebhookRequest(
            url=url,
            model=model,
            alias=alias,
            changes=_kinds(changes),
            description=description,
            from_revision=from_revision,
            epoch=self._connection.epoch("registry") if epoch is None else epoch,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return self._connection.call(self._connection.webhooks.CreateWebhook, request)

    def get(self, webhook_id: str) -> v1.Webhook:
        """Return an endpoint: its settings, its cursor, and its last error.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        return self._connection.call(
            self._connection.webhooks.GetWebhook, v1.GetWebhookRequest(webhook_id=webhook_id)
        ).webhook

    def list(self, *, limit: int | None = None) -> builtins.list[v1.Webhook]:
        """List endpoints, oldest first; `limit` None returns all.

        Raises:
            InvalidRequest: INVALID_LIMIT.
            Unavailable: No result within the timeout.
        """

        def fetch(size: int, token: str) -> tuple[Iterable[v1.Webhook], str]:
            page = self._connection.call(
                self._connection.webhooks.ListWebhooks, v1.ListWebhooksRequest(page_size=size, page_token=token)
            )
            return page.webhooks, page.next_page_token

        return collect(fetch, limit)

    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        model: str | None = None,
        alias: str | None = None,
        changes: Iterable[str] = (),
        description: str | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.Webhook:
        """Change settings of an endpoint; those not given stay. See `create_webhook` for the arguments.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            InvalidRequest: As `create_webhook`.
            Unavailable: No result within the timeout.
        """
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
        return self._connection.call(self._connection.webhooks.UpdateWebhook, request).webhook

    def delete(self, webhook_id: str, *, reason: str = "", request_id: str | None = None) -> None:
        """Delete an endpoint; nothing more is sent to it.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        request = v1.DeleteWebhookRequest(
            webhook_id=webhook_id, reason=reason, request_id=request_id or new_request_id()
        )
        self._connection.call(self._connection.webhooks.DeleteWebhook, request)

    def rotate_secret(
        self,
        webhook_id: str,
        *,
        overlap_seconds: int | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.RotateWebhookSecretResponse:
        """Replace an endpoint's secret; for `overlap_seconds` (24 hours), requests are also signed with the old one.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            InvalidRequest: INVALID_OVERLAP.
            Unavailable: No result within the timeout.
        """
        request = v1.RotateWebhookSecretRequest(
            webhook_id=webhook_id,
            overlap_seconds=overlap_seconds,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return self._connection.call(self._connection.webhooks.RotateWebhookSecret, request)

    def test(self, webhook_id: str) -> v1.TestWebhookResponse:
        """Send one signed request of type "webhook.test" to an endpoint, and return the outcome.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        return self._connection.call(
            self._connection.webhooks.TestWebhook, v1.TestWebhookRequest(webhook_id=webhook_id)
        )

    def resume(
        self,
        webhook_id: str,
        *,
        skip_revision: int | None = None,
        epoch: int | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.Webhook:
        """Resume an endpoint at once: one that is disabled, or that waits for its next attempt.

        With `skip_revision`, changes up to that revision of the registry log are not sent any more.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            InvalidRequest: POSITION_AHEAD.
            PreconditionFailed: SKIP_BEHIND.
            Unavailable: No result within the timeout.
        """
        request = v1.ResumeWebhookRequest(
            webhook_id=webhook_id,
            skip_revision=skip_revision,
            epoch=self._connection.epoch("registry") if epoch is None else epoch,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return self._connection.call(self._connection.webhooks.ResumeWebhook, request).webhook

    def replay(
        self,
        webhook_id: str,
        from_revision: int,
        *,
        epoch: int | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> v1.Webhook:
        """Send every change after a revision of the registry log again, in order and with the same ids.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            PreconditionFailed: REPLAY_AHEAD.
            Unavailable: No result within the timeout.
        """
        request = v1.ReplayWebhookRequest(
            webhook_id=webhook_id,
            from_revision=from_revision,
            epoch=self._connection.epoch("registry") if epoch is None else epoch,
            reason=reason,
            request_id=request_id or new_request_id(),
        )
        return self._connection.call(self._connection.webhooks.ReplayWebhook, request).webhook

    def deliveries(self, webhook_id: str, *, limit: int | None = 100) -> builtins.list[v1.WebhookDelivery]:
        """List the steps of an endpoint's cursor, newest first: deliveries, failures, resumptions and replays.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            InvalidRequest: INVALID_LIMIT.
            Unavailable: No result within the timeout.
        """

        def fetch(size: int, token: str) -> tuple[Iterable[v1.WebhookDelivery], str]:
            request = v1.ListDeliveriesRequest(webhook_id=webhook_id, page_size=size, page_token=token)
            page = self._connection.call(self._connection.webhooks.ListDeliveries, request)
            return page.deliveries, page.next_page_token

        return collect(fetch, limit)

    def attempts(self, webhook_id: str) -> builtins.list[v1.WebhookAttempt]:
        """List the last requests to an endpoint since the service started, newest first; at most 100.

        Raises:
            NotFound: WEBHOOK_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        request = v1.ListDeliveriesRequest(webhook_id=webhook_id, page_size=1)
        return list(self._connection.call(self._connection.webhooks.ListDeliveries, request).attempts)


def _kinds(changes: Iterable[str]) -> list[v1.WebhookChangeKind.ValueType]:
    names = list(changes)
    if unknown := sorted({*names} - {*_KINDS}):
        expected = " or ".join(_KINDS)
        message = f"unknown kind of change {', '.join(map(repr, unknown))}: expected {expected}"
        raise InvalidRequest("INVALID_CHANGE_KIND", message)
    return [_KINDS[name] for name in names]


create_webhook = default_client_function("create_webhook", Webhooks, Webhooks.create)
get_webhook = default_client_function("get_webhook", Webhooks, Webhooks.get)
list_webhooks = default_client_function("list_webhooks", Webhooks, Webhooks.list)
update_webhook = default_client_function("update_webhook", Webhooks, Webhooks.update)
delete_webhook = default_client_function("delete_webhook", Webhooks, Webhooks.delete)
rotate_webhook_secret = default_client_function("rotate_webhook_secret", Webhooks, Webhooks.rotate_secret)
try_webhook = default_client_function("try_webhook", Webhooks, Webhooks.test)
resume_webhook = default_client_function("resume_webhook", Webhooks, Webhooks.resume)
replay_webhook = default_client_function("replay_webhook", Webhooks, Webhooks.replay)
webhook_deliveries = default_client_function("webhook_deliveries", Webhooks, Webhooks.deliveries)
webhook_attempts = default_client_function("webhook_attempts", Webhooks, Webhooks.attempts)
