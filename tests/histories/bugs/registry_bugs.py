"""Planted bugs of the registry, each at one stable place."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

import services.registry.deciders.models as deciding
import services.registry.projection.apply as rows
import services.registry.rollback as rolling
import services.registry.servicer as registry
from eventstore import cloudevents
from eventstore.errors import Conflict, Rejected
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.jetstream import JetStreamStore, store
from rollforward import v1
from services.registry.deciders.policies import GateResult
from services.registry.gates import evaluator
from services.registry.past_positions import PastPositions
from services.rpc import context as call_context
from services.rpc import interceptor
from services.rpc.methods import Method
from tests.histories.bugs.planting import every, replace_attribute

SLOW_SECONDS = 0.05


def append_without_expected_revision() -> None:
    """Ignore expected revisions, so that the last writer wins."""
    append = JetStreamStore.append

    async def unconditional(
        store: JetStreamStore, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None
    ) -> tuple[int, ...]:
        return await append(store, events, None)

    replace_attribute(JetStreamStore, "append", unconditional)


def slow_subscriptions() -> None:
    """Deliver events late: no bug, as long as queries wait for the position that their caller has seen."""
    subscribe = JetStreamStore.subscribe

    async def late(store: JetStreamStore, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent]]:
        async for batch in subscribe(store, after):
            await asyncio.sleep(SLOW_SECONDS)
            yield batch

    replace_attribute(JetStreamStore, "subscribe", late)


def read_ignores_min_position() -> None:
    """Answer queries from rows older than the position that their caller has seen."""
    slow_subscriptions()
    wait = interceptor.Interceptor._wait

    async def at_once(before: interceptor.Interceptor, method: Method, context: Any) -> None:
        if method.name != "ResolveAlias":
            await wait(before, method, context)

    replace_attribute(interceptor.Interceptor, "_wait", at_once)


def read_answers_stale_state() -> None:
    """Return the previous assignment of some resolves, as a cache without invalidation would."""
    resolve = registry.RegistryServicer.ResolveAlias
    before: dict[tuple[str, str], v1.Alias] = {}

    async def cached(servicer: Any, request: v1.ResolveAliasRequest, context: Any) -> v1.ResolveAliasResponse:
        response = await resolve(servicer, request, context)
        key = (request.model, request.alias)
        if not request.HasField("at") and (old := before.get(key)):
            before[key] = v1.Alias.FromString(response.alias.SerializeToString())
            response.alias.CopyFrom(old)
        else:
            before[key] = v1.Alias.FromString(response.alias.SerializeToString())
        return response

    replace_attribute(registry.RegistryServicer, "ResolveAlias", cached)


def request_id_is_ignored() -> None:
    """Handle each retry as a new request; the log still has the request id."""
    append = JetStreamStore.append

    def as_new(request: Any, context: Any) -> Metadata:
        found = call_context.metadata(request, context)
        return replace(found, request_id=f"{found.request_id} {uuid.uuid4().hex}")

    async def as_asked(
        store: JetStreamStore, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None
    ) -> tuple[int, ...]:
        named = [
            replace(event, metadata=replace(event.metadata, request_id=event.metadata.request_id.partition(" ")[0]))
            for event in events
        ]
        return await append(store, named, expected)

    replace_attribute(registry, "metadata", as_new)
    replace_attribute(JetStreamStore, "append", as_asked)


def duplicate_names_are_accepted() -> None:
    """Create a model in the stream of a name that another model was given meanwhile."""

    def anyway(model: str, state: Any) -> None:
        return None

    replace_attribute(deciding, "check_free", anyway)


def release_set_ignores_expected_revisions() -> None:
    """Append release sets without expected revisions."""
    move = registry.RegistryServicer.MoveAliases

    async def regardless(servicer: Any, request: v1.MoveAliasesRequest, context: Any) -> v1.MoveAliasesResponse:
        for target in request.targets:
            target.ClearField("expected_revision")
        return await move(servicer, request, context)

    replace_attribute(registry.RegistryServicer, "MoveAliases", regardless)


def release_set_in_two_appends() -> None:
    """Append the moves of a release set one by one."""
    append = JetStreamStore.append

    async def one_by_one(
        store: JetStreamStore, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None
    ) -> tuple[int, ...]:
        if len(events) == 1 or not all(isinstance(event.data, v1.AliasMoved) for event in events):
            return await append(store, events, expected)
        return tuple([position for event in events for position in await append(store, [event])])

    replace_attribute(JetStreamStore, "append", one_by_one)


def rollback_is_one_too_early() -> None:
    """Restore the assignment before the position that a rollback names."""
    do = rolling.Rollbacks.do

    async def earlier(rollbacks: Any, request: Any, to_position: int | None, metadata: Metadata) -> Any:
        return await do(rollbacks, request, to_position and to_position - 1, metadata)

    replace_attribute(rolling.Rollbacks, "do", earlier)


def rejected_after_append() -> None:
    """Reject some moves after they were appended."""
    move, is_due = registry.RegistryServicer.MoveAlias, every(10)

    async def refused(servicer: Any, request: v1.MoveAliasRequest, context: Any) -> v1.MoveAliasResponse:
        response = await move(servicer, request, context)
        if response.moved and is_due():
            raise Conflict("STREAM_BUSY", "planted", stream=request.model)
        return response

    replace_attribute(registry.RegistryServicer, "MoveAlias", refused)


def past_is_one_position_off() -> None:
    """Resolve the position before the one that a resolve names."""
    position = PastPositions._position

    async def before(positions: Any, at: v1.AsOf, context: Any) -> int:
        return int(await position(positions, at, context)) - 1

    replace_attribute(PastPositions, "_position", before)


def rows_miss_changes() -> None:
    """Skip every 15th alias change when the projection first applies it."""
    apply, is_due, seen = rows.RegistryProjection.apply, every(15), set[str]()

    def forgetful(projection: Any, connection: Any, events: Sequence[RecordedEvent]) -> None:
        kept = []
        for event in events:
            is_new = event.id not in seen
            seen.add(event.id)
            if not (is_new and isinstance(event.data, v1.AliasMoved) and is_due()):
                kept.append(event)
        apply(projection, connection, kept)

    replace_attribute(rows.RegistryProjection, "apply", forgetful)


def pages_miss_an_entry() -> None:
    """Start the second page of a listing one entry too late."""
    for name, entries in (("ListModels", "models"), ("ListAliasHistory", "changes")):
        replace_attribute(registry.RegistryServicer, name, _shortened(name, entries))


def _shortened(name: str, entries: str) -> Any:
    listing = getattr(registry.RegistryServicer, name)

    async def short(servicer: Any, request: Any, context: Any) -> Any:
        response = await listing(servicer, request, context)
        if request.page_token:
            del getattr(response, entries)[:1]
        return response

    return short


def gates_are_skipped() -> None:
    """Let every fourth gated move pass without evaluating its gate."""
    moves, is_due = evaluator.GateEvaluator.moves, every(4)

    async def lenient(gate_evaluator: Any, declared: Any, cases: Any) -> list[GateResult]:
        gate_results = await moves(gate_evaluator, declared, cases)
        return [replace(one, evidence=()) if one.evidence and is_due() else one for one in gate_results]

    replace_attribute(evaluator.GateEvaluator, "moves", lenient)


def evidence_differs() -> None:
    """Record evidence with another measurement than the gate evaluated."""
    moves = evaluator.GateEvaluator.moves

    async def embellished(gate_evaluator: Any, declared: Any, cases: Any) -> list[GateResult]:
        gate_results: list[GateResult] = await moves(gate_evaluator, declared, cases)
        for gate_result in gate_results:
            for evidence in gate_result.evidence:
                for key in evidence.run.metrics:
                    evidence.run.metrics[key] += 0.01
        return gate_results

    replace_attribute(evaluator.GateEvaluator, "moves", embellished)


def rejected_moves_are_decided_again() -> None:
    """Decide a rejected move again when it is retried."""
    move, refused = registry.RegistryServicer.MoveAlias, set[str]()

    async def again(servicer: Any, request: v1.MoveAliasRequest, context: Any) -> v1.MoveAliasResponse:
        if request.request_id in refused:
            return v1.MoveAliasResponse(moved=True)
        try:
            return await move(servicer, request, context)
        except Rejected as refusal:
            if refusal.reason == "GATE_FAILED":
                refused.add(request.request_id)
            raise

    replace_attribute(registry.RegistryServicer, "MoveAlias", again)


def times_are_of_the_writer() -> None:
    """Stamp events with the clock of the process that wrote them."""
    decoded = cloudevents.decode

    def by_writer(headers: Mapping[str, str], payload: bytes, types: Any, place: Any) -> RecordedEvent:
        written = Timestamp()
        written.FromJsonString(headers["ce-time"])
        return replace(decoded(headers, payload, types, place), time=written.ToNanoseconds())

    replace_attribute(store, "decode", by_writer)
