"""A log without a service: events, each appended by itself."""

from __future__ import annotations

import itertools
import uuid

from google.protobuf.message import Message
from nats.aio.client import Client as NatsClient

from eventstore.codec import EventTypes
from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import JetStreamStore, connect
from rollforward import v1

_TYPES = EventTypes([v1.AliasMoved, v1.MetricsLogged])
_DIGEST = "sha256:" + "0" * 64


class BareLog:
    """An open log; created by `opened`."""

    def __init__(self, client: NatsClient, store: JetStreamStore) -> None:
        self._client = client
        self._store = store
        self._name = uuid.uuid4().hex
        self._numbers = itertools.count()

    async def append(self, stream: str, event: Message) -> int:
        """Append an event; return its position."""
        name = f"{self._name}-{next(self._numbers)}"
        (position,) = await self._store.append([NewEvent(stream, event, Metadata("bench"), name, name)])
        return position

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


async def opened(url: str, user: str, password: str) -> BareLog:
    """Open the log of a NATS server on its own connection."""
    client = await connect(url, user, password)
    store = JetStreamStore(client, "bench", _TYPES)
    await store.open()
    return BareLog(client, store)


def moved(model: str, alias: str, version: int) -> v1.AliasMoved:
    """Return a move of an alias."""
    return v1.AliasMoved(model=model, alias=alias, to_version=version, to_digest=_DIGEST)
