"""Handling of commands: decided on the newest state, appended all or nothing."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from eventstore.commands import multi_stream, stream_states
from eventstore.commands.handler import CommandHandler
from eventstore.decider import Decider, Outcome
from eventstore.errors import Conflict, EventTooLarge, Kind, Rejected
from eventstore.event import MAX_EVENT_BYTES
from eventstore.projections.projector import Projector
from tests.unit.eventstore.accounts import (
    ACCOUNT,
    NO_REQUESTS,
    Move,
    SlowMemory,
    add,
    balance,
    by,
    evolve,
    stream_of,
)


async def test_command_appends_events_and_returns_state(store: SlowMemory, handler: CommandHandler[int]) -> None:
    first = await handler.handle("a", add(5), by())
    assert (first.state, first.position, [event.data for event in first.events]) == (5, 1, [StringValue(value="a:5")])
    second = await handler.handle("a", add(2), by())
    assert (second.state, second.position) == (7, 2)
    assert await handler.state("a") == (7, 2)
    assert await handler.state("a", until=1) == (5, 1)
    assert await handler.state("a", until=0) == (0, 0)
    assert await handler.state("none") == (0, 0)


async def test_rejected_command_appends_nothing(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(5), by())
    with pytest.raises(Rejected) as caught:
        await handler.handle("a", add(-6), by())
    assert (caught.value.kind, caught.value.reason) == (Kind.PRECONDITION, "TOO_LITTLE")
    with pytest.raises(Conflict) as conflict:
        await handler.handle("a", add(1, if_balance=4), by())
    assert conflict.value.reason == "BALANCE_CHANGED"
    assert await store.head() == 1


async def test_command_without_effect_returns_revision_of_stream(
    store: SlowMemory, handler: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await handler.handle("b", add(1, "b"), by())
    nothing = await handler.handle("a", add(0), by())
    assert (nothing.state, nothing.events, nothing.position) == (5, (), 1)


# Conflicts with another process.


async def test_command_accepted_by_stale_cache_is_rejected(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await other.handle("a", add(-5), by())
    with pytest.raises(Rejected):
        await handler.handle("a", add(-5), by())
    assert await balance(store) == 0


async def test_command_rejected_by_stale_cache_is_accepted(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await other.handle("a", add(5), by())
    assert (await handler.handle("a", add(-10), by())).state == 0
    await other.handle("a", add(3), by())
    assert (await handler.handle("a", add(1, if_balance=3), by())).state == 4


async def test_command_without_effect_is_decided_on_newest_state(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await other.handle("a", add(-5), by())
    assert await handler.handle("a", add(0), by()) == Outcome(0, (), 2)
    with pytest.raises(Conflict):
        await handler.handle("a", add(0, if_balance=5), by())


async def test_command_is_decided_again_after_conflict(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    store.before_append = lambda: other.handle("a", add(7), by())
    outcome = await handler.handle("a", add(1), by())
    assert (outcome.state, outcome.position) == (8, 2)
    store.before_append = lambda: other.handle("a", add(-8), by())
    with pytest.raises(Rejected):
        await handler.handle("a", add(-8), by())
    assert await balance(store) == 0


async def test_command_fails_as_busy_after_repeated_conflicts(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    async def again() -> None:
        await other.handle("a", add(1), by())
        store.before_append = again

    store.before_append = again
    with pytest.raises(Conflict) as caught:
        await handler.handle("a", add(100), by())
    assert caught.value.reason == "STREAM_BUSY"
    assert await balance(store) == multi_stream.ATTEMPTS


async def test_concurrent_commands_are_all_applied(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    handlers = [handler, other]
    outcomes = await asyncio.gather(
        *(handlers[n % 2].handle(account, add(1, account), by(f"{account}{n}")) for n in range(30) for account in "abc")
    )
    assert sorted(outcome.position for outcome in outcomes) == list(range(1, 91))
    for number, account in enumerate("abc"):
        assert sorted(outcome.state for outcome in outcomes[number::3]) == list(range(1, 31))
        assert await balance(store, account) == 30


# Commands with several events.


async def test_events_of_several_streams_are_one_append(store: SlowMemory, handler: CommandHandler[int]) -> None:
    outcome = await handler.handle("a", Move({"a": 1, "b": 2, "c": 3}), by("r"))
    assert [(event.stream, event.position) for event in outcome.events] == [("a", 1), ("b", 2), ("c", 3)]
    assert (outcome.state, outcome.position) == (1, 3)
    # The stream's revision is its own last event's, not the append's.
    assert (await handler.handle("a", add(1), by())).state == 2
    again = await handler.handle("a", Move({"a": 1, "b": 2, "c": 3}), by("r"))
    assert [event.id for event in again.events] == [event.id for event in outcome.events]
    assert await store.head() == 4


async def test_too_large_event_rejects_whole_command(store: SlowMemory) -> None:
    large = StringValue(value="b:" + "1" * MAX_EVENT_BYTES)
    handler = CommandHandler(
        store, Decider(0, lambda _, __: [StringValue(value="a:1"), large], evolve, stream_of), NO_REQUESTS
    )
    with pytest.raises(EventTooLarge):
        await handler.handle("a", None, by())
    assert await store.head() == 0


async def test_command_may_write_only_to_another_stream(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(1), by())
    outcome = await handler.handle("a", Move({"b": 5}), by())
    assert [event.stream for event in outcome.events] == ["b"]
    assert (outcome.state, outcome.position) == (1, 2)


# Commands that commute.


async def test_commuting_commands_run_concurrently(store: SlowMemory, handler: CommandHandler[int]) -> None:
    outcomes = await asyncio.gather(*(handler.handle_concurrently("a", add(1), by(f"r{n}")) for n in range(20)))
    assert sorted(outcome.position for outcome in outcomes) == list(range(1, 21))
    again = await asyncio.gather(*(handler.handle_concurrently("a", add(1), by(f"r{n}")) for n in range(20)))
    assert [outcome.position for outcome in again] == [outcome.position for outcome in outcomes]
    assert await balance(store) == 20
    with pytest.raises(Rejected) as caught:
        await handler.handle_concurrently("a", add(2), by("r1", "other"))
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_concurrent_repetitions_of_commuting_request_run_once(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    outcomes = await asyncio.gather(
        *((handler, other)[n % 2].handle_concurrently("a", add(5), by("r")) for n in range(6))
    )
    assert {outcome.position for outcome in outcomes} == {1}
    assert await store.head() == 1


async def test_commuting_command_is_rejected_on_newest_state_only(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(1), by())
    await other.handle("a", add(9), by())
    assert (await handler.handle_concurrently("a", add(-10), by())).position == 3
    with pytest.raises(Rejected):
        await handler.handle_concurrently("a", add(-11), by())
    assert (await handler.handle_concurrently("a", add(0), by())).events == ()


async def test_cache_evicts_least_recently_used_streams(
    store: SlowMemory, projector: Projector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_states, "CACHED_STREAMS", 2)
    handler = CommandHandler(store, ACCOUNT, projector)
    for account in "abca":
        await handler.handle(account, add(1, account), by())
    assert set(handler._states._cache) == {"c", "a"}
    assert await handler.state("a") == (2, 4)
