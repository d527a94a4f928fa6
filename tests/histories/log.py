"""What the registry log of a running system holds, read from NATS itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

from eventstore.event import RecordedEvent
from rollforward import v1
from services import registry
from services.nats_server import NatsAddress
from tests.histories.recording import Event, Named
from tests.servers.nats import open_log

ENDINGS = (v1.AliasMoved, v1.AliasScheduleCancelled, v1.AliasScheduleRefused)


async def head(address: NatsAddress) -> int:
    """The position of the last event."""
    async with open_log(address, registry.EVENTS, "registry") as store:
        return await store.head()


async def read_log(address: NatsAddress, after: int, models: set[str]) -> tuple[list[Event], dict[str, list[str]]]:
    """The changes of models' aliases behind a position, and how scheduled moves ended, by the request for them."""
    changes, requests, endings = list[Event](), dict[str, str](), dict[str, list[str]]()
    for event in await _read(address, after):
        fact = event.data
        if getattr(fact, "model", "") not in models:
            continue
        schedule_id = getattr(fact, "schedule_id", "")
        if isinstance(fact, v1.AliasMoveScheduled):
            requests[schedule_id] = event.metadata.request_id
            endings[event.metadata.request_id] = []
        elif schedule_id and isinstance(fact, ENDINGS):
            endings[requests[schedule_id]].append(type(fact).__name__)
        if isinstance(fact, (v1.AliasMoved, v1.AliasRemoved)):
            changes.append(_change(event, fact, requests.get(schedule_id, event.metadata.request_id)))
    return changes, endings


async def read_names(address: NatsAddress, after: int, prefix: str) -> list[Named]:
    """What happened behind a position to the names of models whose streams begin so."""
    found = list[Named]()
    for event in await _read(address, after):
        if event.stream.startswith(registry.model_stream(prefix)):
            found += _named(event)
    return found


def _named(event: RecordedEvent) -> Iterator[Named]:
    about = (event.position, event.append_end)
    origin, request_id = registry.origin_of(event.stream), event.metadata.request_id
    match event.data:
        case v1.ModelCreated() as fact:
            yield Named(*about, "created", origin, fact.model, "", 0, request_id)
        case v1.ModelRenamed() as fact:
            yield Named(*about, "renamed", origin, fact.to_name, fact.model, 0, request_id)
        case v1.ModelNameTaken() as fact:
            yield Named(*about, "taken", fact.origin, fact.name, "", 0, request_id)
        case v1.VersionRegistered() as fact:
            yield Named(*about, "registered", origin, fact.model, fact.model, fact.version, request_id)
        case _:
            pass


async def _read(address: NatsAddress, after: int) -> list[RecordedEvent]:
    found = list[RecordedEvent]()
    async with open_log(address, registry.EVENTS, "registry") as store:
        last = await store.head()
        async with aclosing(store.subscribe(after)) as subscription:
            while not found or found[-1].position < last:
                found += await anext(subscription)
    return found


def _change(event: RecordedEvent, fact: v1.AliasMoved | v1.AliasRemoved, request_id: str) -> Event:
    moved = fact if isinstance(fact, v1.AliasMoved) else v1.AliasMoved()
    return Event(
        position=event.position,
        revision=event.append_end,
        event_id=event.id,
        model=fact.model,
        alias=fact.alias,
        from_version=fact.from_version,
        to_version=moved.to_version,
        actor=event.metadata.actor,
        request_id=request_id,
        restored_revision=moved.restored_revision,
    )
