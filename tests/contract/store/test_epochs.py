"""A log that lost events is refused until the loss is accepted, which begins an epoch; on both databases."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from eventstore.epochs import begin_epoch, find_loss, mark_of, next_epoch, read_epochs
from eventstore.errors import LogLost, LogRewritten
from eventstore.event import KnownPosition, Metadata
from eventstore.projections.database import Database
from eventstore.projections.generations import Generations
from eventstore.projections.snapshots.store import Snapshots
from eventstore.projections.tables import epoch_tables
from eventstore.store import EventStore
from rollforward import v1
from services.artifacts.objects import ObjectPlace
from services.nats.server import NatsAddress
from tests.contract.projections.notes import Notes, all_notes, folded, generations, lose_rows, running, tables, write
from tests.contract.projections.snapshots import FOLDER, applied_at_start, positions, write_and_take
from tests.contract.store.epochs import TYPES, accept, new_log, shortened
from tests.contract.store.events import following, new
from tests.servers.nats import open_log
from tests.timeouts import scaled


async def refused(log: EventStore, location: str, objects: ObjectPlace | None = None, version: int = 1) -> LogLost:
    """Start on a log that lost events; return the error, after checking that the rows are unchanged."""
    before = generations(location), Database(location).known("notes")
    with pytest.raises(LogLost) as caught:
        async with running(log, location, Notes(version), objects):
            pass
    assert (generations(location), Database(location).known("notes")) == before
    return caught.value


# Losses that are refused.


async def test_truncated_log_is_refused_with_missing_range(location: str) -> None:
    log = new_log()
    await write(log, 15)
    async with running(log, location):
        pass
    lost = await refused(shortened(log, 9), location)
    (loss,) = lost.losses
    assert (lost.reason, loss.log, loss.head, loss.known.position) == ("LOG_LOST", "words", 9, 15)
    assert "positions 10 to 15" in str(lost)
    async with running(log, location, projection := Notes()):
        assert projection.applied == []


async def test_truncated_log_that_grew_again_is_refused(location: str) -> None:
    log = new_log()
    await write(log, 15)
    async with running(log, location):
        pass
    for kept in (9, 0, 14):
        other = shortened(log, kept)
        for number in range(20):
            await other.append([new(f"s{number}", metadata=Metadata("bob"))])
        lost = await refused(other, location)
        assert (lost.losses[0].known.position, lost.losses[0].kept) == (15, kept)
        assert f"positions {kept + 1} to 15 are missing" in str(lost)


async def test_missing_range_of_shorter_log_that_grew_is_complete(location: str) -> None:
    log = new_log()
    await write(log, 15)
    async with running(log, location):
        pass
    other = shortened(log, 5)
    for number in range(4):
        await other.append([new(f"s{number}", metadata=Metadata("bob"))])
    (loss,) = (await refused(other, location)).losses
    assert (loss.head, loss.kept) == (9, 5)


async def test_empty_log_with_existing_rows_is_refused(location: str) -> None:
    log = new_log()
    await write(log, 3)
    async with running(log, location):
        pass
    (loss,) = (await refused(new_log(), location)).losses
    assert (loss.head, loss.known.position) == (0, 3)


async def test_rows_of_other_version_are_kept_for_truncated_log(location: str) -> None:
    log = new_log()
    await write(log, 15)
    async with running(log, location):
        pass
    await refused(shortened(log, 9), location, version=2)
    assert await folded(log)
    async with running(log, location) as projector:
        assert await projector.query(all_notes) == await folded(log)


async def test_recreated_stream_is_refused(nats_address: NatsAddress, location: str) -> None:
    async with open_log(nats_address, TYPES) as log:
        head = await write(log, 10)
        async with running(log, location):
            pass
        await log._js.delete_stream(log._name)
        await log.open()
        (loss,) = (await refused(log, location)).losses
        assert (loss.head, loss.known.position) == (0, head)
        await write(log, head)
        await refused(log, location)


async def test_log_shorter_than_snapshot_is_refused_and_snapshot_kept(location: str, objects: ObjectPlace) -> None:
    log = new_log()
    await write_and_take(log, location, objects, 10)
    lose_rows(location)
    lost = await refused(shortened(log, 4), location, objects)
    assert "snapshot" in lost.losses[0].known.source
    assert positions(objects) == [10]
    assert await applied_at_start(log, location, objects) == []


async def test_snapshot_of_lost_event_is_never_deleted(location: str, objects: ObjectPlace) -> None:
    log = new_log()
    await write_and_take(log, location, objects, 10)
    other = shortened(log, 4)
    lose_rows(location)
    async with running(other, location):  # started without snapshots
        pass
    assert await write_and_take(other, location, objects, 2) == 6
    for _ in range(3):
        await write_and_take(other, location, objects, 1)
    assert positions(objects) == [8, 9, 10]


async def test_rows_behind_log_continue(location: str) -> None:
    log = new_log()
    head = await write(log, 9)
    async with running(log, location):
        pass
    await write(log, 6)
    async with running(log, location, projection := Notes()):
        assert projection.applied == list(range(head + 1, head + 7))


async def test_erased_event_is_not_a_loss(nats_address: NatsAddress, location: str) -> None:
    async with open_log(nats_address, TYPES, erasable=True) as log:
        head = await write(log, 6, streams=2)
        async with running(log, location):
            pass
        last = await log.event_at(head)
        assert last
        await log._js.purge_stream(log._name, subject=f"rf.{log.log}.{last.stream}")
        async with running(log, location) as projector:
            assert projector.position == head


# Losses that are accepted.


async def test_accepted_loss_sets_rows_aside(location: str) -> None:
    log = new_log()
    await write(log, 15)
    async with running(log, location):
        pass
    shorter = shortened(log, 9)
    (loss,) = (await refused(shorter, location)).losses
    number = await accept(shorter)
    database = Database(location)
    aside = Generations(Notes(), database).put_aside(loss.known, number)
    assert aside
    async with running(shorter, location) as projector:
        assert await projector.query(all_notes) == await folded(shorter)
        assert projector.position == 10
    assert position_of_rows_aside(location, aside) == 15
    assert Generations(Notes(), database).put_aside(loss.known, number) is None


def position_of_rows_aside(location: str, name: str) -> int:
    """Return the position of rows that were set aside."""
    if "://" in location:
        with Database(location)._server.connect() as connection:
            return int(connection.exec_driver_sql(f"SELECT position FROM {name}.rf_checkpoint").scalar_one())
    engine = sa.create_engine(f"sqlite:///{location}/{name}.db")
    with engine.connect() as connection:
        position = connection.exec_driver_sql("SELECT position FROM rf_checkpoint").scalar_one()
    engine.dispose()
    return int(position)


async def test_accepted_loss_sets_snapshots_aside(location: str, objects: ObjectPlace) -> None:
    log = new_log()
    await write_and_take(log, location, objects, 10)
    lose_rows(location)
    shorter = shortened(log, 4)
    (loss,) = (await refused(shorter, location, objects)).losses
    (name,) = objects.names(FOLDER)
    content = b"".join(objects.get(name))
    snapshots = Snapshots(Generations(Notes(), Database(location)), objects)
    aside = snapshots.put_aside(loss.known, await accept(shorter))
    assert aside
    assert b"".join(objects.get(aside)) == content
    assert objects.names(FOLDER) == []
    async with running(shorter, location, objects=objects) as projector:
        assert projector.position == 5


async def test_rows_and_snapshots_record_epoch(location: str, objects: ObjectPlace) -> None:
    log = new_log()
    await write(log, 5)
    number = await accept(log)
    head = await write_and_take(log, location, objects, 3)
    (known,) = Database(location).known("notes")
    assert (known.epoch, known.position) == (number, head)
    (snapshot,) = Snapshots(Generations(Notes(), Database(location)), objects).known()
    assert (snapshot.epoch, snapshot.position) == (number, head)
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == []
    (known,) = Database(location).known("notes")
    assert (known.epoch, known.position) == (number, head)


async def test_copy_from_before_epoch_is_refused(location: str) -> None:
    log = new_log()
    await write(log, 9)
    number = await accept(log)
    await write(log, 5)
    async with running(log, location):
        pass
    (loss,) = (await refused(shortened(log, 9), location)).losses
    assert (loss.known.epoch, loss.head, loss.known.position) == (number, 9, 15)


async def test_stores_record_epochs(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        assert log.epochs == (1,)
        await write(log, 2)
        first = await accept(log)
        await log.open()
        second = await accept(log)
        async with open_log(nats_address, TYPES, log.log) as opened:
            assert opened.epochs == (1, first, second)
    memory = new_log()
    assert memory.epochs == (1,)
    assert await accept(memory) == memory.epochs[-1] == (await read_epochs(memory))[-1]


async def test_concurrent_processes_begin_one_epoch(nats_address: NatsAddress) -> None:
    async with open_log(nats_address, TYPES) as log:
        events = [v1.LogEpochBegan(epoch=number) for number in (7, 8)]
        await asyncio.gather(*(begin_epoch(log, event, Metadata("operator")) for event in events))
        assert len(await read_epochs(log)) == 2


def test_epoch_is_its_start_time_and_increases() -> None:
    assert next_epoch([1], 1796063260123) == 1796063260123
    assert next_epoch([1, 1796063260123], 5) == 1796063260124


async def test_tail_ends_when_epoch_begins() -> None:
    log = new_log()
    await write(log, 3)
    async with following(log) as tail:
        await accept(log)
        with pytest.raises(LogRewritten):
            await asyncio.wait_for(tail.failed(), scaled(20))


# Rows from before epochs existed.


async def test_rows_without_epoch_belong_to_first(location: str) -> None:
    log = new_log()
    head = await write(log, 5)
    async with running(log, location) as projector:
        epoch_tables.drop_all(projector.generation._engine)
        before = projector.fingerprint
    (known,) = Database(location).known("notes")
    assert (known.epoch, known.position) == (1, head)
    async with running(log, location, projection := Notes()) as projector:
        assert projector.fingerprint == before
        assert projection.applied == []
        assert await projector.query(all_notes) == await folded(log)


def test_unreadable_rows_have_no_known_position(location: str) -> None:
    database = Database(location)
    rows = database.open("notes", "0123456789", 1, tables)
    with rows.writing() as connection:
        connection.exec_driver_sql("DROP TABLE rf_checkpoint")
    rows.close()
    assert database.known("notes") == []


async def test_loss_is_found_where_event_differs() -> None:
    log = new_log()
    await write(log, 3)
    last = await log.event_at(3)
    assert last
    assert await find_loss(log, known_position(last.id, 3)) is None
    assert await find_loss(log, known_position("another", 3))
    assert await find_loss(log, known_position("another", 0)) is None


def known_position(event_id: str, position: int) -> KnownPosition:
    """Return a position as rows record it."""
    return KnownPosition("rows", 1, position, mark_of(event_id))
