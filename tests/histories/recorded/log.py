"""The events in the registry log of a running system, read directly from NATS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing

from eventstore.event import RecordedEvent
from rollforward import v1
from services import registry
from services.nats.server import NatsAddress
from tests.histories.recorded.recording import Event, Named
from tests.histories.recorded.subjects import GateEvent, Threshold
from tests.servers.nats import open_log

ENDINGS = (v1.AliasMoved, v1.AliasScheduleCancelled, v1.AliasScheduleRefused)


async def head(address: NatsAddress) -> int:
    """Return the position of the last event."""
    async with open_log(address, registry.EVENTS, "registry") as store:
        return await store.head()


def changes_of(events: Sequence[RecordedEvent], models: set[str]) -> tuple[list[Event], dict[str, list[str]]]:
    """Return the changes of models' aliases, and the ends of scheduled moves by their request."""
    changes, requests, endings = list[Event](), dict[str, str](), dict[str, list[str]]()
    times = dict[int, int]()
    for event in events:
        times.setdefault(event.append_end, event.time)
        payload = event.data
        if getattr(payload, "model", "") not in models:
            continue
        schedule_id = getattr(payload, "schedule_id", "")
        if isinstance(payload, v1.AliasMoveScheduled):
            requests[schedule_id] = event.metadata.request_id
            endings[event.metadata.request_id] = []
        elif schedule_id and isinstance(payload, ENDINGS):
            endings[requests[schedule_id]].append(type(payload).__name__)
        if isinstance(payload, (v1.AliasMoved, v1.AliasRemoved)):
            request_id = requests.get(schedule_id, event.metadata.request_id)
            changes.append(_change(event, payload, request_id, times[event.append_end]))
    return changes, endings


def gated(events: Sequence[RecordedEvent], model: str, policy: str) -> tuple[list[Threshold], list[GateEvent]]:
    """Return the changes of a policy, and the moves of a gated model and their refusals."""
    thresholds, moves = list[Threshold](), list[GateEvent]()
    for event in events:
        match event.data:
            case v1.PolicySet() as payload if payload.to.name == policy:
                thresholds.append(Threshold(event.append_end, float(payload.to.gate.rpartition(">=")[2])))
            case v1.PolicyRemoved() as payload if payload.policy.name == policy:
                thresholds.append(Threshold(event.append_end, None))
            case v1.AliasMoved() | v1.AliasMoveRefused() as payload if payload.model == model:
                moves.append(_gate_event(event, payload))
            case _:
                pass
    return thresholds, moves


def _gate_event(event: RecordedEvent, payload: v1.AliasMoved | v1.AliasMoveRefused) -> GateEvent:
    return GateEvent(
        position=event.append_end,
        request_id=event.metadata.request_id,
        version=payload.to_version,
        is_refused=isinstance(payload, v1.AliasMoveRefused),
        policy_revision=payload.policy_revision,
        seen=tuple(evidence.run.metrics.get("score", -1.0) for evidence in payload.evidence),
        passed=tuple(evidence.passed for evidence in payload.evidence),
    )


def names_of(events: Sequence[RecordedEvent], prefix: str) -> list[Named]:
    """Return the name events of models whose streams have a prefix."""
    found = list[Named]()
    for event in events:
        if event.stream.startswith(registry.model_stream(prefix)):
            found += _named(event)
    return found


def _named(event: RecordedEvent) -> Iterator[Named]:
    about = (event.position, event.append_end)
    origin, request_id = registry.origin_of(event.stream), event.metadata.request_id
    match event.data:
        case v1.ModelCreated() as payload:
            yield Named(*about, "created", origin, payload.model, "", 0, request_id)
        case v1.ModelRenamed() as payload:
            yield Named(*about, "renamed", origin, payload.to_name, payload.model, 0, request_id)
        case v1.ModelNameTaken() as payload:
            yield Named(*about, "taken", payload.origin, payload.name, "", 0, request_id)
        case v1.VersionRegistered() as payload:
            yield Named(*about, "registered", origin, payload.model, payload.model, payload.version, request_id)
        case _:
            pass


async def read_events(address: NatsAddress, after: int) -> list[RecordedEvent]:
    """Return the events of the registry log after a position."""
    found = list[RecordedEvent]()
    async with open_log(address, registry.EVENTS, "registry") as store:
        last = await store.head()
        async with aclosing(store.subscribe(after)) as subscription:
            while last > after and (not found or found[-1].position < last):
                found += await anext(subscription)
    return found


def _change(event: RecordedEvent, payload: v1.AliasMoved | v1.AliasRemoved, request_id: str, append_time: int) -> Event:
    moved = payload if isinstance(payload, v1.AliasMoved) else v1.AliasMoved()
    return Event(
        position=event.position,
        revision=event.append_end,
        event_id=event.id,
        model=payload.model,
        alias=payload.alias,
        from_version=payload.from_version,
        to_version=moved.to_version,
        actor=event.metadata.actor,
        request_id=request_id,
        restored_revision=moved.restored_revision,
        time=event.time,
        append_time=append_time,
    )
