"""Delivery to one endpoint while its state is unchanged: in order, one request at a time, until it is disabled."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import httpx
import structlog
from prometheus_client import Counter

from eventstore import CommandHandler, Conflict, Metadata, RecordedEvent, StoreUnavailable, Tail, on_wire
from rollforward import v1
from services import actors
from services.timestamps import timestamp
from services.webhooks import webhook_stream
from services.webhooks.allowed_addresses import check_url
from services.webhooks.decider import Reported, State
from services.webhooks.http_client import REQUEST_SECONDS, Answer, pause_after, post
from services.webhooks.payload import body_of, wants
from services.webhooks.signing import Signer

RECORD_DELIVERIES = 100
RECORD_SECONDS = 1.0
RETRY_SECONDS = 0.5
KEPT_ATTEMPTS = 100

ATTEMPTS = Counter(
    "rollforward_webhook_attempts",
    "Requests to an endpoint: taken or refused; parked counts how often it was disabled",
    ["webhook", "outcome"],
    registry=None,
)

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """The dependencies of delivery.

    Attributes:
        registry: The registry log's tail.
        commands: The commands of endpoints.
        signer: Signs requests.
        client: Sends the requests.
        retry_timeout: The seconds for which a change is retried before its endpoint is disabled.
        allow_private: Whether endpoints may have addresses that are not public.
    """

    registry: Tail
    commands: CommandHandler[State]
    signer: Signer
    client: httpx.AsyncClient
    retry_timeout: float
    allow_private: bool

    async def check_url(self, url: str) -> None:
        """Check that requests may go to a URL. Raises `Rejected` PRIVATE_ADDRESS."""
        if not self.allow_private:
            await check_url(url)

    async def post(
        self, webhook_id: str, state: State, message_id: str, body: str, seconds: float = REQUEST_SECONDS
    ) -> Answer:
        """Send one signed request to an endpoint, with a timeout in seconds."""
        headers = self.signer.headers(
            webhook_id, state.rotation, state.previous_valid_until, message_id, time.time_ns(), body
        )
        return await post(self.client, state.settings.url, headers, body, seconds)


@dataclass(slots=True)
class Journal:
    """What a process remembers of an endpoint: its recent requests and the last error, if it is being retried."""

    attempts: deque[v1.WebhookAttempt] = field(default_factory=lambda: deque(maxlen=KEPT_ATTEMPTS))
    last_error: v1.WebhookTrouble | None = None


class DeliverySession:
    """Delivers the changes after a state's cursor.

    Args:
        webhook_id: The endpoint.
        state: Its current state.
        context: The dependencies of delivery.
        journal: Receives every request.
        changed: Set when the state is out of date; no request starts after that.
    """

    def __init__(
        self, webhook_id: str, state: State, context: DeliveryContext, journal: Journal, changed: asyncio.Event
    ) -> None:
        self.requesting = False
        self._webhook_id = webhook_id
        self._state = state
        self._context = context
        self._journal = journal
        self._changed = changed
        self._after = state.cursor
        self._unreported = self._empty_report()
        self._unreported_since = 0.0

    async def run(self) -> None:
        """Wait until the endpoint is disabled, or `changed` is set.

        Raises:
            FollowerTooSlow: It fell too far behind the log; start another session.
            StoreUnavailable: A log is unavailable.
        """
        if not await self._cursor_holds():
            detail = "the cursor is not in the registry log, which has lost events. Replay from an earlier revision"
            await self._park(v1.WebhookParked(position=self._after + 1, detail=detail))
            return
        async with aclosing(self._context.registry.follow(self._after, RECORD_SECONDS)) as batches:
            async for batch, _ in batches:
                if not await self._send_all(batch):
                    return

    async def record(self) -> None:
        """Record acknowledged deliveries, and retry until the log accepts them."""
        waits = False
        while self._unreported.deliveries:
            try:
                await self._report(self._unreported)
                self._unreported = self._empty_report()
            except (StoreUnavailable, Conflict) as error:
                if not waits:
                    _logger.warning(
                        "cannot record webhook cursor, retrying", webhook=self._webhook_id, error=str(error)
                    )
                waits = True
                await asyncio.sleep(RETRY_SECONDS)

    def _empty_report(self) -> v1.WebhookDelivered:
        epoch = on_wire(self._context.registry.store.epochs[-1])
        return v1.WebhookDelivered(webhook_id=self._webhook_id, epoch=epoch)

    async def _cursor_holds(self) -> bool:
        """Return whether the log still has the event at the cursor: a log that lost its tail must not be followed."""
        cursor, known = self._state.cursor, self._state.cursor_event
        if not known:
            same_epoch = self._state.log_epoch == self._context.registry.store.epochs[-1]
            return not cursor or (same_epoch and cursor <= await self._context.registry.store.head())
        event = await self._context.registry.store.event_at(cursor)
        return event is not None and event.id == known

    async def _send_all(self, batch: Sequence[RecordedEvent]) -> bool:
        for event in batch:
            if wants(self._state.settings, event) and not await self._deliver(event):
                return False
            self._after = event.position
        due = self._unreported.deliveries and time.monotonic() - self._unreported_since >= RECORD_SECONDS
        if due or not batch:
            await self.record()
        return not self._changed.is_set()

    async def _deliver(self, event: RecordedEvent) -> bool:
        """Send a change until it is accepted, and return whether it was."""
        body, started, number = body_of(event), time.monotonic(), 0
        while not self._changed.is_set():
            number += 1
            answer = await self._attempt(event, body, number)
            if answer.taken:
                await self._acknowledge(event, number, answer)
                return True
            left = started + self._context.retry_timeout - time.monotonic()
            # Earlier acknowledgements must not wait for this retry.
            await self.record()
            if answer.gone or left <= 0:
                await self._park(_parked(event, number, answer))
                return False
            await self._pause(event, number, answer, left)
        return False

    async def _attempt(self, event: RecordedEvent, body: str, number: int) -> Answer:
        at, self.requesting = time.time_ns(), True
        try:
            answer = await self._context.post(self._webhook_id, self._state, event.id, body)
        finally:
            self.requesting = False
        ATTEMPTS.labels(self._webhook_id, "taken" if answer.taken else "refused").inc()
        self._journal.attempts.append(attempt_view(event.position, event.id, number, answer, at))
        return answer

    async def _acknowledge(self, event: RecordedEvent, attempts: int, answer: Answer) -> None:
        if self._journal.last_error is not None:
            _logger.info("webhook delivery recovered", webhook=self._webhook_id, attempts=attempts)
            self._journal.last_error = None
        if not self._unreported.deliveries:
            self._unreported_since = time.monotonic()
        self._unreported.position, self._unreported.event_id = event.position, event.id
        self._unreported.deliveries += 1
        self._unreported.attempts += attempts
        self._unreported.status_code = answer.status_code
        overdue = time.monotonic() - self._unreported_since >= RECORD_SECONDS
        if overdue or self._unreported.deliveries >= RECORD_DELIVERIES:
            await self.record()

    async def _pause(self, event: RecordedEvent, attempts: int, answer: Answer, left: float) -> None:
        seconds = min(pause_after(attempts, answer.retry_after), left)
        known, now = self._journal.last_error, time.time_ns()
        if known is None:
            details = {"position": event.position, "status_code": answer.status_code, "detail": answer.detail}
            _logger.warning("webhook delivery failed, retrying", webhook=self._webhook_id, **details)
        self._journal.last_error = v1.WebhookTrouble(
            position=event.position,
            event_id=event.id,
            attempts=attempts,
            status_code=answer.status_code,
            detail=answer.detail,
            since=known.since if known else timestamp(now),
            next_attempt_at=timestamp(now + round(seconds * 1_000_000_000)),
        )
        await asyncio.sleep(seconds)

    async def _park(self, parked: v1.WebhookParked) -> None:
        parked.webhook_id = self._webhook_id
        await self._report(parked)
        ATTEMPTS.labels(self._webhook_id, "parked").inc()
        _logger.error("webhook disabled", webhook=self._webhook_id, position=parked.position, detail=parked.detail)

    async def _report(self, payload: v1.WebhookDelivered | v1.WebhookParked) -> None:
        metadata = Metadata(actors.WEBHOOKS, causation_id=payload.event_id)
        command = Reported(payload, self._state.epoch)
        await self._context.commands.handle(webhook_stream(self._webhook_id), command, metadata)


def attempt_view(position: int, message_id: str, number: int, answer: Answer, at: int) -> v1.WebhookAttempt:
    """Return an attempt as operators see it; `at` is in nanoseconds since 1970."""
    return v1.WebhookAttempt(
        position=position,
        event_id=message_id,
        number=number,
        status_code=answer.status_code,
        detail=answer.detail,
        time=timestamp(at),
        seconds=answer.seconds,
    )


def _parked(event: RecordedEvent, attempts: int, answer: Answer) -> v1.WebhookParked:
    return v1.WebhookParked(
        position=event.position,
        event_id=event.id,
        attempts=attempts,
        status_code=answer.status_code,
        detail=answer.detail,
    )
