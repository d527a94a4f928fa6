"""What a projector promises, on SQLite and on PostgreSQL, over a log that a real NATS keeps."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import projection, recall
from eventstore.codec import EventTypes
from eventstore.decider import Request
from eventstore.errors import CannotApply, LogRewritten, Rejected, StoreUnavailable
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.projection import Projector, RebuildProgress
from eventstore.rows import Database, checkpoint, events
from eventstore.store import EventStore
from eventstore.tail import KEPT_BYTES, Tail
from services.nats_server import NatsAddress
from tests.servers.nats import open_log, until
from tests.servers.postgres import PostgresServer

TYPES = EventTypes([StringValue])
ROOT = Path(__file__).parents[2]
LONG = 60.0  # seconds: no bookmark in between

tables = sa.MetaData()
notes = sa.Table(
    "notes",
    tables,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
)

Row = tuple[str, str, int, int]
Hook = Callable[[RecordedEvent], None]


class Notes:
    """Each stream's last text and how many events it had: an event that is applied twice or not at all shows."""

    name = "notes"
    tables = tables

    def __init__(self, version: int = 1, hook: Hook | None = None) -> None:
        self.version = version
        self.applied: list[int] = []
        self.hook = hook

    def apply(self, rows: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        for event in events:
            self._write(rows, event)

    def _write(self, rows: sa.Connection, event: RecordedEvent) -> None:
        assert isinstance(event.data, StringValue)
        values = {"text": event.data.value, "position": event.position}
        change = sa.update(notes).where(notes.c.stream == event.stream)
        if rows.execute(change.values(**values, count=notes.c.count + 1)).rowcount == 0:
            rows.execute(sa.insert(notes).values(**values, stream=event.stream, count=1))
        self.applied.append(event.position)
        if self.hook:
            self.hook(event)


def new(stream: str, text: str = "x", metadata: Metadata | None = None) -> NewEvent:
    event_id = uuid.uuid4().hex
    return NewEvent(stream, StringValue(value=text), metadata or Metadata("alice"), event_id, event_id)


async def write(log: EventStore, count: int, streams: int = 5, size: int = 1) -> int:
    """Appends so often, so many events each time; returns the last position."""
    last = 0
    for number in range(count):
        last = (await log.append([new(f"s{(number + n) % streams}", f"{number}") for n in range(size)]))[-1]
    return last


def all_notes(rows: sa.Connection) -> list[Row]:
    found = rows.execute(sa.select(notes).order_by(notes.c.stream))
    return [(stream, text, count, position) for stream, text, count, position in found]


async def folded(log: EventStore) -> list[Row]:
    """What the rows must be, straight from the log."""
    found: dict[str, Row] = {}
    head = await log.head()
    async with aclosing(log.subscribe()) as subscription:
        while head:
            for event in await anext(subscription):
                assert isinstance(event.data, StringValue)
                count = found[event.stream][2] + 1 if event.stream in found else 1
                found[event.stream] = (event.stream, event.data.value, count, event.position)
                head = 0 if event.position == head else head
    return [found[stream] for stream in sorted(found)]


@asynccontextmanager
async def following(log: EventStore, kept_bytes: int = KEPT_BYTES) -> AsyncIterator[Tail]:
    tail = Tail(log, kept_bytes)
    await tail.start()
    try:
        yield tail
    finally:
        await tail.stop()


@asynccontextmanager
async def running(log: EventStore, location: str, projection: Notes | None = None) -> AsyncIterator[Projector]:
    async with following(log) as tail:
        projector = Projector(tail, projection or Notes(), Database(location))
        try:
            await projector.start()
            yield projector
        finally:
            await projector.stop()


def generations(location: str) -> list[tuple[str, int]]:
    return Database(location).generations("notes")


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "rows") if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def log(nats_address: NatsAddress) -> AsyncIterator[JetStreamStore]:
    async with open_log(nats_address, TYPES) as store:
        yield store


async def test_it_catches_up_and_goes_on_live(log: JetStreamStore, location: str) -> None:
    head = await write(log, 30)
    async with running(log, location) as projector:
        assert projector.position == head
        assert await projector.query(all_notes) == await folded(log)
        waiting = asyncio.create_task(projector.wait_for(head + 3))
        await write(log, 2)
        await projector.wait_for(head + 2)
        assert not waiting.done()
        await write(log, 1)
        await waiting
        assert await projector.query(all_notes) == await folded(log)


async def test_an_empty_log(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        assert projector.position == 0
        assert await projector.query(all_notes) == []
        assert await projector.position_at(2**62) == (0, 0)


async def test_a_question_before_the_start_is_refused(log: JetStreamStore, tmp_path: Path) -> None:
    projector = Projector(Tail(log), Notes(), Database(str(tmp_path)))
    with pytest.raises(StoreUnavailable) as caught:
        await projector.query(all_notes)
    assert caught.value.reason == "PROJECTION_BEHIND"
    await projector.stop()


async def test_a_restart_goes_on_from_the_checkpoint(log: JetStreamStore, location: str) -> None:
    first, second = Notes(), Notes()
    head = await write(log, 10)
    async with running(log, location, first):
        pass
    await write(log, 5)
    async with running(log, location, second) as projector:
        assert await projector.query(all_notes) == await folded(log)
    assert first.applied == list(range(1, head + 1))
    assert second.applied == list(range(head + 1, head + 6))
    assert len(generations(location)) == 1


async def test_waiters_hear_of_a_stop(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        waiting = asyncio.create_task(projector.wait_for(1))
        await asyncio.wait({waiting}, timeout=0.05)
    with pytest.raises(StoreUnavailable) as caught:
        await waiting
    assert caught.value.reason == "PROJECTION_BEHIND"


# Failures.


def fails_at(position: int) -> Hook:
    def fail(event: RecordedEvent) -> None:
        if event.position == position:
            raise ArithmeticError("a bug in a projection")

    return fail


async def test_an_append_is_applied_whole_or_not_at_all(log: JetStreamStore, location: str) -> None:
    """Rows come as far as they can, and what stands in their way is named."""
    await write(log, 1)
    await log.append([new(f"s{number}") for number in range(5)])
    await write(log, 1)
    async with following(log) as tail:
        projector = Projector(tail, Notes(hook=fails_at(4)), Database(location))
        with pytest.raises(StoreUnavailable) as caught:
            await projector.start()
        assert caught.value.reason == "PROJECTION_FAILED"
        assert isinstance(projector.failure, CannotApply)
        assert (projector.failure.first, projector.failure.last) == (2, 6)
        assert isinstance(projector.failure.__cause__, ArithmeticError)
        with projector.rows.transaction() as rows:
            assert rows.execute(sa.select(checkpoint)).one().position == 1
            assert sum(row[2] for row in all_notes(rows)) == 1
        await projector.stop()
    async with running(log, location) as mended:
        assert await mended.query(all_notes) == await folded(log)


async def test_a_failure_is_told_to_all_who_wait(log: JetStreamStore, location: str) -> None:
    async with running(log, location, Notes(hook=fails_at(2))) as projector:
        await write(log, 1)
        await projector.wait_for(1)
        waiting = asyncio.create_task(projector.wait_for(3))
        await write(log, 2)
        with pytest.raises(StoreUnavailable) as told:
            await waiting
        assert told.value.reason == "PROJECTION_FAILED"
        for outcome in (projector.wait_for(2), projector.query(all_notes)):
            with pytest.raises(StoreUnavailable) as caught:
                await outcome
            assert caught.value.reason == "PROJECTION_FAILED"
        assert isinstance(projector.failure, CannotApply)
        assert isinstance(projector.failure.__cause__, ArithmeticError)
        assert projector.position == 1
        await projector.wait_for(1)


async def test_a_killed_process_leaves_rows_and_checkpoint_together(
    nats_address: NatsAddress, log: JetStreamStore, location: str
) -> None:
    await write(log, 20)
    await write(log, 3, size=40)
    for position in (7, 70):
        async with process(nats_address, log, location, dies_at=position) as other:
            assert await other.wait() == -signal.SIGKILL
    async with running(log, location) as projector:
        assert await projector.query(all_notes) == await folded(log)


async def test_rows_of_another_log_are_computed_anew(
    nats_address: NatsAddress, log: JetStreamStore, location: str
) -> None:
    head = await write(log, 10)
    async with running(log, location):
        pass
    for count in (head, 3):
        async with open_log(nats_address, TYPES) as other, running(other, location) as projector:
            await write(other, count, streams=2)
            await projector.wait_for(count)
            assert await projector.query(all_notes) == await folded(other)
            assert len(generations(location)) == 1


async def test_commits_that_the_database_lost_are_made_once_more(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        head = await write(log, 10, streams=10)
        await projector.wait_for(head)
        event = await log.event_at(head - 4)
        assert event
        with projector.rows.writing() as rows:
            rows.execute(sa.delete(notes).where(notes.c.position > event.position))
            rows.execute(sa.delete(events).where(events.c.position > event.position))
            rows.execute(sa.update(checkpoint).values(position=event.position, event_id=event.id))
        head = await write(log, 1)
        await projector.wait_for(head)
        assert await projector.query(all_notes) == await folded(log)


async def test_a_database_that_went_away_and_came_back(
    postgres: PostgresServer, postgres_url: str, log: JetStreamStore
) -> None:
    if not postgres.ours:
        pytest.skip("ROLLFORWARD_TEST_PG_URL names a server that is not ours to kill")
    async with running(log, postgres_url) as projector:
        for number in (signal.SIGQUIT, signal.SIGINT):
            head = await write(log, 50)
            await projector.wait_for(head)
            await asyncio.to_thread(postgres.end, number)
            try:
                with pytest.raises(StoreUnavailable) as caught:
                    await projector.query(all_notes)
                assert caught.value.reason == "DATABASE_UNAVAILABLE"
                head = await write(log, 5)
                waiting = asyncio.create_task(projector.wait_for(head))
                await asyncio.wait({waiting}, timeout=0.05)
                assert not waiting.done()
            finally:
                await asyncio.to_thread(postgres.start)
            await asyncio.wait_for(waiting, 30)
            assert projector.failure is None
            assert await projector.query(all_notes) == await folded(log)


# Several processes.


@asynccontextmanager
async def process(
    address: NatsAddress, log: JetStreamStore, location: str, dies_at: int = 0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that keeps the same rows, until its standard input ends; it says when it has come up."""
    say = {"url": address.url, "user": address.user, "password": address.password, "log": log.log, "rows": location}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from tests.contract.test_projector import main; main()",
        cwd=ROOT,
        env=os.environ | {"PROJECTOR": json.dumps(say | {"dies_at": str(dies_at)})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout
    try:
        assert dies_at or await child.stdout.readline() == b"started\n"
        yield child
    finally:
        assert child.stdin
        child.stdin.close()
        await child.wait()


def main() -> None:
    """What `process` runs."""
    asyncio.run(_main(json.loads(os.environ["PROJECTOR"])))


async def _main(say: Mapping[str, str]) -> None:
    dies_at = int(say["dies_at"])

    def die(event: RecordedEvent) -> None:
        if event.position == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    address = NatsAddress(say["url"], say["user"], say["password"], "", "")
    async with open_log(address, TYPES, say["log"]) as log, running(log, say["rows"], Notes(hook=die)) as projector:
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        head = await log.head()
        await projector.wait_for(head)
        assert await projector.query(all_notes) == await folded(log)
        print("done", flush=True)


async def test_many_may_start_at_once(log: JetStreamStore, postgres_url: str) -> None:
    await write(log, 20)
    async with following(log) as tail:
        projectors = [Projector(tail, Notes(), Database(postgres_url)) for _ in range(4)]
        await asyncio.gather(*(projector.start() for projector in projectors))
        expected = await folded(log)
        for projector in projectors:
            assert await projector.query(all_notes) == expected
            await projector.stop()


async def test_two_processes_apply_each_event_once(
    nats_address: NatsAddress, log: JetStreamStore, location: str
) -> None:
    await write(log, 10)
    async with process(nats_address, log, location) as other, running(log, location) as projector:
        load = asyncio.gather(*(write(log, 100, size=1 + number) for number in range(3)))
        head = max(await load)
        await projector.wait_for(head)
        assert await projector.query(all_notes) == await folded(log)
        assert other.stdin
        other.stdin.close()
        assert other.stdout
        assert await other.stdout.readline() == b"done\n"


async def test_a_process_goes_over_to_the_rows_that_another_rebuilt(log: JetStreamStore, postgres_url: str) -> None:
    await write(log, 20)
    async with running(log, postgres_url) as one, running(log, postgres_url) as two:
        for projector, other in ((one, two), (two, one)):
            asking = [asyncio.create_task(ask_on(other)) for _ in range(3)]
            writing = asyncio.create_task(write(log, 60))
            assert (await rebuilt(projector)).done
            await writing
            head = await write(log, 1)
            await asyncio.gather(one.wait_for(head), two.wait_for(head))
            await end_all(asking)
            expected = await folded(log)
            assert await one.query(all_notes) == expected
            assert await two.query(all_notes) == expected
            assert one.rows.label == two.rows.label
            assert len(generations(postgres_url)) == 1


async def test_a_question_goes_over_to_rebuilt_rows_before_the_next_event(
    log: JetStreamStore, postgres_url: str
) -> None:
    await write(log, 20)
    expected = await folded(log)
    async with running(log, postgres_url) as one, running(log, postgres_url) as two:
        await rebuilt(one)
        assert await asyncio.gather(*(two.query(all_notes) for _ in range(5))) == [expected] * 5
        assert one.rows.label == two.rows.label


async def end_all(asking: Sequence[asyncio.Task[None]]) -> None:
    """Ends those who ask on, none of whom may have failed."""
    for task in asking:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def ask_on(projector: Projector) -> None:
    while True:
        await projector.query(all_notes)


# Gathering.


@contextmanager
def commits(projector: Projector) -> Iterator[list[object]]:
    """One entry for each commit to the live rows."""
    made: list[object] = []

    def note(connection: sa.Connection) -> None:
        made.append(connection)

    sa.event.listen(projector.rows._engine, "commit", note)
    yield made
    sa.event.remove(projector.rows._engine, "commit", note)


async def test_what_nobody_waits_for_is_written_at_once_and_what_someone_does_without_delay(
    log: JetStreamStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "GATHER_SECONDS", LONG)
    async with running(log, location) as projector:
        head = await write(log, 1)
        await projector.wait_for(head)
        with commits(projector) as made:
            head = await write(log, 30)
            await projector.tail.wait_for(head)
            assert made == []
            await projector.wait_for(head)
            assert len(made) == 1
        assert await projector.query(all_notes) == await folded(log)


async def test_what_is_heard_during_a_write_is_written_next_at_once(log: JetStreamStore, location: str) -> None:
    go_on, begun = threading.Event(), threading.Event()

    def hold(event: RecordedEvent) -> None:
        begun.set()
        assert go_on.wait(20)

    async with running(log, location, Notes(hook=hold)) as projector:
        with commits(projector) as made:
            await write(log, 1)
            waiting = asyncio.create_task(projector.wait_for(31))
            await asyncio.to_thread(begun.wait, 20)
            head = await write(log, 30)
            await projector.tail.wait_for(head)
            go_on.set()
            await waiting
            assert len(made) == 2
        assert await projector.query(all_notes) == await folded(log)


async def test_a_projection_that_cannot_keep_up_goes_on_from_its_checkpoint(log: JetStreamStore, location: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hold(event: RecordedEvent) -> None:
        begun.set()
        assert go_on.wait(20)

    async with following(log, kept_bytes=1) as tail:
        notes = Notes(hook=hold)
        projector = Projector(tail, notes, Database(location))
        await projector.start()
        await write(log, 1)
        await asyncio.to_thread(begun.wait, 20)
        for _ in range(20):
            await tail.wait_for(await write(log, 1))
        go_on.set()
        await projector.wait_for(21)
        assert notes.applied == list(range(1, 22))
        assert await projector.query(all_notes) == await folded(log)
        await projector.stop()


class Rewritten(MemoryStore):
    """A log that turns out not to be the one that was followed."""

    async def subscribe(self, after: int = 0) -> AsyncGenerator[Sequence[RecordedEvent], None]:
        async for batch in super().subscribe(after):
            if batch[-1].position > 1:
                raise LogRewritten("another log")
            yield batch


async def test_rows_of_a_log_that_was_rewritten_are_shown_to_nobody(location: str) -> None:
    log = Rewritten("rewritten", TYPES)
    async with running(log, location) as projector:
        await write(log, 1)
        await projector.wait_for(1)
        waiting = asyncio.create_task(projector.wait_for(2))
        await write(log, 1)
        with pytest.raises(LogRewritten):
            await projector.tail.failed()
        for outcome in (waiting, projector.wait_for(2), projector.query(all_notes)):
            with pytest.raises(StoreUnavailable) as caught:
                await outcome
            assert caught.value.reason == "PROJECTION_FAILED"


# Generations and rebuilds.


async def rebuilt(projector: Projector) -> RebuildProgress:
    last = None
    async for progress in projector.rebuild():
        assert not last or progress.position >= last.position
        last = progress
    assert last
    return last


async def test_a_new_version_is_computed_from_the_beginning_and_the_old_dropped(
    log: JetStreamStore, location: str
) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        old = projector.fingerprint
    assert [mark for mark, _ in generations(location)] == [old]
    projection = Notes(version=2)
    async with running(log, location, projection) as projector:
        assert projection.applied == list(range(1, 11))
        assert await projector.query(all_notes) == await folded(log)
        assert [mark for mark, _ in generations(location)] == [projector.fingerprint] != [old]


async def test_the_old_version_answers_until_the_new_one_is_there(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as old:
        seen: list[list[tuple[str, int]]] = []
        hook: Hook = lambda event: seen.append(generations(location)) if event.position == 10 else None  # noqa: E731
        expected = await folded(log)
        async with running(log, location, Notes(2, hook)) as projector:
            assert await projector.query(all_notes) == expected
        assert len(seen[0]) == 2
        assert old.failure is None


async def test_rows_are_rebuilt_beside_the_live_ones(log: JetStreamStore, location: str) -> None:
    await write(log, 100, size=3)
    async with running(log, location) as projector:
        before = projector.rows
        asking = [asyncio.create_task(ask_on(projector)) for _ in range(3)]
        writing = asyncio.create_task(write(log, 200))
        progress = await rebuilt(projector)
        head = await writing
        assert progress.done
        assert progress.live_digest == progress.rebuilt_digest == progress.live_digest.lower()
        assert projector.rows is not before
        await projector.wait_for(head)
        await end_all(asking)
        assert await projector.query(all_notes) == await folded(log)
        assert len(generations(location)) == 1
        await projector.wait_for(await write(log, 1))
        assert (await rebuilt(projector)).live_digest != progress.live_digest
        number = projector.rows.generation
    async with running(log, location) as projector:
        assert projector.rows.generation == number
        assert await projector.query(all_notes) == await folded(log)


async def test_an_empty_log_can_be_rebuilt(log: JetStreamStore, location: str) -> None:
    async with running(log, location) as projector:
        assert (await rebuilt(projector)).done


async def test_a_difference_is_found_and_the_live_rows_stay(log: JetStreamStore, location: str) -> None:
    head = await write(log, 10)
    async with running(log, location) as projector:
        with projector.rows.writing() as rows:
            rows.execute(sa.update(notes).where(notes.c.stream == "s1").values(text="tampered"))
        before = projector.rows
        with pytest.raises(Rejected) as caught:
            await rebuilt(projector)
        assert caught.value.reason == "REBUILD_DIFFERS"
        assert caught.value.metadata["live_digest"] != caught.value.metadata["rebuilt_digest"]
        assert projector.rows is before
        assert len(generations(location)) == 1
        assert "tampered" in {row[1] for row in await projector.query(all_notes)}
        await write(log, 1)
        await projector.wait_for(head + 1)


async def test_one_rebuild_at_a_time_and_one_that_is_given_up_leaves_nothing(
    log: JetStreamStore, location: str
) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        async with aclosing(projector.rebuild()) as rebuilding:
            await anext(rebuilding)
            assert len(generations(location)) == 2
            with pytest.raises(Rejected) as caught:
                await rebuilt(projector)
            assert caught.value.reason == "REBUILD_RUNNING"
        assert len(generations(location)) == 1
        assert (await rebuilt(projector)).done


async def test_a_rebuild_that_was_cut_off_by_a_crash_is_forgotten(log: JetStreamStore, location: str) -> None:
    await write(log, 10)
    async with running(log, location) as projector:
        Database(location).open("notes", projector.fingerprint, 2, tables).close()
        assert len(generations(location)) == 2
        assert (await rebuilt(projector)).done
        assert projector.rows.generation == 3
    async with running(log, location) as projector:
        assert await projector.query(all_notes) == await folded(log)
        assert len(generations(location)) == 1


# Questions.


async def test_a_request_is_found_by_who_made_it_and_its_id(log: JetStreamStore, location: str) -> None:
    mine = Metadata("alice", request_id="r1", request_digest="d1")
    async with running(log, location) as projector:
        await write(log, 2)
        await log.append([new("a", metadata=mine), new("b", metadata=mine)])
        await log.append([new("a", metadata=replace(mine, actor="bob", request_digest="d2"))])
        assert await projector.find_request("alice", "r1", at_least=4) == Request("d1", 3, 4)
        assert await projector.find_request("bob", "r1", at_least=5) == Request("d2", 5, 5)
        assert await projector.find_request("alice", "r2", at_least=0) is None
        asking = asyncio.create_task(projector.find_request("carol", "r1", at_least=6))
        await log.append([new("a", metadata=replace(mine, actor="carol"))])
        assert await asking == Request("d1", 6, 6)


async def test_a_request_is_known_before_it_is_in_the_rows(
    log: JetStreamStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "GATHER_SECONDS", LONG)
    async with running(log, location) as projector:
        await projector.wait_for(await write(log, 1))
        mine = Metadata("alice", request_id="r1", request_digest="d1")
        await log.append([new("a", metadata=mine), new("b", metadata=mine)])
        assert await projector.find_request("alice", "r1", at_least=3) == Request("d1", 2, 3)
        assert await projector.find_request("alice", "r2", at_least=3) is None
        assert projector.position == 1


async def test_a_request_that_is_not_kept_is_found_in_the_rows(log: JetStreamStore, location: str) -> None:
    async with following(log, kept_bytes=1) as tail:
        projector = Projector(tail, Notes(), Database(location))
        await projector.start()
        for number in range(20):
            mine = Metadata("alice", request_id=f"r{number}", request_digest=f"d{number}")
            await log.append([new("a", metadata=mine)])
            for known in range(number + 1):
                found = await projector.find_request("alice", f"r{known}", at_least=number + 1)
                assert found == Request(f"d{known}", known + 1, known + 1)
            assert await projector.find_request("alice", "r20", at_least=number + 1) is None
        assert len(tail.requests) == 1
        await projector.stop()


async def test_a_new_request_is_not_looked_up_once_all_old_ones_were_recalled(
    log: JetStreamStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "AT_ONCE", 3)
    for number in range(10):
        await log.append([new("a", metadata=Metadata("alice", request_id=f"r{number}", request_digest=f"d{number}"))])
    async with running(log, location) as projector:
        seen = projector.tail.requests.seen
        for number in range(10):
            assert await projector.find_request("alice", f"r{number}", at_least=0) == Request(
                f"d{number}", number + 1, number + 1
            )
        await until(lambda: seen.whole)
        assert not any(seen.is_new("alice", f"r{number}") for number in range(10))
        assert seen.is_new("bob", "r1")
        assert seen.is_new("alice", "r10")
        await log.append([new("a", metadata=Metadata("alice", request_id="r10", request_digest="d10"))])
        assert await projector.find_request("alice", "r10", at_least=11) == Request("d10", 11, 11)
        assert await projector.find_request("alice", "r9", at_least=11) == Request("d9", 10, 10)
        assert await projector.find_request("bob", "r1", at_least=11) is None


class Clock(MemoryStore):
    """A log whose clock is set by hand."""

    def __init__(self, times: list[int]) -> None:
        super().__init__("clock", TYPES)
        self._times = times

    async def subscribe(self, after: int = 0) -> AsyncGenerator[list[RecordedEvent], None]:
        async for batch in super().subscribe(after):
            yield [replace(event, time=self._times[event.position - 1]) for event in batch]


async def test_a_time_becomes_a_position_even_if_clocks_stand_still_or_go_back(location: str) -> None:
    log = Clock([10, 20, 20, 15, 30, 31, 33, 40])
    for _ in range(4):
        await log.append([new("s")])
    await log.append([new("s"), new("s"), new("s")])
    await log.append([new("s")])
    async with running(log, location) as projector:
        found = [(await projector.position_at(time)) for time in (9, 10, 19, 20, 29, 30, 31, 39, 40, 10**18)]
        assert found == [
            *((0, 0), (1, 10), (1, 10), (4, 20), (4, 20)),
            *((7, 30), (7, 30), (7, 30), (8, 40), (8, 40)),  # an append is there as a whole
        ]


@pytest.mark.parametrize("small", [False, True])
async def test_what_one_question_reads_is_of_one_moment(log: JetStreamStore, location: str, small: bool) -> None:
    def twice(rows: sa.Connection) -> tuple[list[Row], list[Row], int]:
        first = all_notes(rows)
        at = rows.scalar(sa.select(checkpoint.c.position))
        return first, all_notes(rows), at or 0

    async with running(log, location) as projector:
        writing = asyncio.create_task(write(log, 100, size=2))
        while not writing.done():
            first, second, at = await projector.query(twice, small=small)
            await asyncio.sleep(0)
            assert first == second
            assert sum(row[2] for row in first) == at
        await writing


def test_rows_live_in_a_directory_or_in_postgresql(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Database("mysql://localhost/rows")
    strange = tmp_path / "a dir? with #odd%20 letters"
    rows = Database(str(strange)).open("notes", "0123456789", 1, tables)
    rows.set_live()
    rows.close()
    assert Database(str(strange)).generations("notes") == [("0123456789", 1)]


# Whatever happens in whatever order, the rows are what the log says.


Step = Callable[["Machine"], Awaitable[None]]


class Machine:
    """A log, and a projector that is stopped, failed, started and rebuilt."""

    def __init__(self, home: str) -> None:
        self.home = home
        self.log = MemoryStore("model", TYPES)
        self.tail = Tail(self.log)
        self.projector: Projector | None = None

    async def append(self, streams: list[int]) -> None:
        await self.log.append([new(f"s{stream}", str(stream)) for stream in streams])

    async def start(self, fails_after: int | None) -> None:
        await self.stop()
        projection = Notes(hook=fails_at(await self.log.head() - fails_after) if fails_after is not None else None)
        self.tail = Tail(self.log)
        await self.tail.start()
        self.projector = Projector(self.tail, projection, Database(self.home))
        try:
            await self.projector.start()
            projection.hook = None
        except StoreUnavailable:
            await self.stop()

    async def stop(self) -> None:
        if self.projector:
            await self.projector.stop()
            await self.tail.stop()
        self.projector = None

    async def rebuild(self) -> None:
        if self.projector and self.projector.failure is None:
            assert (await rebuilt(self.projector)).done

    async def check(self) -> None:
        if self.projector and self.projector.failure is None:
            await self.projector.wait_for(await self.log.head())
            assert await self.projector.query(all_notes) == await folded(self.log)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 3), min_size=1, max_size=4)),
        st.tuples(st.just("start"), st.none() | st.integers(0, 6)),
        st.tuples(st.sampled_from(["stop", "rebuild", "check"])),
    ),
    max_size=14,
)


@settings(max_examples=20, deadline=None)
@given(steps)
def test_whatever_happens_the_rows_are_what_the_log_says(taken: list[tuple[str, object]]) -> None:
    async def run(home: str) -> None:
        machine = Machine(home)
        try:
            for name, *arguments in taken:
                await getattr(machine, name)(*arguments)
            await machine.start(None)
            await machine.check()
            await machine.rebuild()
            await machine.check()
        finally:
            await machine.stop()

    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(home))


async def test_whoever_gives_up_waiting_is_forgotten(tmp_path: Path) -> None:
    async with running(MemoryStore("words", TYPES), str(tmp_path)) as projector:
        for waited_for in (projector, projector.tail):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waited_for.wait_for(1_000_000), 0.01)
            assert 1_000_000 not in {position for position, *_ in waited_for._reached._waiters}
