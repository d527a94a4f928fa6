"""The webhooks service in its own process, and registry events for it to deliver."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from google.protobuf.message import Message

from eventstore.event import Metadata, NewEvent
from rollforward import Client, v1
from services import registry
from services.nats.server import NatsAddress
from tests.e2e.processes import ROLLFORWARD
from tests.e2e.program import Program, until
from tests.servers.nats import open_log
from tests.servers.ports import free_port
from tests.servers.receiver import Request
from tests.timeouts import scaled

DIGEST = f"sha256:{'1' * 64}"


class Service:
    """The webhooks service in its own process, always over the same directory, and a client of it."""

    def __init__(self, home: Path, nats: NatsAddress, *, private: bool = True, **settings: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.client = Client(self.address, actor="Zoë", timeout=scaled(20.0))
        self._nats = nats
        self._log = home / "webhooks.log"
        self._command = [ROLLFORWARD, "start", "webhooks", "--data", str(home / "data"), "--nats", nats.url]
        self._command += ["--grpc", self.address, "--http", self.http]
        self._command += ["--webhooks-allow-private"] if private else []
        self._environment = {"ROLLFORWARD_NATS_USER": nats.user, "ROLLFORWARD_NATS_PASSWORD": nats.password, **settings}
        self._program: Program | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for webhook in self.client.webhooks.list() if self.program.running else []:
            self.client.webhooks.delete(webhook.webhook_id)
        self.client.close()
        self.program.kill()

    @property
    def program(self) -> Program:
        """Return the current process, or the last one."""
        assert self._program is not None
        return self._program

    def start(self, *options: str) -> None:
        """Start the service and wait until it is ready."""
        self._program = Program([*self._command, *options], self._log, self._environment)
        self._program.line(" listens on ")

    def metrics(self) -> str:
        """Return the service's metrics."""
        return httpx.get(f"http://{self.http}/metrics", trust_env=False).text

    def hook(self, url: str, model: str, alias: str = "*", after: int | None = None) -> tuple[str, str]:
        """Create an endpoint for one model; return its id and secret."""
        made = self.client.webhooks.create(url, model=model, alias=alias, from_revision=after)
        return made.webhook.webhook_id, made.secret

    def get(self, webhook_id: str) -> v1.Webhook:
        """Return an endpoint."""
        return self.client.webhooks.get(webhook_id)

    def wait_for_state(
        self, webhook_id: str, state: v1.WebhookState.ValueType, seconds: float = scaled(30.0)
    ) -> v1.Webhook:
        """Wait until an endpoint is in a state, and return it."""
        name = v1.WebhookState.Name(state)
        until(lambda: self.get(webhook_id).state == state, f"the webhook is {name}", seconds)
        return self.get(webhook_id)

    def wait_for_cursor(self, webhook_id: str, position: int) -> None:
        """Wait until an endpoint's cursor is at a position."""
        until(lambda: self.get(webhook_id).cursor == position, f"the cursor is at {position}")

    def move(self, model: str, count: int = 1, first: int = 1, together: bool = False) -> list[int]:
        """Append moves of an alias, as the registry does; return their positions."""
        payloads = [
            v1.AliasMoved(
                model=model,
                alias="champion",
                from_version=number - 1,
                from_digest=DIGEST if number > 1 else "",
                to_version=number,
                to_digest=DIGEST,
                cause=v1.ALIAS_CAUSE_REQUEST,
            )
            for number in range(first, first + count)
        ]
        return self.append(payloads, together=together)

    def append(self, payloads: Sequence[Message], *, together: bool = False) -> list[int]:
        """Append events to the registry log, one by one or together; return their positions."""
        return asyncio.run(_append(self._nats, payloads, together))


async def _append(nats: NatsAddress, payloads: Sequence[Message], together: bool) -> list[int]:
    ids = [uuid.uuid4().hex for _ in payloads]
    metadata = Metadata("ada", reason="better", request_id="r")
    events = [
        NewEvent(f"model/{payload.model}", payload, metadata, key, key)  # type: ignore[attr-defined]
        for payload, key in zip(payloads, ids, strict=True)
    ]
    async with open_log(nats, registry.EVENTS, "registry") as log:
        if together:
            return [*await log.append(events)]
        return [position for event in events for position in await log.append([event])]


def sequences(requests: list[Request]) -> list[int]:
    """Return the sequences of the changes, in the order of their requests."""
    return [request.sequence for request in requests]


def in_order_of_first(requests: list[Request]) -> list[int]:
    """Return the sequences of the changes, each at its first request."""
    return [*dict.fromkeys(sequences(requests))]
