"""All endpoints of a process, each with its own task that restarts when the endpoint changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from eventstore import FollowerTooSlow, Projector, RecordedEvent, StoreUnavailable, end, run_follower
from rollforward import v1
from services.webhooks import webhook_stream
from services.webhooks.delivery import RETRY_SECONDS, DeliveryContext, DeliverySession, Journal
from services.webhooks.queries import all_ids

GRACE_SECONDS = 5.0
RESTART_SECONDS = 5.0

_logger = structlog.get_logger(__name__)


class Sender:
    """Delivers changes to one endpoint until it is deleted.

    Args:
        webhook_id: The endpoint.
        context: The dependencies of delivery.
    """

    def __init__(self, webhook_id: str, context: DeliveryContext) -> None:
        self.journal = Journal()
        self._webhook_id = webhook_id
        self._context = context
        self._changed = asyncio.Event()
        self._stopping = False
        self._sending: DeliverySession | None = None
        self._work: asyncio.Task[None] | None = None
        self._waits = False
        self._task = asyncio.create_task(self._run(), name=f"webhook-{webhook_id}")

    @property
    def ended(self) -> bool:
        """Whether the sender has ended: its endpoint is deleted."""
        return self._task.done()

    def look_again(self) -> None:
        """Read the endpoint again and resume sending at once, after the request under way."""
        self._changed.set()
        if self._work and not (self._sending and self._sending.requesting):
            self._work.cancel()

    async def stop(self) -> None:
        """Finish the current request within a grace period, and record acknowledged deliveries."""
        self._stopping = True
        self.look_again()
        await asyncio.wait([self._task], timeout=GRACE_SECONDS)
        while not self._task.done():
            # In a loop: Python 3.11 may lose a cancellation while a library is in asyncio.wait_for.
            for task in filter(None, [self._work, self._task]):
                task.cancel()
            await asyncio.wait([self._task], timeout=0.2)

    async def _run(self) -> None:
        while not self._stopping:
            self._changed.clear()
            try:
                if not await self._once():
                    return
                self._waits = False
            except FollowerTooSlow:
                continue
            except StoreUnavailable as error:
                if not self._waits:
                    _logger.warning("log unavailable, webhook is waiting", webhook=self._webhook_id, error=str(error))
                self._waits = True
                await self._wait_for_change(RETRY_SECONDS)
            except Exception:
                _logger.exception("webhook failed, restarting", webhook=self._webhook_id)
                await self._wait_for_change(RESTART_SECONDS)

    async def _once(self) -> bool:
        """Send until something changes, and return False once the endpoint is deleted."""
        state, _ = await self._context.commands.state(webhook_stream(self._webhook_id))
        self.journal.last_error = None
        if state.parked:
            await self._changed.wait()
        elif state.exists and not self._changed.is_set():
            await self._send(DeliverySession(self._webhook_id, state, self._context, self.journal, self._changed))
        return state.exists

    async def _send(self, sending: DeliverySession) -> None:
        self._sending = sending
        self._work = asyncio.create_task(sending.run())
        await asyncio.wait([self._work])
        # Outside the task, which may have been cancelled: acknowledged deliveries must not be lost.
        await sending.record()
        if not self._work.cancelled():
            self._work.result()

    async def _wait_for_change(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return


class Dispatcher:
    """The senders of all endpoints, started and stopped by the events of the webhooks log.

    Args:
        projector: The rows of webhooks.
        context: The dependencies of delivery.
    """

    def __init__(self, projector: Projector, context: DeliveryContext) -> None:
        self.context = context
        self._projector = projector
        self._senders: dict[str, Sender] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all senders; the projector must be running."""
        self._task = asyncio.create_task(self._follow(await self._load()), name="webhooks")

    async def _load(self) -> int:
        """Start a sender for every endpoint, and return the projection's position."""
        ids, position = await self._projector.query(all_ids)
        for webhook_id in ids:
            self.look_again(webhook_id)
        return position

    async def stop(self) -> None:
        """Stop all senders gracefully. Stopping again is harmless."""
        await end(self._task)
        await asyncio.gather(*(sender.stop() for sender in self._senders.values()))
        await self.context.client.aclose()

    def journals(self) -> Mapping[str, Journal]:
        """Return the journals of this process by webhook id."""
        return {webhook_id: sender.journal for webhook_id, sender in self._senders.items()}

    def look_again(self, webhook_id: str) -> None:
        """Resume sending to an endpoint at once."""
        self._senders = {known: sender for known, sender in self._senders.items() if not sender.ended}
        if webhook_id in self._senders:
            self._senders[webhook_id].look_again()
        else:
            self._senders[webhook_id] = Sender(webhook_id, self.context)

    async def _follow(self, position: int) -> None:
        try:
            await run_follower("webhooks", self._projector.tail, position, self._receive, self._reload)
        except StoreUnavailable as error:
            _logger.warning("webhooks log unavailable, changes are not received", error=str(error))

    async def _receive(self, events: Sequence[RecordedEvent], position: int) -> None:  # noqa: ARG002
        for event in events:
            if not isinstance(event.data, v1.WebhookDelivered | v1.LogEpochBegan):
                self.look_again(event.data.webhook_id)  # type: ignore[attr-defined]

    async def _reload(self, error: Exception) -> int:  # noqa: ARG002 - the rows know, whatever the error was
        await self._projector.wait_for(self._projector.tail.position)
        return await self._load()
