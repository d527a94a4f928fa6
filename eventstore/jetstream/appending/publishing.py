"""Publish to a log's stream and wait for the acknowledgement for as long as it may still come.

A message that was sent is not sent again merely because the server is slow: the copy would queue behind the
original, and the slower a server gets, the more work it would be given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.js import JetStreamContext, api

from eventstore.concurrency.backoff import pause_after

Message = tuple[str, bytes, dict[str, str]]
"""Subject, payload and headers."""

LOOK_SECONDS = 0.25
PROBE_SECONDS = 2.0
GRACE_SECONDS = 2.0

# A stream refuses what expects another stream, after all that came before it, and stores nothing.
_PROBE_HEADERS = {"Nats-Expected-Stream": "rf-probe"}


class AnswerLost(Exception):
    """The acknowledgement cannot come any more; what was sent is stored or not."""


class Publisher:
    """Sends messages to one stream.

    Args:
        client: The connection.
        jetstream: JetStream on that connection.
        probe: A subject of the stream for messages that are always refused.
        timeout: How long to wait for an acknowledgement, in seconds.
    """

    def __init__(self, client: NatsClient, jetstream: JetStreamContext, probe: str, timeout: float) -> None:
        self._client = client
        self._js = jetstream
        self._probe = probe
        self._timeout = timeout

    async def publish(self, messages: Sequence[Message]) -> api.PubAck:
        """Send messages in order and return the acknowledgement of the last.

        Raises:
            AnswerLost: The connection was lost, or the stream answers what was sent later and not this.
            TimeoutError, nats.errors.Error: The request timed out, or the server rejected the message.
        """
        *opening, (subject, payload, headers) = messages
        connection = self._client.stats["reconnects"]
        for opening_subject, opening_payload, opening_headers in opening:
            await self._client.publish(opening_subject, opening_payload, headers=opening_headers)
        answer = asyncio.ensure_future(self._js.publish(subject, payload, timeout=self._timeout, headers=headers))
        try:
            await self._wait(answer, connection)
        except BaseException:
            answer.cancel()
            raise
        return answer.result()

    async def _wait(self, answer: asyncio.Future[api.PubAck], connection: int) -> None:
        """Return once the answer is there."""
        overtaken: asyncio.Future[None] | None = None
        probe_at = time.monotonic() + PROBE_SECONDS
        try:
            while not (await asyncio.wait({answer}, timeout=LOOK_SECONDS))[0]:
                if self._client.is_closed or self._client.stats["reconnects"] != connection:
                    raise AnswerLost("the connection was lost before the response")
                if overtaken and overtaken.done():
                    raise AnswerLost("the stream responds, but not to the earlier request")
                if overtaken is None and time.monotonic() > probe_at:
                    overtaken = asyncio.ensure_future(self._overtaken())
        finally:
            if overtaken:
                overtaken.cancel()

    async def _overtaken(self) -> None:
        """Return once the stream has answered a probe, and a replicated one has had the time to agree on the rest."""
        failures = 0
        while not await self.is_answered():
            failures += 1
            await asyncio.sleep(pause_after(failures))
        await asyncio.sleep(GRACE_SECONDS)

    async def settle(self, *, replicated: bool) -> None:
        """Return once what was sent before is stored or refused, if its connection stands.

        Raises:
            TimeoutError: The stream does not answer.
        """
        if not await self.is_answered():
            raise TimeoutError
        if replicated:
            await asyncio.sleep(GRACE_SECONDS)

    async def is_answered(self) -> bool:
        """Return whether the stream's leader answers; it refuses what it is sent, and stores nothing."""
        try:
            await self._client.request(self._probe, b"", timeout=PROBE_SECONDS, headers=dict(_PROBE_HEADERS))
        except (TimeoutError, nats.errors.Error):
            return False
        return True
