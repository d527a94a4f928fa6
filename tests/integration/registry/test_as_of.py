"""Queries of the past are answered from rows: over a history of 10,000 moves, none reads the log."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from eventstore.codec import EventTypes
from eventstore.commands.handler import CommandHandler
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.jetstream import JetStreamStore, connect
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import registry
from services.nats.server import NatsAddress
from services.registry.commands import Commands
from services.registry.deciders.models import DECIDER
from services.registry.gates.evaluator import GateEvaluator
from services.registry.live_view import LiveView
from services.registry.projection.apply import RegistryProjection
from services.registry.rollback import Rollbacks
from services.registry.servicer import RegistryServicer
from services.rpc.interceptor import Interceptor
from services.rpc.methods import Sources
from services.timestamps import timestamp
from tests.integration.up import new_id
from tests.timeouts import scaled

MOVES, APPEND, VERSIONS = 10_000, 100, 20
MODELS, ALIASES = ("fraud", "iris"), ("champion", "candidate")
Key = tuple[str, str]


class CountingStore(JetStreamStore):
    """A log that counts how often it is read."""

    def __init__(self, client: object, log: str, types: EventTypes) -> None:
        super().__init__(client, log, types)  # type: ignore[arg-type]
        self.reads = 0

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        """Read the events of one stream."""
        self.reads += 1
        async for event in super().read(stream, after):
            yield event

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        """Read all events."""
        self.reads += 1
        async for batch in super().subscribe(after):
            yield batch

    async def event_at(self, position: int) -> RecordedEvent | None:
        """Read one event."""
        self.reads += 1
        return await super().event_at(position)


@dataclass(frozen=True, slots=True)
class History:
    """The written history: each alias's moves as (revision, version), each append's time and last position."""

    moves: dict[Key, list[tuple[int, int]]]
    times: list[int]
    lasts: list[int]

    def version(self, key: Key, position: int) -> tuple[int, int]:
        """Return an alias's version at a position, and the revision of the move to it; zeros if it was unset."""
        count = bisect_right(self.moves[key], (position, VERSIONS + 1))
        return (self.moves[key][count - 1][::-1]) if count else (0, 0)

    def position_at(self, time_ns: int) -> int:
        """Return the last position recorded up to a time."""
        count = bisect_right(self.times, time_ns)
        return self.lasts[count - 1] if count else 0


@dataclass(frozen=True, slots=True)
class System:
    """A registry in this process over a log with a long history."""

    store: CountingStore
    projector: Projector
    stub: v1.RegistryServiceAsyncStub
    history: History


async def write(store: CountingStore) -> History:
    """Write two models with twenty versions each, then 10,000 moves of their aliases."""
    rng = random.Random(7)
    payloads: list[Message] = []
    for model in MODELS:
        payloads.append(v1.ModelCreated(model=model))
        payloads += [v1.VersionRegistered(model=model, version=number) for number in range(1, VERSIONS + 1)]
    current: dict[Key, int] = {}
    for _ in range(MOVES):
        key = (rng.choice(MODELS), rng.choice(ALIASES))
        before, after = current.get(key, 0), rng.randint(1, VERSIONS)
        if before and rng.random() < 0.05:
            payloads.append(v1.AliasRemoved(model=key[0], alias=key[1], from_version=before))
            current[key] = 0
        else:
            payloads.append(v1.AliasMoved(model=key[0], alias=key[1], from_version=before, to_version=after))
            current[key] = after
    history = History({(model, alias): [] for model in MODELS for alias in ALIASES}, [], [])
    for start in range(0, len(payloads), APPEND):
        await _append(store, payloads[start : start + APPEND], history)
    return history


async def _append(store: CountingStore, payloads: Sequence[Message], history: History) -> None:
    ids = [new_id() for _ in payloads]
    events = [
        NewEvent(registry.model_stream(payload.model), payload, Metadata("Zoë"), event_id, event_id)  # type: ignore[attr-defined]
        for payload, event_id in zip(payloads, ids, strict=True)
    ]
    positions = await store.append(events)
    first = await store.event_at(positions[0])
    assert first is not None
    history.times.append(first.time)
    history.lasts.append(positions[-1])
    for payload in payloads:
        if isinstance(payload, v1.AliasMoved | v1.AliasRemoved):
            version = payload.to_version if isinstance(payload, v1.AliasMoved) else 0
            moves = history.moves[payload.model, payload.alias]
            if moves and moves[-1][0] == positions[-1]:  # only the last change of an append is ever visible
                moves.pop()
            moves.append((positions[-1], version))


async def no_artifact(_: str) -> bool:
    """Return that no artifact is stored."""
    return False


@pytest.fixture
async def system(nats_address: NatsAddress, tmp_path: Path) -> AsyncIterator[System]:
    client = await connect(nats_address.url, nats_address.user, nats_address.password)
    store = CountingStore(client, f"registry-{new_id()}", registry.EVENTS)
    await store.open()
    history = await write(store)
    tail = Tail(store)
    await tail.start()
    projector = Projector(tail, RegistryProjection(), Database(str(tmp_path)))
    await projector.start()
    live = LiveView(projector, tail)
    await live.start()
    sources = {"rollforward.v1.RegistryService": Sources(rows=[projector], memory=[live])}
    server = grpc.aio.server(interceptors=[Interceptor(services=sources)])
    commands = Commands(CommandHandler(store, DECIDER, projector), GateEvaluator(projector), live)
    rollbacks = Rollbacks(commands, projector, live)
    servicer = RegistryServicer(commands, rollbacks, live, projector, tail, projector, no_artifact)
    v1.add_RegistryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield System(store, projector, v1.RegistryServiceStub(channel), history)
    await server.stop(None)
    await live.stop()
    await projector.stop()
    await tail.stop()
    await client.close()


async def resolve(system: System, key: Key, at: v1.AsOf | None) -> tuple[int, int]:
    """Resolve an alias; return its version and revision, zeros if it is unset."""
    request = v1.ResolveAliasRequest(model=key[0], alias=key[1], at=at)
    try:
        alias = (await system.stub.ResolveAlias(request, timeout=scaled(20))).alias
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return 0, 0
    return alias.version, alias.revision


async def test_past_is_answered_from_rows(system: System) -> None:
    history, rng = system.history, random.Random(11)
    head = history.lasts[-1]
    keys = list(history.moves)
    expected: list[tuple[int, int]] = []
    queries = []
    for number in range(200):
        key = rng.choice(keys)
        if number % 2:
            position = rng.randint(0, head)
            at = v1.AsOf(position=position)
        else:
            time_ns = rng.choice(history.times[:-1]) + rng.choice([-1, 0, 1, 1000])
            position = history.position_at(time_ns)
            at = v1.AsOf(time=timestamp(time_ns))
        version, revision = history.version(key, position)
        expected.append((version, revision if version else 0))
        queries.append(resolve(system, key, at))
    for key in keys:
        version, revision = history.version(key, head)
        expected.append((version, revision if version else 0))
        queries.append(resolve(system, key, None))
    before = system.store.reads
    results = await asyncio.gather(*queries)
    assert system.store.reads == before
    assert results == expected
    assert len({version for version, _ in results}) > VERSIONS / 2
    await check_move_does_not_read_history(system, ("fraud", "champion"))


async def check_move_does_not_read_history(system: System, key: Key) -> None:
    """Fail if a move of an alias reads its history again."""
    current, revision = system.history.version(key, system.history.lasts[-1])
    request = v1.MoveAliasRequest(
        model="fraud", alias="champion", version=current % VERSIONS + 1, expected_revision=revision
    )
    await system.stub.MoveAlias(request, timeout=scaled(20))
    before = system.store.reads
    request.version, request.expected_revision = current or 1, system.history.lasts[-1] + 1
    response = await system.stub.MoveAlias(request, timeout=scaled(20))
    assert response.moved
    assert system.store.reads == before
    resolved = await resolve(system, key, v1.AsOf(time=response.alias.moved_at))
    assert resolved == (response.alias.version, response.alias.revision)
    await check_query_waits_for_rows(system, key)


async def check_query_waits_for_rows(system: System, key: Key) -> None:
    """Fail if a query of a time that the log has reached does not wait for the rows."""
    async with system.projector._live.applying:
        payload = v1.AliasMoved(model=key[0], alias=key[1], from_version=1, to_version=2)
        await _append(system.store, [payload], system.history)
        waiting = asyncio.create_task(resolve(system, key, v1.AsOf(time=timestamp(system.history.times[-1]))))
        await asyncio.wait({waiting}, timeout=0.3)
        assert not waiting.done()
    assert await waiting == (2, system.history.lasts[-1])


async def test_rows_may_advance_during_query_of_time(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    key, query, queried = ("fraud", "champion"), Projector.position_at, asyncio.Event()
    moves = [v1.AliasMoved(model=key[0], alias=key[1], from_version=1, to_version=version) for version in (2, 3)]

    async def advancing(projector: Projector, time_ns: int) -> tuple[int, int]:
        position = await query(projector, time_ns)
        queried.set()
        await projector.wait_for(system.history.lasts[-1])
        return position

    async with system.projector._live.applying:
        for move in moves:
            await _append(system.store, [move], system.history)
        monkeypatch.setattr(Projector, "position_at", advancing)
        result = asyncio.create_task(resolve(system, key, v1.AsOf(time=timestamp(system.history.times[-2]))))
        await queried.wait()
    assert await result == (2, system.history.lasts[-2])
