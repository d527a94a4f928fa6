"""A command over several streams: planned by the newest state of all of them, appended whole, done once."""

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
    """Plans to move an amount from account a to account b."""

    async def plan() -> Plan:
        (held, first), (_, second) = await handler.state("a"), await handler.state("b")
        if amount > held:
            raise Rejected(Kind.PRECONDITION, "TOO_LITTLE", "there is not so much")
        moved = [("a", StringValue(value=f"a:{-amount}")), ("b", StringValue(value=f"b:{amount}"))]
        return Plan(moved if amount else (), {"a": first, "b": second})

    return plan


async def test_all_of_it_in_one_append(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(10), by())
    events, position = await handler.handle_across(transfer(handler, 4), by("r"))
    assert [(event.stream, event.position, event.append_end) for event in events] == [("a", 2, 3), ("b", 3, 3)]
    assert position == 3
    assert (await balance(store, "a"), await balance(store, "b")) == (6, 4)


async def test_planned_again_when_another_was_faster_on_any_stream(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    store.before_append = lambda: other.handle("b", add(5, "b"), by())
    await handler.handle_across(transfer(handler, 4), by("r"))
    assert (await balance(store, "a"), await balance(store, "b")) == (6, 9)


async def test_is_done_though_others_of_its_process_never_rest(store: SlowMemory, handler: CommandHandler[int]) -> None:
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


async def test_others_go_on_while_it_is_planned(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(10), by())
    planning, go_on, plan = asyncio.Event(), asyncio.Event(), transfer(handler, 4)

    async def slow() -> Plan:
        planning.set()
        await go_on.wait()
        return await plan()

    async with asyncio.TaskGroup() as tasks, asyncio.timeout(scaled(20)):
        first = tasks.create_task(handler.handle_across(slow, by("slow")))
        await planning.wait()
        await handler.handle_across(transfer(handler, 1), by("quick"))
        assert not first.done()
        go_on.set()
    assert (await balance(store, "a"), await balance(store, "b")) == (5, 5)


async def test_judged_again_when_another_was_faster(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    store.before_append = lambda: other.handle("a", add(-8), by())
    with pytest.raises(Rejected) as caught:
        await handler.handle_across(transfer(handler, 4), by("r"))
    assert caught.value.reason == "TOO_LITTLE"
    assert await store.head() == 2


async def test_once_for_a_request_id_even_when_it_is_not_possible_any_more(
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


async def test_nothing_to_do_writes_nothing(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(10), by())
    assert await handler.handle_across(transfer(handler, 0), by("r")) == ((), 1)
    assert await store.head() == 1


async def test_one_that_waits_for_its_streams_keeps_no_other_waiting(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(10), by())
    plan, plans, again, go_on = transfer(handler, 4), 0, asyncio.Event(), asyncio.Event()

    async def overtaken() -> Plan:
        nonlocal plans
        plans += 1
        if plans == 2:  # with the locks of its streams
            again.set()
            await go_on.wait()
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
        behind = tasks.create_task(handler.handle_across(plan, by("behind")))
        assert not waiting.done()
        go_on.set()
    assert {waiting.result()[1], behind.result()[1]} == {6, 8}
    assert (await balance(store, "a"), await balance(store, "b")) == (3, 8)
