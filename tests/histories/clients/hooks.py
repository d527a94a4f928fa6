"""A webhook endpoint that rejects some requests, and records all that it accepts."""

from __future__ import annotations

import random
from collections.abc import Collection
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from standardwebhooks.webhooks import Webhook

from rollforward import Client
from tests.histories.recorded.subjects import Delivery, Endpoint
from tests.servers.receiver import Receiver, Request

REFUSALS = 0.03
"""The probability that a request is rejected: the service then pauses for half a second."""


class Hook:
    """An endpoint that is to be sent every change of one model's aliases."""

    def __init__(self, name: str, address: str, model: str, since: int, dice: random.Random) -> None:
        self._client = Client(address, actor=name)
        self._model, self._since, self._dice = model, since, dice
        self._receiver = Receiver(self._answer)
        self._webhook_id = ""
        self._secret = ""

    def prepare(self) -> None:
        """Start the receiver, and register the endpoint."""
        self._receiver.start()
        made = self._client.webhooks.create(self._receiver.url, model=self._model, from_revision=self._since)
        self._webhook_id, self._secret = made.webhook.webhook_id, made.secret

    def close(self) -> None:
        """Remove the endpoint and stop listening."""
        try:
            if self._webhook_id:
                self._client.webhooks.delete(self._webhook_id)
        finally:
            self._receiver.stop()
            self._client.close()

    @property
    def endpoint(self) -> Endpoint:
        """Return what must be sent to the endpoint."""
        return Endpoint(self._webhook_id, self._model, self._since)

    def has(self, event_ids: Collection[str]) -> bool:
        """Return whether all of these changes were acknowledged."""
        return set(event_ids) <= {request.id for request in self._receiver.taken}

    def deliveries(self) -> list[Delivery]:
        """Return what was acknowledged, in order."""
        return [self._delivery(request) for request in self._receiver.taken]

    def _answer(self, _request: Request, _times: int) -> int:
        return 503 if self._dice.random() < REFUSALS else 204

    def _delivery(self, request: Request) -> Delivery:
        body, data = request.json, request.json["data"]
        time = Timestamp()
        time.FromJsonString(body["timestamp"])
        return Delivery(
            webhook_id=self._webhook_id,
            event_id=request.id,
            sequence=data["sequence"],
            revision=data["revision"],
            model=data["model"],
            alias=data["alias"],
            from_version=(data["from"] or {}).get("version", 0),
            to_version=(data["to"] or {}).get("version", 0),
            time=time.ToNanoseconds(),
            is_signed=self._is_signed(request),
        )

    def _is_signed(self, request: Request) -> bool:
        """Return whether the signature is right for the time that the request names, whatever the service's clock."""
        sent = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
        signature = Webhook(self._secret).sign(request.id, sent, request.body)
        return signature in request.headers["webhook-signature"].split(" ")
