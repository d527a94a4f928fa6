"""The one path of a command: decided by the newest state, done once for each request id, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from eventstore import decider as decider_module
from eventstore.codec import EventTypes
from eventstore.decider import CommandHandler, Decider, Outcome, Plan
from eventstore.errors import Conflict, EventTooLarge, Kind, Rejected, StoreUnavailable
from eventstore.event import MAX_EVENT_BYTES, Metadata, NewEvent, RecordedEvent
from eventstore.memory import MemoryStore
from eventstore.projection import Projector
from eventstore.rows import Database
from eventstore.tail import Tail
from eventstore.testing import given

TYPES = EventTypes([StringValue, Int64Value])

# A stream is an account named by its events: "account:amount" adds; the balance never goes below 0.


@dataclass(frozen=True)
class Move:
    """Moves amounts, an account each; nothing happens for an amount of 0."""

    amounts: Mapping[str, int]
    if_balance: int | None = None


def stream_of(event: Message) -> str:
    assert isinstance(event, StringValue)
    return event.value.partition(":")[0]


def evolve(balance: int, event: RecordedEvent) -> int:
    assert isinstance(event.data, StringValue)
    return balance + int(event.data.value.partition(":")[2])


def decide(command: object, balance: int) -> Sequence[Message]:
    assert isinstance(command, Move)
    first = next(iter(command.amounts.values()))
    if command.if_balance not in (None, balance):
        raise Conflict("BALANCE_CHANGED", "the balance is another one")
    if balance + first < 0:
        raise Rejected(Kind.PRECONDITION, "TOO_LITTLE", "there is not so much")
    return [StringValue(value=f"{account}:{amount}") for account, amount in command.amounts.items() if amount]


ACCOUNT = Decider(0, decide, evolve, stream_of)


class Nothing:
    """The projection of a log that has only the kernel's own rows."""

    name = "nothing"
    version = 1
    tables = sa.MetaData()

    def apply(self, rows: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """The kernel keeps the index of requests itself."""


class Never:
    """An index of requests that has seen none."""

    async def find_request(self, actor: str, request_id: str, at_least: int) -> None:
        """Knows no request."""


NEVER = Never()


class SlowMemory(MemoryStore):
    """A log whose writers take turns before each append, as those of a real one do."""

    def __init__(self) -> None:
        super().__init__("test", TYPES)
        self.before_append: Callable[[], object] | None = None

    async def append(self, events: Sequence[NewEvent], expected: Mapping[str, int] | None = None) -> tuple[int, ...]:
        if self.before_append:
            hook, self.before_append = self.before_append, None
            await hook()  # type: ignore[misc]
        await asyncio.sleep(0)
        return await super().append(events, expected)

    async def read(self, stream: str, after: int = 0) -> AsyncGenerator[RecordedEvent, None]:
        await asyncio.sleep(0)
        async for event in super().read(stream, after):
            yield event


@pytest.fixture
def store() -> SlowMemory:
    return SlowMemory()


@pytest.fixture
async def projector(store: SlowMemory, tmp_path: Path) -> AsyncIterator[Projector]:
    tail = Tail(store)
    await tail.start()
    projector = Projector(tail, Nothing(), Database(str(tmp_path)))
    await projector.start()
    yield projector
    await projector.stop()
    await tail.stop()


@pytest.fixture
def handler(store: SlowMemory, projector: Projector) -> CommandHandler[int]:
    return CommandHandler(store, ACCOUNT, projector)


@pytest.fixture
def other(store: SlowMemory, projector: Projector) -> CommandHandler[int]:
    """The handler of another process, with a cache of its own."""
    return CommandHandler(store, ACCOUNT, projector)


def by(request_id: str = "", digest: str = "d", actor: str = "alice") -> Metadata:
    return Metadata(actor, request_id=request_id, request_digest=digest)


def add(amount: int, account: str = "a", if_balance: int | None = None) -> Move:
    return Move({account: amount}, if_balance)


async def balance(store: MemoryStore, account: str = "a") -> int:
    return sum([evolve(0, event) async for event in store.read(account)])


async def test_a_command_makes_events(store: SlowMemory, handler: CommandHandler[int]) -> None:
    first = await handler.handle("a", add(5), by())
    assert (first.state, first.position, [event.data for event in first.events]) == (5, 1, [StringValue(value="a:5")])
    second = await handler.handle("a", add(2), by())
    assert (second.state, second.position) == (7, 2)
    assert await handler.state("a") == (7, 2)
    assert await handler.state("a", until=1) == (5, 1)
    assert await handler.state("a", until=0) == (0, 0)
    assert await handler.state("none") == (0, 0)


async def test_a_refusal_appends_nothing(store: SlowMemory, handler: CommandHandler[int]) -> None:
    await handler.handle("a", add(5), by())
    with pytest.raises(Rejected) as caught:
        await handler.handle("a", add(-6), by())
    assert (caught.value.kind, caught.value.reason) == (Kind.PRECONDITION, "TOO_LITTLE")
    with pytest.raises(Conflict) as conflict:
        await handler.handle("a", add(1, if_balance=4), by())
    assert conflict.value.reason == "BALANCE_CHANGED"
    assert await store.head() == 1


async def test_nothing_to_do_is_no_event_and_the_streams_revision(
    store: SlowMemory, handler: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await handler.handle("b", add(1, "b"), by())
    nothing = await handler.handle("a", add(0), by())
    assert (nothing.state, nothing.events, nothing.position) == (5, (), 1)


# What another process wrote in between.


async def test_a_stale_cache_does_not_accept(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await other.handle("a", add(-5), by())
    with pytest.raises(Rejected):
        await handler.handle("a", add(-5), by())
    assert await balance(store) == 0


async def test_a_stale_cache_does_not_refuse(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await other.handle("a", add(5), by())
    assert (await handler.handle("a", add(-10), by())).state == 0
    await other.handle("a", add(3), by())
    assert (await handler.handle("a", add(1, if_balance=3), by())).state == 4


async def test_a_stale_cache_does_not_say_that_there_is_nothing_to_do(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(5), by())
    await other.handle("a", add(-5), by())
    assert await handler.handle("a", add(0), by()) == Outcome(0, (), 2)
    with pytest.raises(Conflict):
        await handler.handle("a", add(0, if_balance=5), by())


async def test_a_conflict_is_decided_again(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    store.before_append = lambda: other.handle("a", add(7), by())
    outcome = await handler.handle("a", add(1), by())
    assert (outcome.state, outcome.position) == (8, 2)
    store.before_append = lambda: other.handle("a", add(-8), by())
    with pytest.raises(Rejected):
        await handler.handle("a", add(-8), by())
    assert await balance(store) == 0


async def test_who_is_always_slower_is_told(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    async def again() -> None:
        await other.handle("a", add(1), by())
        store.before_append = again

    store.before_append = again
    with pytest.raises(Conflict) as caught:
        await handler.handle("a", add(100), by())
    assert caught.value.reason == "STREAM_BUSY"
    assert await balance(store) == decider_module.ATTEMPTS


async def test_many_at_once_all_count(
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


# Request ids.


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


# Several events.


async def test_events_of_several_streams_are_appended_together(store: SlowMemory, handler: CommandHandler[int]) -> None:
    outcome = await handler.handle("a", Move({"a": 1, "b": 2, "c": 3}), by("r"))
    assert [(event.stream, event.position) for event in outcome.events] == [("a", 1), ("b", 2), ("c", 3)]
    assert (outcome.state, outcome.position) == (1, 3)
    # The stream's revision is its own last event's, not the append's.
    assert (await handler.handle("a", add(1), by())).state == 2
    again = await handler.handle("a", Move({"a": 1, "b": 2, "c": 3}), by("r"))
    assert [event.id for event in again.events] == [event.id for event in outcome.events]
    assert await store.head() == 4


async def test_all_or_nothing(store: SlowMemory) -> None:
    large = StringValue(value="b:" + "1" * MAX_EVENT_BYTES)
    handler = CommandHandler(
        store, Decider(0, lambda _, __: [StringValue(value="a:1"), large], evolve, stream_of), NEVER
    )
    with pytest.raises(EventTooLarge):
        await handler.handle("a", None, by())
    assert await store.head() == 0


async def test_what_is_left_of_a_command_may_be_of_another_stream(
    store: SlowMemory, handler: CommandHandler[int]
) -> None:
    await handler.handle("a", add(1), by())
    outcome = await handler.handle("a", Move({"b": 5}), by())
    assert [event.stream for event in outcome.events] == ["b"]
    assert (outcome.state, outcome.position) == (1, 2)


# Commands that commute.


async def test_commands_that_commute_are_done_at_once(store: SlowMemory, handler: CommandHandler[int]) -> None:
    outcomes = await asyncio.gather(*(handler.handle_concurrently("a", add(1), by(f"r{n}")) for n in range(20)))
    assert sorted(outcome.position for outcome in outcomes) == list(range(1, 21))
    again = await asyncio.gather(*(handler.handle_concurrently("a", add(1), by(f"r{n}")) for n in range(20)))
    assert [outcome.position for outcome in again] == [outcome.position for outcome in outcomes]
    assert await balance(store) == 20
    with pytest.raises(Rejected) as caught:
        await handler.handle_concurrently("a", add(2), by("r1", "other"))
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_a_commuting_request_that_is_sent_twice_at_once_is_done_once(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    outcomes = await asyncio.gather(
        *((handler, other)[n % 2].handle_concurrently("a", add(5), by("r")) for n in range(6))
    )
    assert {outcome.position for outcome in outcomes} == {1}
    assert await store.head() == 1


async def test_a_commuting_command_is_refused_by_the_newest_state_only(
    store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
) -> None:
    await handler.handle("a", add(1), by())
    await other.handle("a", add(9), by())
    assert (await handler.handle_concurrently("a", add(-10), by())).position == 3
    with pytest.raises(Rejected):
        await handler.handle_concurrently("a", add(-11), by())
    assert (await handler.handle_concurrently("a", add(0), by())).events == ()


async def test_the_cache_forgets_the_streams_that_were_used_first(
    store: SlowMemory, handler: CommandHandler[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decider_module, "CACHED_STREAMS", 2)
    for account in "abca":
        await handler.handle(account, add(1, account), by())
    assert list(handler._cache) == ["c", "a"]
    assert await handler.state("a") == (2, 4)


# Given, when, then.


def test_given_when_then() -> None:
    stream = given(ACCOUNT, StringValue(value="a:5"), StringValue(value="a:2"))
    assert stream.state == 7
    stream.when(add(-7)).then(StringValue(value="a:-7"))
    stream.when(add(0)).then()
    assert stream.when(add(-8)).then_rejected("TOO_LITTLE").reason == "TOO_LITTLE"
    for wrong in (
        lambda: stream.when(add(-7)).then(),
        lambda: stream.when(add(-8)).then(),
        lambda: stream.when(add(-8)).then_rejected("OTHER"),
        lambda: stream.when(add(1)).then_rejected("TOO_LITTLE"),
    ):
        with pytest.raises(AssertionError):
            wrong()


def test_a_decider_that_decides_otherwise_the_second_time_is_found_out() -> None:
    counted = iter(range(10))
    impure = Decider(0, lambda _, __: [StringValue(value=f"a:{next(counted)}")], evolve, stream_of)
    with pytest.raises(AssertionError):
        given(impure).when(None)


def transfer(handler: CommandHandler[int], amount: int) -> Callable[[], Awaitable[Plan]]:
    """Plans to move an amount from account a to account b."""

    async def plan() -> Plan:
        (held, first), (_, second) = await handler.state("a"), await handler.state("b")
        if amount > held:
            raise Rejected(Kind.PRECONDITION, "TOO_LITTLE", "there is not so much")
        moved = [("a", StringValue(value=f"a:{-amount}")), ("b", StringValue(value=f"b:{amount}"))]
        return Plan(moved if amount else (), {"a": first, "b": second})

    return plan


class TestAcrossStreams:
    async def test_all_of_it_in_one_append(self, store: SlowMemory, handler: CommandHandler[int]) -> None:
        await handler.handle("a", add(10), by())
        events, position = await handler.handle_across(transfer(handler, 4), by("r"))
        assert [(event.stream, event.position, event.append_end) for event in events] == [("a", 2, 3), ("b", 3, 3)]
        assert position == 3
        assert (await balance(store, "a"), await balance(store, "b")) == (6, 4)

    async def test_planned_again_when_another_was_faster_on_any_stream(
        self, store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
    ) -> None:
        await handler.handle("a", add(10), by())
        store.before_append = lambda: other.handle("b", add(5, "b"), by())
        await handler.handle_across(transfer(handler, 4), by("r"))
        assert (await balance(store, "a"), await balance(store, "b")) == (6, 9)

    async def test_is_done_though_others_of_its_process_never_rest(
        self, store: SlowMemory, handler: CommandHandler[int]
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

    async def test_others_go_on_while_it_is_planned(self, store: SlowMemory, handler: CommandHandler[int]) -> None:
        await handler.handle("a", add(10), by())
        planning, go_on, plan = asyncio.Event(), asyncio.Event(), transfer(handler, 4)

        async def slow() -> Plan:
            planning.set()
            await go_on.wait()
            return await plan()

        async with asyncio.TaskGroup() as tasks, asyncio.timeout(20):
            first = tasks.create_task(handler.handle_across(slow, by("slow")))
            await planning.wait()
            await handler.handle_across(transfer(handler, 1), by("quick"))
            assert not first.done()
            go_on.set()
        assert (await balance(store, "a"), await balance(store, "b")) == (5, 5)

    async def test_judged_again_when_another_was_faster(
        self, store: SlowMemory, handler: CommandHandler[int], other: CommandHandler[int]
    ) -> None:
        await handler.handle("a", add(10), by())
        store.before_append = lambda: other.handle("a", add(-8), by())
        with pytest.raises(Rejected) as caught:
            await handler.handle_across(transfer(handler, 4), by("r"))
        assert caught.value.reason == "TOO_LITTLE"
        assert await store.head() == 2

    async def test_once_for_a_request_id_even_when_it_is_not_possible_any_more(
        self, store: SlowMemory, handler: CommandHandler[int]
    ) -> None:
        await handler.handle("a", add(10), by())
        first = await handler.handle_across(transfer(handler, 10), by("r"))
        again, position = await handler.handle_across(transfer(handler, 10), by("r"))
        assert [event.id for event in again] == [event.id for event in first[0]]
        assert position == first[1] == await store.head()
        with pytest.raises(Rejected) as caught:
            await handler.handle_across(transfer(handler, 1), by("r", "other"))
        assert caught.value.reason == "REQUEST_ID_REUSED"

    async def test_nothing_to_do_writes_nothing(self, store: SlowMemory, handler: CommandHandler[int]) -> None:
        await handler.handle("a", add(10), by())
        assert await handler.handle_across(transfer(handler, 0), by("r")) == ((), 1)
        assert await store.head() == 1


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
