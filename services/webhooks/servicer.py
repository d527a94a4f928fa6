"""The gRPC methods of webhooks."""

from __future__ import annotations

import hashlib
import time
import uuid

from eventstore import Kind, Metadata, Outcome, Projector, RecordedEvent, Rejected, check_epoch
from rollforward import v1
from services.rpc.context import Command, Context, metadata
from services.rpc.positions import wait_for
from services.validation import check_id
from services.webhooks import queries, webhook_stream
from services.webhooks.decider import Create, Refuse, Rotate, State
from services.webhooks.dispatcher import Dispatcher
from services.webhooks.http_client import REQUEST_SECONDS
from services.webhooks.payload import body_of_test

SHOWN_SECONDS = 600


class WebhooksServicer(v1.WebhookServiceServicer):
    """Endpoints and their deliveries.

    Args:
        projector: The rows of webhooks.
        senders: The dispatcher that delivers to the endpoints.
    """

    def __init__(self, projector: Projector, senders: Dispatcher) -> None:
        self._projector = projector
        self._senders = senders
        self._context = senders.context
        self._commands = senders.context.commands

    async def CreateWebhook(self, request: v1.CreateWebhookRequest, context: Context) -> v1.CreateWebhookResponse:
        """Create an endpoint."""
        known = metadata(request, context)
        webhook_id = _id_for(known)
        head = await self._context.registry.store.head()
        after = request.from_revision if request.HasField("from_revision") else head
        if request.HasField("from_revision"):
            self._check_epoch(request.epoch)
        _check_not_ahead(after, head)
        command = await self._reachable(request.url, Create(request, webhook_id, after, self._epoch))
        done = await self._handle(webhook_id, command, request, context)
        webhook = await self._after(webhook_id, done.position)
        secret = self._new_secret(webhook_id, 0, done.events[0])
        return v1.CreateWebhookResponse(webhook=webhook, secret=secret, position=done.position)

    async def GetWebhook(self, request: v1.GetWebhookRequest, context: Context) -> v1.GetWebhookResponse:
        """Return one endpoint."""
        return v1.GetWebhookResponse(webhook=await self._webhook(request.webhook_id))

    async def ListWebhooks(self, request: v1.ListWebhooksRequest, context: Context) -> v1.ListWebhooksResponse:
        """Return endpoints, oldest first."""
        page = await self._projector.query(lambda connection: queries.list_webhooks(connection, request))
        for webhook in page.webhooks:
            self._add_last_error(webhook)
        return page

    async def UpdateWebhook(self, request: v1.UpdateWebhookRequest, context: Context) -> v1.UpdateWebhookResponse:
        """Change an endpoint's settings."""
        command = await self._reachable(request.url, request)
        done = await self._handle(request.webhook_id, command, request, context)
        return v1.UpdateWebhookResponse(
            webhook=await self._after(request.webhook_id, done.position), position=done.position
        )

    async def DeleteWebhook(self, request: v1.DeleteWebhookRequest, context: Context) -> v1.DeleteWebhookResponse:
        """Delete an endpoint."""
        done = await self._handle(request.webhook_id, request, request, context)
        return v1.DeleteWebhookResponse(position=done.position)

    async def RotateWebhookSecret(
        self, request: v1.RotateWebhookSecretRequest, context: Context
    ) -> v1.RotateWebhookSecretResponse:
        """Replace an endpoint's secret."""
        done = await self._handle(request.webhook_id, Rotate(request, time.time_ns()), request, context)
        rotated = done.events[0].data
        assert isinstance(rotated, v1.WebhookSecretRotated)  # noqa: S101
        return v1.RotateWebhookSecretResponse(
            secret=self._new_secret(request.webhook_id, rotated.rotation, done.events[0]),
            previous_valid_until=rotated.previous_valid_until,
            position=done.position,
        )

    async def GetWebhookSecret(
        self, request: v1.GetWebhookSecretRequest, context: Context
    ) -> v1.GetWebhookSecretResponse:
        """Raise an error: a secret is shown only when it is created."""
        await self._state(request.webhook_id)
        fault = "a secret is shown only when it is created. Rotate the secret to get a new one"
        raise Rejected(Kind.PRECONDITION, "SECRET_NOT_SHOWN", fault, webhook_id=request.webhook_id)

    async def TestWebhook(self, request: v1.TestWebhookRequest, context: Context) -> v1.TestWebhookResponse:
        """Send one signed test request."""
        state = await self._state(request.webhook_id)
        body = body_of_test(request.webhook_id, time.time_ns())
        remaining = context.time_remaining()
        limit = REQUEST_SECONDS if remaining is None else min(REQUEST_SECONDS, 0.9 * remaining)
        answer = await self._context.post(request.webhook_id, state, f"test_{uuid.uuid4().hex}", body, limit)
        return v1.TestWebhookResponse(
            delivered=answer.taken, status_code=answer.status_code, detail=answer.detail, seconds=answer.seconds
        )

    async def ResumeWebhook(self, request: v1.ResumeWebhookRequest, context: Context) -> v1.ResumeWebhookResponse:
        """Resume sending at once."""
        if request.HasField("skip_revision"):
            self._check_epoch(request.epoch)
        _check_not_ahead(request.skip_revision, await self._context.registry.store.head())
        done = await self._handle(request.webhook_id, request, request, context)
        if not done.events:
            self._senders.look_again(request.webhook_id)
        return v1.ResumeWebhookResponse(
            webhook=await self._after(request.webhook_id, done.position), position=done.position
        )

    async def ReplayWebhook(self, request: v1.ReplayWebhookRequest, context: Context) -> v1.ReplayWebhookResponse:
        """Send every change after a revision again."""
        if request.from_revision:
            self._check_epoch(request.epoch)
        done = await self._handle(request.webhook_id, request, request, context)
        return v1.ReplayWebhookResponse(
            webhook=await self._after(request.webhook_id, done.position), position=done.position
        )

    async def ListDeliveries(self, request: v1.ListDeliveriesRequest, context: Context) -> v1.ListDeliveriesResponse:
        """Return what was sent to an endpoint."""
        page = await self._projector.query(lambda connection: queries.list_deliveries(connection, request))
        journal = self._senders.journals().get(request.webhook_id)
        if journal and not request.page_token:
            page.attempts.extend(reversed(journal.attempts))
        return page

    async def _reachable(self, url: str, command: object) -> object:
        """Return the command, or `Refuse` when requests may not go to the URL."""
        try:
            await self._context.check_url(url)
        except Rejected as refusal:
            return Refuse(refusal)
        return command

    def _new_secret(self, webhook_id: str, rotation: int, made: RecordedEvent) -> str:
        """Return the secret that an event created, while its request may be repeated because the response was lost."""
        # An event that was just appended has no log time yet.
        if made.time and time.time_ns() - made.time > SHOWN_SECONDS * 1_000_000_000:
            return ""
        return self._context.signer.secret(webhook_id, rotation)

    @property
    def _epoch(self) -> int:
        return self._context.registry.store.epochs[-1]

    def _check_epoch(self, given: int) -> None:
        check_epoch("registry", given, self._epoch)

    async def _handle(self, webhook_id: str, command: object, request: Command, context: Context) -> Outcome[State]:
        check_id(webhook_id, "INVALID_WEBHOOK_ID")
        done = await self._commands.handle(webhook_stream(webhook_id), command, metadata(request, context))
        await wait_for(self._projector, done.position, context)
        return done

    async def _state(self, webhook_id: str) -> State:
        check_id(webhook_id, "INVALID_WEBHOOK_ID")
        state, _ = await self._commands.state(webhook_stream(webhook_id))
        if not state.exists:
            raise Rejected(
                Kind.NOT_FOUND,
                "WEBHOOK_NOT_FOUND",
                f"no webhook has the id {webhook_id!r}. List the ids with ListWebhooks",
                webhook_id=webhook_id,
            )
        return state

    async def _after(self, webhook_id: str, position: int) -> v1.Webhook:
        """Return a command's endpoint; if it was deleted since, as the command left it."""
        webhook = await self._projector.query(lambda connection: queries.find_webhook(connection, webhook_id))
        if webhook is None:
            state, _ = await self._commands.state(webhook_stream(webhook_id), until=position)
            return _view_of(webhook_id, state)
        self._add_last_error(webhook)
        return webhook

    async def _webhook(self, webhook_id: str) -> v1.Webhook:
        webhook = await self._projector.query(lambda connection: queries.webhook(connection, webhook_id))
        self._add_last_error(webhook)
        return webhook

    def _add_last_error(self, webhook: v1.Webhook) -> None:
        journal = self._senders.journals().get(webhook.webhook_id)
        if journal and journal.last_error and webhook.state == v1.WEBHOOK_STATE_ACTIVE:
            webhook.state = v1.WEBHOOK_STATE_RETRYING
            webhook.trouble.CopyFrom(journal.last_error)


def _id_for(known: Metadata) -> str:
    """Return a new endpoint's id; the same for a repeated request."""
    if not known.request_id:
        return uuid.uuid4().hex
    return hashlib.sha256(f"webhook\0{known.actor}\0{known.request_id}".encode()).hexdigest()[:32]


def _view_of(webhook_id: str, state: State) -> v1.Webhook:
    """Return an endpoint as its stream's state shows it."""
    return v1.Webhook(
        webhook_id=webhook_id,
        settings=state.settings,
        state=v1.WEBHOOK_STATE_PARKED if state.parked else v1.WEBHOOK_STATE_ACTIVE,
        cursor=state.cursor,
        rotation=state.rotation,
    )


def _check_not_ahead(revision: int, head: int) -> None:
    if revision > head:
        message = f"revision {revision} is after the end of the registry log: expected at most {head}"
        raise Rejected(Kind.INVALID, "POSITION_AHEAD", message, position=str(revision))
