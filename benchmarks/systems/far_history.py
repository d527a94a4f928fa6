"""A long log of many models, written straight to the log of a stopped system."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message

from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import JetStreamStore, connect
from rollforward import v1
from services import registry
from services.nats.server import EmbeddedNats

DIGEST = "sha256:" + "0" * 64
VERSIONS = 2
_WRITERS = 64


def model(number: int) -> str:
    """Return the name of a model."""
    return f"far-{number}"


def write(data: Path, models: int, events: int) -> None:
    """Write models of two versions, then moves of their aliases in turn, so many events in all."""
    asyncio.run(_write(data / "nats", models, events))


async def _write(folder: Path, models: int, events: int) -> None:
    # Nothing here is worth a flush each.
    async with EmbeddedNats(folder, sync_always=False) as nats:
        client = await connect(nats.address.url, nats.address.user, nats.address.password)
        store = JetStreamStore(client, "registry", registry.EVENTS)
        await store.open()
        for appends in (_created(models), _moves(models, events - models * (1 + VERSIONS))):
            async with asyncio.TaskGroup() as writers:
                for _ in range(_WRITERS):
                    writers.create_task(_append_each(store, appends))
        await client.close()


async def _append_each(store: JetStreamStore, appends: Iterator[list[NewEvent]]) -> None:
    for append in appends:
        await store.append(append)


def _created(models: int) -> Iterator[list[NewEvent]]:
    for name in map(model, range(models)):
        payloads: list[Message] = [v1.ModelCreated(model=name)]
        payloads += [v1.VersionRegistered(model=name, version=n, digest=DIGEST) for n in range(1, VERSIONS + 1)]
        yield [_event(name, payload) for payload in payloads]


def _moves(models: int, count: int) -> Iterator[list[NewEvent]]:
    for number in range(count):
        name, turn = model(number % models), number // models
        before, after = turn and 1 + (turn - 1) % VERSIONS, 1 + turn % VERSIONS
        moved = v1.AliasMoved(model=name, alias="champion", from_version=before, to_version=after, to_digest=DIGEST)
        yield [_event(name, moved)]


def _event(name: str, payload: Message) -> NewEvent:
    event_id = uuid.uuid4().hex
    return NewEvent(registry.model_stream(name), payload, Metadata("bench"), event_id, event_id)
