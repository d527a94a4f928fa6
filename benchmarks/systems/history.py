"""A long history of alias moves, written straight to the log of a stopped system."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message

from eventstore.event import Metadata, NewEvent
from eventstore.jetstream import JetStreamStore, connect
from rollforward import v1
from services import registry
from services.nats.server import EmbeddedNats

MODELS = ("past-0", "past-1")
ALIASES = ("champion", "candidate")
VERSIONS = 20
_WRITERS = 64
_DIGEST = "sha256:" + "0" * 64


def write(data: Path, moves: int) -> None:
    """Write models with versions, then moves of their aliases in turn; the last one's position is `head(moves)`."""
    asyncio.run(_write(data / "nats", moves))


def first() -> int:
    """Return a position at which every alias is set."""
    return len(MODELS) * (1 + VERSIONS) + 10 * _WRITERS


def head(moves: int) -> int:
    """Return the position of the last move."""
    return len(MODELS) * (1 + VERSIONS) + moves


async def _write(folder: Path, moves: int) -> None:
    # Nothing here is worth a flush each.
    async with EmbeddedNats(folder, sync_always=False) as nats:
        client = await connect(nats.address.url, nats.address.user, nats.address.password)
        store = JetStreamStore(client, "registry", registry.EVENTS)
        await store.open()
        await store.append([_event(*payload) for payload in _models()])
        payloads = _moves(moves)
        async with asyncio.TaskGroup() as writers:
            for _ in range(_WRITERS):
                writers.create_task(_append_each(store, payloads))
        await client.close()


async def _append_each(store: JetStreamStore, payloads: Iterator[tuple[str, Message]]) -> None:
    """Append every move on its own, as separate commands would."""
    for model, payload in payloads:
        await store.append([_event(model, payload)])


def _event(model: str, payload: Message) -> NewEvent:
    name = uuid.uuid4().hex
    return NewEvent(registry.model_stream(model), payload, Metadata("bench"), name, name)


def _models() -> Iterator[tuple[str, Message]]:
    for model in MODELS:
        yield model, v1.ModelCreated(model=model)
        for number in range(1, VERSIONS + 1):
            yield model, v1.VersionRegistered(model=model, version=number, digest=_DIGEST)


def _moves(count: int) -> Iterator[tuple[str, Message]]:
    keys = itertools.cycle(itertools.product(MODELS, ALIASES))
    turns = len(MODELS) * len(ALIASES)
    for number, (model, alias) in zip(range(count), keys, strict=False):
        before, after = _version(number - turns), _version(number)
        moved = v1.AliasMoved(model=model, alias=alias, from_version=before, to_version=after, to_digest=_DIGEST)
        yield model, moved


def _version(number: int) -> int:
    return 0 if number < 0 else 1 + number // (len(MODELS) * len(ALIASES)) % VERSIONS
