"""The audit of gate results: each is computed again from the evidence in its event alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing

from google.protobuf.message import Message

from eventstore import EventStore, Kind, RecordedEvent, Rejected, replay
from rollforward import v1
from services.registry.gates.expression import evaluate_again

MAX_SECONDS = 2.0
MAX_BYTES = 1_000_000


async def check(store: EventStore, after: int) -> v1.CheckEvidenceResponse:
    """Check the events of the registry's log after a position, until a time limit or a full response.

    Raises:
        Rejected: POSITION_AHEAD if `after` is after the end of the log.
    """
    head = await store.head()
    if after > head:
        message = f"position {after} is after the end of the registry log: expected at most {head}"
        raise Rejected(Kind.INVALID, "POSITION_AHEAD", message, position=str(after))
    response = v1.CheckEvidenceResponse(position=after)
    until = time.monotonic() + MAX_SECONDS
    async with aclosing(replay(store, after, head)) as past:
        async for batch in past:
            await asyncio.to_thread(_look_at, batch, response)
            if response.position < batch[-1].position or time.monotonic() > until:
                return response
    response.position, response.done = head, True
    return response


def _look_at(events: Sequence[RecordedEvent], response: v1.CheckEvidenceResponse) -> None:
    for event in events:
        if response.ByteSize() > MAX_BYTES:  # another event at most triples the size
            return
        evidence = evidence_of(event.data)
        response.position = event.position
        response.events += bool(evidence)
        response.evidence += len(evidence)
        response.unfounded.extend(_unfounded(event, evidence))


def evidence_of(payload: Message) -> Sequence[v1.GateEvidence]:
    """Return all evidence in an event."""
    match payload:
        case v1.VersionRegistered():
            return [*([payload.evidence] if payload.HasField("evidence") else []), *payload.policy_evidence]
        case v1.AliasMoved() | v1.AliasMoveRefused() | v1.AliasScheduleRefused() | v1.VersionRefused():
            return payload.evidence
        case _:
            return ()


def _unfounded(event: RecordedEvent, evidence: Sequence[v1.GateEvidence]) -> Iterator[v1.Unfounded]:
    def unfounded(recorded: v1.GateEvidence | None = None, computed: v1.GateEvidence | None = None) -> v1.Unfounded:
        return v1.Unfounded(
            position=event.position,
            event_id=event.id,
            type=event.data.DESCRIPTOR.name,
            model=event.data.model,  # type: ignore[attr-defined]
            alias=getattr(event.data, "alias", ""),
            recorded=recorded,
            computed=computed,
        )

    for recorded in evidence:
        computed = evaluate_again(recorded)
        if computed.passed != recorded.passed:
            yield unfounded(recorded, computed)
    if not _follows(event.data, evidence):
        yield unfounded()


def _follows(payload: Message, evidence: Sequence[v1.GateEvidence]) -> bool:
    """Return whether the evidence justifies the event: by its results, and by what was evaluated."""
    passed = all(gate.passed for gate in evidence)
    match payload:
        case v1.VersionRegistered():
            return passed and all(gate.run.run_id == payload.run_id for gate in evidence)
        case v1.VersionRefused():
            return not passed and all(gate.run.run_id == payload.run_id for gate in evidence)
        case v1.AliasMoved():
            return passed and all(_is_of(gate, payload.from_version, payload.to_version) for gate in evidence)
        case v1.AliasMoveRefused():
            return not passed and all(_is_of(gate, payload.from_version, payload.to_version) for gate in evidence)
        case v1.AliasScheduleRefused():
            return passed != (payload.refusal == "GATE_FAILED")
        case _:
            return True


def _is_of(evidence: v1.GateEvidence, from_version: int, to_version: int) -> bool:
    return (evidence.others["current"].version, evidence.run.version) == (from_version, to_version)
