"""Commands over several streams: planned from the newest state of each, appended atomically, run once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from eventstore.commands.handler import CommandHandler
from eventstore.decider import Plan
from eventstore.errors import Kind, Rejected
from tests.timeouts import scaled
from tests.unit.eventstore.accounts import (
    SlowMemory,
    add,
    balance,
    by,
)

pytestmark = pytest.mark.busy


def transfer(handler: CommandHandler[int], amount: int) -> Callable[[], Awaitable[Plan]]:
    """Return a plan that moves an amount from account a to account b."""

    async def plan() -> Plan:
        (available, first), (_, second) = await handler.state("a"), await handler.state("b")
        if amount > available:
            raise Rejected(Kind.PRECONDITION, "TOO_LITTLE", "insufficient balance")
        moved = [("a", StringValue(value=f"a:{-amount}")), ("b", StringValue(value=f"b:{amount}"))]
        return Plan(moved if amount else (), {"a": first, "b": second})

    return plan


async def test_events_of_all_streams_are_one_append(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(10), by())
    events, position = await handler.handle_across(transfer(handler, 4), by("r"))
    assert [(event.stream, event.position, event.append_end) for event in events] == [("a", 2, 3), ("b", 3, 3)]
    assert position == 3
    assert (await balance(store, "a"), await balance(store, "b")) == (6, 4)


async def test_command_is_planned_again_after_conflict_on_any_stream(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    store.before_append = lambda: other.handle("b", add(5, "b"), by())
    await handler.handle_across(transfer(handler, 4), by("r"))
    assert (await balance(store, "a"), await balance(store, "b")) == (6, 9)


async def test_command_completes_while_same_process_keeps_writing(
    store: SlowMemory, handler: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    busy: list[asyncio.Task[object]] = []
    plan = transfer(handler, 4)

    async def overtaken() -> Plan:
        planned = await plan()
        busy.append(asyncio.create_task(handler.handle("b", add(1, "b"), by())))
        await asyncio.wait(busy[-1:], timeout=0.1)
        return planned

    await handler.handle_across(overtaken, by("r"))
    await asyncio.gather(*busy)
    assert (await balance(store, "a"), await balance(store, "b")) == (6, 4 + len(busy))
    assert len(busy) == 2


async def test_other_commands_run_while_one_is_planned(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(10), by())
    planning, proceed, plan = asyncio.Event(), asyncio.Event(), transfer(handler, 4)

    async def slow() -> Plan:
        planning.set()
        await proceed.wait()
        return await plan()

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(scaled(20)):
        first = tasks.create_task(handler.handle_across(slow, by("slow")))
        await planning.wait()
        await handler.handle_across(transfer(handler, 1), by("quick"))
        assert not first.done()
        proceed.set()
    assert (await balance(store, "a"), await balance(store, "b")) == (5, 5)


async def test_command_is_rejected_when_conflict_made_it_impossible(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    store.before_append = lambda: other.handle("a", add(-8), by())
    with pytest.raises(Rejected) as caught:
        await handler.handle_across(transfer(handler, 4), by("r"))
    assert caught.value.reason == "TOO_LITTLE"
    assert await store.head() == 2


async def test_repeated_request_returns_first_outcome_even_if_impossible_by_now(
    store: SlowMemory, handler: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    first = await handler.handle_across(transfer(handler, 10), by("r"))
    again, position = await handler.handle_across(transfer(handler, 10), by("r"))
    assert [event.id for event in again] == [event.id for event in first[0]]
    assert position == first[1] == await store.head()
    with pytest.raises(Rejected) as caught:
        await handler.handle_across(transfer(handler, 1), by("r", "other"))
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_empty_plan_writes_nothing(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(10), by())
    assert await handler.handle_across(transfer(handler, 0), by("r")) == ((), 1)
    assert await store.head() == 1


async def test_command_waiting_for_its_streams_does_not_block_other_streams(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    plan, plans, again, proceed = transfer(handler, 4), 0, asyncio.Event(), asyncio.Event()

    async def overtaken() -> Plan:
        nonlocal plans
        plans += 1
        if plans == 2:  # this plan runs with the locks of its streams
            again.set()
            await proceed.wait()
        planned = await plan()
        if plans == 1:
            await other.handle("a", add(1), by())
        return planned

    async def elsewhere() -> Plan:
        return Plan([("c", StringValue(value="c:1")), ("d", StringValue(value="d:1"))], {"c": 0, "d": 0})

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(scaled(20)):
        waiting = tasks.create_task(handler.handle_across(overtaken, by("waiting")))
        await again.wait()
        await handler.handle_across(elsewhere, by("elsewhere"))
        queued = tasks.create_task(handler.handle_across(plan, by("queued")))
        assert not waiting.done()
        proceed.set()
    assert {waiting.result()[1], queued.result()[1]} == {6, 8}
    assert (await balance(store, "a"), await balance(store, "b")) == (3, 8)
