"""Each request is done once, whoever sends it again, when and where."""

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
    NEVER,
    SlowMemory,
    add,
    balance,
    by,
)

pytestmark = pytest.mark.busy


async def test_a_repeated_request_is_done_once_and_has_the_first_outcome(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    first = await handler.handle("a", add(5), by("r"))
    for repeating in (handler, other):
        again = await repeating.handle("a", add(5), by("r"))
        assert [event.id for event in again.events] == [event.id for event in first.events]
        assert (again.position, again.state) == (first.position, 5)
    await handler.handle("a", add(-5), by("r2"))
    # Even if it would be refused by now.
    assert (await handler.handle("a", add(-5), by("r2"))).position == 2
    assert await store.head() == 2


async def test_the_state_after_a_repetition_is_todays(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by("r"))
    await other.handle("a", add(2), by())
    again = await handler.handle("a", add(5), by("r"))
    assert (again.position, again.state) == (1, 7)


async def test_a_request_that_is_sent_many_times_at_once_is_done_once(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    sent = [(handler, other)[n % 2].handle("a", add(5), by("r")) for n in range(10)]
    outcomes = await asyncio.gather(*sent)
    assert {(outcome.position, outcome.state) for outcome in outcomes} == {(1, 5)}
    assert await store.head() == 1


async def test_a_request_id_with_another_command_is_refused(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(5), by("r", "one"))
    for stream in ("a", "b"):
        with pytest.raises(Rejected) as caught:
            await handler.handle(stream, add(6, stream), by("r", "other"))
        assert (caught.value.kind, caught.value.reason) == (Kind.INVALID, "REQUEST_ID_REUSED")
        assert caught.value.metadata == {"request_id": "r", "position": "1"}
    assert await store.head() == 1


async def test_a_request_id_used_for_two_streams_at_once_is_refused_for_one(
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


async def test_request_ids_are_each_actors_own(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(5), by("r", "one"))
    await handler.handle("a", add(6), by("r", "other", actor="bob"))
    assert await balance(store) == 11


async def test_without_a_request_id_every_command_counts(store: SlowMemory, handler: CommandHandler[int]) -> None:
    for _ in range(2):
        await handler.handle("a", add(5), by())
    assert await balance(store) == 10


async def test_a_request_that_was_refused_may_come_again(store: SlowMemory, handler: CommandHandler[int]) -> None:
    with pytest.raises(Rejected):
        await handler.handle("a", add(-5), by("r"))
    await handler.handle("a", add(5), by())
    assert (await handler.handle("a", add(-5), by("r"))).state == 0


async def test_a_repetition_whose_first_outcome_nobody_knows_may_be_sent_again(store: SlowMemory) -> None:
    handler = CommandHandler(store, ACCOUNT, NEVER)
    await handler.handle("a", add(5), by("r"))
    with pytest.raises(StoreUnavailable) as caught:
        await handler.handle("a", add(5), by("r"))
    assert caught.value.reason == "REQUEST_IN_FLIGHT"


class TestRefusalsThatAreEvents:
    """Int64Value records that a command was refused."""

    @pytest.fixture
    def handler(self, store: SlowMemory, projector: Projector) -> CommandHandler[int]:
        def refusal(event: Message) -> Rejected | None:
            refused = isinstance(event, Int64Value)
            return Rejected(Kind.PRECONDITION, "REFUSED", "no") if refused else None

        keeping: Decider[int] = Decider(0, lambda _, __: [Int64Value(value=1)], lambda state, _: state, None, refusal)
        return CommandHandler(store, keeping, projector)

    async def test_are_appended_and_raised(self, store: SlowMemory, handler: CommandHandler[int]) -> None:
        with pytest.raises(Rejected) as caught:
            await handler.handle("a", None, by("r"))
        assert caught.value.reason == "REFUSED"
        assert [event.data async for event in store.read("a")] == [Int64Value(value=1)]

    async def test_are_raised_again_for_the_same_request(self, store: SlowMemory, handler: CommandHandler[int]) -> None:
        for _ in range(2):
            with pytest.raises(Rejected):
                await handler.handle("a", None, by("r"))
        assert await store.head() == 1
