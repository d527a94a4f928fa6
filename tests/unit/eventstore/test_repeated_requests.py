"""Repeated requests: each runs once, no matter when and to which process it is sent again."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value

from eventstore.commands.handler import CommandHandler
from eventstore.decider import Decider
from eventstore.errors import Kind, Rejected, StoreUnavailable
from eventstore.projections.projector import Projector
from tests.unit.eventstore.accounts import (
    ACCOUNT,
    NO_REQUESTS,
    SlowMemory,
    add,
    balance,
    by,
)

pytestmark = pytest.mark.busy


async def test_repeated_request_returns_first_outcome(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    first = await handler.handle("a", add(5), by("r"))
    for repeating in (handler, other):
        again = await repeating.handle("a", add(5), by("r"))
        assert [event.id for event in again.events] == [event.id for event in first.events]
        assert (again.position, again.state) == (first.position, 5)
    await handler.handle("a", add(-5), by("r2"))
    # A new command like this would be rejected by now.
    assert (await handler.handle("a", add(-5), by("r2"))).position == 2
    assert await store.head() == 2


async def test_repeated_request_returns_current_state(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by("r"))
    await other.handle("a", add(2), by())
    again = await handler.handle("a", add(5), by("r"))
    assert (again.position, again.state) == (1, 7)


async def test_concurrent_repetitions_run_once(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    sent = [(handler, other)[n % 2].handle("a", add(5), by("r")) for n in range(10)]
    outcomes = await asyncio.gather(*sent)
    assert {(outcome.position, outcome.state) for outcome in outcomes} == {(1, 5)}
    assert await store.head() == 1


async def test_request_id_of_other_command_is_rejected(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(5), by("r", "one"))
    for stream in ("a", "b"):
        with pytest.raises(Rejected) as caught:
            await handler.handle(stream, add(6, stream), by("r", "other"))
        assert (caught.value.kind, caught.value.reason) == (Kind.INVALID, "REQUEST_ID_REUSED")
        assert caught.value.metadata == {"request_id": "r", "position": "1"}
    assert await store.head() == 1


async def test_concurrent_use_of_request_id_for_two_streams_is_rejected_once(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    results = await asyncio.gather(
        handler.handle("a", add(5), by("r", "one")),
        other.handle("b", add(5, "b"), by("r", "other")),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, Rejected)]
    assert [error.reason for error in refused] == ["REQUEST_ID_REUSED"]
    assert await store.head() == 1


async def test_actors_do_not_share_request_ids(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(5), by("r", "one"))
    await handler.handle("a", add(6), by("r", "other", actor="bob"))
    assert await balance(store) == 11


async def test_commands_without_request_id_all_run(store: SlowMemory, handler: CommandHandler[int]) -> None:
    for _ in range(2):
        await handler.handle("a", add(5), by())
    assert await balance(store) == 10


async def test_rejected_request_may_be_retried(store: SlowMemory, handler: CommandHandler[int]) -> None:
    with pytest.raises(Rejected):
        await handler.handle("a", add(-5), by("r"))
    await handler.handle("a", add(5), by())
    assert (await handler.handle("a", add(-5), by("r"))).state == 0


async def test_repetition_with_unknown_outcome_is_unavailable(store: SlowMemory) -> None:
    handler = CommandHandler(store, ACCOUNT, NO_REQUESTS)
    await handler.handle("a", add(5), by("r"))
    with pytest.raises(StoreUnavailable) as caught:
        await handler.handle("a", add(5), by("r"))
    assert caught.value.reason == "REQUEST_IN_FLIGHT"


class TestRecordedRejections:
    """An Int64Value event records that a command was rejected."""

    @pytest.fixture
    def handler(self, store: SlowMemory, projector: Projector) -> CommandHandler[int]:
        def refusal(event: Message) -> Rejected | None:
            refused = isinstance(event, Int64Value)
            return Rejected(Kind.PRECONDITION, "REFUSED", "no") if refused else None

        recording: Decider[int] = Decider(0, lambda _, __: [Int64Value(value=1)], lambda state, _: state, None, refusal)
        return CommandHandler(store, recording, projector)

    async def test_rejection_is_appended_and_raised(self, store: SlowMemory, handler: CommandHandler[int]) -> None:
        with pytest.raises(Rejected) as caught:
            await handler.handle("a", None, by("r"))
        assert caught.value.reason == "REFUSED"
        assert [event.data async for event in store.read("a")] == [Int64Value(value=1)]

    async def test_repeated_request_raises_recorded_rejection(
        self, store: SlowMemory, handler: CommandHandler[int]
    ) -> None:
        for _ in range(2):
            with pytest.raises(Rejected):
                await handler.handle("a", None, by("r"))
        assert await store.head() == 1
