"""What snapshots promise, on SQLite and on PostgreSQL: with them rows are there sooner, and never others."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Never

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore import dumps, snapshots
from eventstore.errors import Rejected, StoreUnavailable
from eventstore.generations import Generations
from eventstore.jetstream import JetStreamStore
from eventstore.keeping import SnapshotKeeper, SnapshotProgress
from eventstore.memory import MemoryStore
from eventstore.projection import Projector
from eventstore.rows import Database
from eventstore.snapshots import Objects, Snapshots
from eventstore.store import EventStore
from services.nats_server import NatsAddress
from services.objects import PART, ObjectPlace, open_objects
from tests.contract.test_projector import TYPES, Notes, all_notes, folded, following, new, write
from tests.servers.nats import open_log
from tests.servers.seaweedfs import SeaweedFS, running_seaweedfs

ROOT = Path(__file__).parents[2]
FOLDER = "snapshots/notes"


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "rows") if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def log(nats_address: NatsAddress) -> AsyncIterator[JetStreamStore]:
    async with open_log(nats_address, TYPES) as store:
        yield store


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "objects")


@pytest.fixture
def objects(place: str) -> ObjectPlace:
    return open_objects(place)


@asynccontextmanager
async def running(
    log: EventStore, location: str, objects: Objects, projection: Notes | None = None
) -> AsyncIterator[Projector]:
    async with following(log) as tail:
        projector = Projector(tail, projection or Notes(), Database(location), objects)
        try:
            await projector.start()
            yield projector
        finally:
            await projector.stop()


def keeper(projector: Projector, interval: float = 0, events: int = 1) -> SnapshotKeeper:
    return SnapshotKeeper(projector, interval, events)


async def take(projector: Projector) -> SnapshotProgress:
    steps = [step async for step in keeper(projector).take()]
    assert [step.done for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].size
    return steps[-1]


async def taken(log: EventStore, location: str, objects: Objects, count: int = 10) -> int:
    """Appends so many events and takes a snapshot; returns its position."""
    await write(log, count)
    head = await log.head()
    async with running(log, location, objects) as projector:
        assert (await take(projector)).position == head
    return head


def lose_rows(location: str) -> None:
    database = Database(location)
    for mark, number in database.generations("notes"):
        database.drop("notes", mark, number)


def left_behind(location: str) -> list[str]:
    """Files that are neither rows nor a lock."""
    if "://" in location:
        return []
    return [
        path.name for path in Path(location).iterdir() if not {".db", ".db-wal", ".db-shm", ".lock"} & {path.suffix}
    ]


async def applied_at_start(log: EventStore, location: str, objects: Objects, version: int = 1) -> list[int]:
    """Which events a start must apply; its rows are those of the log, and equal to a rebuild."""
    projection = Notes(version)
    async with running(log, location, objects, projection) as projector:
        applied = list(projection.applied)
        assert await projector.query(all_notes) == await folded(log)
        assert [step async for step in projector.rebuild()][-1].done
        assert len(Database(location).generations("notes")) == 1
    return applied


def positions(objects: Objects) -> list[int]:
    return sorted(int(name.rpartition("/")[2][:20]) for name in objects.names(FOLDER))


async def test_rows_of_a_snapshot_are_those_of_a_rebuild(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    at = await taken(log, location, objects, 40)
    head = await write(log, 7)
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == list(range(at + 1, head + 1))


async def test_rows_that_are_there_need_no_snapshot(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    at = await taken(log, location, objects)
    async with running(log, location, objects) as projector:
        await projector.wait_for(await write(log, 5))
    assert await applied_at_start(log, location, objects) == []
    assert positions(objects) == [at]


async def test_a_snapshot_of_no_event(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    assert await taken(log, location, objects, 0) == 0
    lose_rows(location)
    head = await write(log, 3)
    assert await applied_at_start(log, location, objects) == list(range(1, head + 1))


# Whatever is wrong with a snapshot, the log has it all.


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _empty(data: bytes) -> bytes:
    return b""


def _other_form(data: bytes) -> bytes:
    pieces = [snapshots._FORM.replace(b"1", b"2"), data[len(snapshots._FORM) : -snapshots._DIGEST_BYTES]]
    return b"".join(snapshots._sealed(pieces))


def _no_rows(data: bytes) -> bytes:
    header = snapshots._read_header(io.BytesIO(data))
    return b"".join(snapshots._sealed(snapshots._encoded(header, [iter([b"nothing"])])))


@pytest.mark.parametrize("damage", [_cut, _flip, _empty, _other_form, _no_rows])
async def test_a_damaged_snapshot_is_passed_over(
    log: JetStreamStore, location: str, objects: ObjectPlace, damage: Callable[[bytes], bytes]
) -> None:
    first = await taken(log, location, objects)
    last = await taken(log, location, objects)
    newest = max(objects.names(FOLDER))
    objects.put(newest, iter([damage(b"".join(objects.get(newest)))]))
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == list(range(first + 1, last + 1))


async def test_snapshots_of_a_tail_that_the_log_lost_are_passed_over(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    first = await taken(log, location, objects, 10)
    await taken(log, location, objects, 10)
    shorter = MemoryStore("words", TYPES)
    shorter._events = log._events[: first + 3]
    assert await applied_at_start(shorter, location, objects) == list(range(first + 1, first + 4))
    head = await write(shorter, 10)  # as far as before, with other events
    lose_rows(location)
    assert await applied_at_start(shorter, location, objects) == list(range(first + 1, head + 1))


async def test_a_snapshot_goes_in_front_of_those_that_are_of_no_use(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    for _ in range(2):
        await taken(log, location, objects, 10)
    other = MemoryStore("words", TYPES)
    at = await taken(other, location, objects, 5)
    assert positions(objects) == [at]
    lose_rows(location)
    assert await applied_at_start(other, location, objects) == []


async def test_rows_of_another_log_make_way_for_those_of_a_snapshot(
    nats_address: NatsAddress, log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    head = await taken(log, location, objects)
    lose_rows(location)
    async with open_log(nats_address, TYPES) as other:
        await write(other, 2 * head)
        async with running(other, location, open_objects(tempfile.mkdtemp())):
            pass
    assert await applied_at_start(log, location, objects) == []


async def test_a_snapshot_of_another_version_is_unfit(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    head = await taken(log, location, objects)
    assert await applied_at_start(log, location, objects, version=2) == list(range(1, head + 1))
    (old,) = objects.names(FOLDER)
    async with running(log, location, objects, Notes(2)) as projector:
        await take(projector)
        (name,) = objects.names(FOLDER)
        assert old != name
        assert projector.fingerprint in name


async def test_the_newest_two_are_kept(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    found = [await taken(log, location, objects, 2) for _ in range(4)]
    assert positions(objects) == found[-2:]


async def test_each_database_has_its_own(
    log: JetStreamStore, postgres_url: str, tmp_path: Path, objects: ObjectPlace
) -> None:
    files = str(tmp_path / "rows")
    for _ in range(2):
        await taken(log, files, objects, 2)
    head = await taken(log, files, objects, 2)
    await taken(log, postgres_url, objects, 0)
    for location in (files, postgres_url):
        lose_rows(location)
        assert await applied_at_start(log, location, objects) == []
    assert positions(objects) == [head - 2, head, head]


# Objects that are slow, out of reach, or counted.


class Gate:
    """Objects that wait in the middle of a snapshot, and say when they are there."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def names(self, under: str) -> list[str]:
        return self.inner.names(under)

    def put(self, name: str, pieces: Iterator[bytes]) -> None:
        self.inner.put(name, self._held(pieces))

    def get(self, name: str) -> Iterator[bytes]:
        return self._held(self.inner.get(name))

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def _held(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for number, piece in enumerate(pieces):
            if number == 0:
                self.reached.set()
                assert self.go_on.wait(30)
            yield piece


async def test_nobody_waits_for_a_snapshot_and_it_is_of_one_moment(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    gate = Gate(objects)
    at = await write(log, 20)
    async with running(log, location, gate) as projector:
        one = keeper(projector)
        steps: list[SnapshotProgress] = []

        async def run() -> None:
            steps.extend([step async for step in one.take()])

        job = asyncio.create_task(run())
        assert await asyncio.to_thread(gate.reached.wait, 30)
        with pytest.raises(Rejected) as refused:
            await anext(one.take())
        assert refused.value.reason == "SNAPSHOT_RUNNING"
        head = await write(log, 30)
        await asyncio.wait_for(projector.wait_for(head), 10)
        assert await projector.query(all_notes) == await folded(log)
        assert not job.done()
        gate.go_on.set()
        await job
        assert steps[-1].done
    lose_rows(location)
    assert positions(objects) == [steps[-1].position]
    assert at <= steps[-1].position <= head
    assert await applied_at_start(log, location, objects) == list(range(steps[-1].position + 1, head + 1))


async def test_a_stop_ends_what_is_under_way(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    gate = Gate(objects)
    await write(log, 20)
    async with running(log, location, gate) as projector:
        one = keeper(projector)
        step = asyncio.create_task(anext(one.take()))
        assert await asyncio.to_thread(gate.reached.wait, 30)
        stopping = asyncio.create_task(one.stop())
        await asyncio.wait([stopping], timeout=0.05)
        gate.go_on.set()
        await stopping
        await asyncio.wait([step])
        step.exception()
    assert objects.names(FOLDER) == []


async def test_a_start_that_is_given_up_leaves_a_restore(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    await taken(log, location, objects)
    lose_rows(location)
    gate = Gate(objects)
    async with following(log) as tail:
        projector = Projector(tail, Notes(), Database(location), gate)
        starting = asyncio.create_task(projector.start())
        assert await asyncio.to_thread(gate.reached.wait, 30)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert projector.snapshots
        projector.snapshots.abandon()
        gate.go_on.set()
        await projector.stop()
    assert Database(location).generations("notes") == []
    assert await applied_at_start(log, location, objects) == []


def _away(*_: object) -> Never:
    raise StoreUnavailable("away", "BLOB_STORE_UNAVAILABLE")


class Away:
    """Objects that are out of reach."""

    names = put = get = delete = staticmethod(_away)


async def test_objects_out_of_reach_keep_nobody_from_starting(log: JetStreamStore, location: str) -> None:
    await write(log, 5)
    async with running(log, location, Away()) as projector:
        assert await projector.query(all_notes) == await folded(log)
        with pytest.raises(StoreUnavailable) as caught:
            await take(projector)
        assert caught.value.reason == "BLOB_STORE_UNAVAILABLE"


class Told:
    """Objects that say what was put."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects
        self.names, self.get, self.delete = objects.names, objects.get, objects.delete
        self.count = 0
        self.more = threading.Condition()

    def put(self, name: str, pieces: Iterator[bytes]) -> None:
        self.inner.put(name, pieces)
        with self.more:
            self.count += 1
            self.more.notify_all()

    def wait_for(self, count: int) -> None:
        with self.more:
            assert self.more.wait_for(lambda: self.count >= count, 30)


async def test_snapshots_are_taken_as_the_log_grows(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    told = Told(objects)
    async with running(log, location, told) as projector:
        one = keeper(projector, 0.01, events=20)
        await one.start()
        await projector.wait_for(await write(log, 19))
        assert not one._has_grown()
        for number in (1, 2, 3):
            await projector.wait_for(await write(log, 25))
            await asyncio.to_thread(told.wait_for, number)
        await one.stop()
    found = positions(objects)
    assert len(found) == 2
    assert found[1] - found[0] >= 20


async def test_a_log_that_is_long_must_grow_more(log: JetStreamStore, tmp_path: Path, objects: ObjectPlace) -> None:
    async with running(log, str(tmp_path / "rows"), objects) as projector:
        one = keeper(projector, events=2)
        await projector.wait_for(await write(log, 100))
        assert [step async for step in one.take()][-1].position == 100
        await projector.wait_for(await write(log, 9))
        assert not await one._is_due()
        await projector.wait_for(await write(log, 1))
        assert await one._is_due()
        assert [step async for step in keeper(projector).take()][-1].position == 110  # as another process would
        assert one._has_grown()
        assert not await one._is_due()


# Several processes, and the end of one.


@asynccontextmanager
async def process(
    address: NatsAddress, log: JetStreamStore, location: str, place: str, job: str, dies_at: int = 0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process: it starts, takes a snapshot if that is its job, and goes on until its standard input ends."""
    say = {"url": address.url, "user": address.user, "password": address.password, "log": log.log, "rows": location}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from tests.contract.test_snapshots import main; main()",
        cwd=ROOT,
        env=os.environ | {"SNAPSHOTS": json.dumps(say | {"place": place, "job": job, "dies_at": str(dies_at)})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield child
    finally:
        assert child.stdin
        child.stdin.close()
        await child.wait()


def main() -> None:
    """What `process` runs."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_main(json.loads(os.environ["SNAPSHOTS"])))


def _die_at(piece: int) -> None:
    """Has this process killed at so many pieces of a snapshot; there are many."""
    dumps.BLOCK = 512
    going_on, left = Snapshots._going_on, [piece]

    def counted(self: Snapshots, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for one in going_on(self, pieces):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield one

    Snapshots._going_on = counted  # type: ignore[assignment,method-assign]


async def _main(say: Mapping[str, str]) -> None:
    if dies_at := int(say["dies_at"]):
        _die_at(dies_at)
    address = NatsAddress(say["url"], say["user"], say["password"], "", "")
    objects = open_objects(say["place"])
    async with open_log(address, TYPES, say["log"]) as log, running(log, say["rows"], objects) as projector:
        if say["job"] == "take":
            await take(projector)
        print("started", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await projector.wait_for(await log.head())
        assert await projector.query(all_notes) == await folded(log)
        print("done", flush=True)


@pytest.mark.parametrize("dies_at", [1, 3, 9])
async def test_a_process_is_killed_while_it_takes_one(
    nats_address: NatsAddress, log: JetStreamStore, location: str, place: str, objects: ObjectPlace, dies_at: int
) -> None:
    first = await taken(log, location, objects, 100)
    head = await write(log, 5)
    async with process(nats_address, log, location, place, "take", dies_at) as child:
        assert await child.wait() == -signal.SIGKILL
    assert positions(objects) == [first]
    assert left_behind(location) == []
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == list(range(first + 1, head + 1))


@pytest.mark.parametrize("dies_at", [1, 2, 3, 6, 9])
async def test_a_process_is_killed_while_it_restores_one(
    nats_address: NatsAddress,
    log: JetStreamStore,
    location: str,
    place: str,
    objects: ObjectPlace,
    dies_at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dumps, "BLOCK", 512)
    head = await taken(log, location, objects, 100)
    lose_rows(location)
    async with process(nats_address, log, location, place, "", dies_at) as child:
        assert await child.wait() == -signal.SIGKILL
    assert await applied_at_start(log, location, objects) == []
    assert positions(objects) == [head]
    assert left_behind(location) == []


async def test_of_several_processes_one_restores(
    nats_address: NatsAddress, log: JetStreamStore, location: str, place: str, objects: ObjectPlace
) -> None:
    at = await taken(log, location, objects, 50)
    lose_rows(location)
    one = Notes()
    async with (
        process(nats_address, log, location, place, "") as first,
        process(nats_address, log, location, place, "") as second,
        running(log, location, objects, one) as projector,
    ):
        for child in (first, second):
            assert child.stdout
            assert await child.stdout.readline() == b"started\n"
        head = await write(log, 50)
        await projector.wait_for(head)
        assert min(one.applied, default=at + 1) > at
        assert len(Database(location).generations("notes")) == 1
        for child in (first, second):
            assert child.stdin
            assert child.stdout
            child.stdin.close()
            assert await child.stdout.readline() == b"done\n"
            assert await child.wait() == 0
        assert await projector.query(all_notes) == await folded(log)


async def test_several_processes_may_take_one_at_once(
    nats_address: NatsAddress, log: JetStreamStore, location: str, place: str, objects: ObjectPlace
) -> None:
    head = await write(log, 50)
    async with (
        process(nats_address, log, location, place, "take") as first,
        process(nats_address, log, location, place, "take") as second,
    ):
        for child in (first, second):
            assert child.stdout
            assert await child.stdout.readline() == b"started\n"
    assert positions(objects) == [head]
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == []


# Every type of column, every place.


everything = sa.MetaData()
things = sa.Table(
    "things",
    everything,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.Text),
    sa.Column("values", sa.LargeBinary),
    sa.Column("double", sa.Double),
    sa.Column("small", sa.Integer),
    sa.Column("flag", sa.Boolean),
    sa.Column("json", sa.JSON),
    sa.Index("things_by_double", "double"),
)


class Things(Notes):
    name = "notes"
    tables = everything


def _things() -> list[dict[str, object]]:
    values: list[dict[str, object]] = [
        {"text": "", "values": b"", "double": 0.0, "small": 0, "flag": False, "json": {}},
        {"text": "é\n\\N\t\U0001f600", "values": bytes(range(256)) * 9000, "double": float("inf")},
        {"text": "x" * 3_000_000, "double": -0.1, "small": -(2**31), "flag": True, "json": {"a": [1, None, "é"]}},
        {"double": float("-inf"), "small": 2**31 - 1},
    ]
    empty: dict[str, object] = dict.fromkeys(("text", "values", "double", "small", "flag"))
    return [{"id": number - 2**62, **empty, "json": None, **value} for number, value in enumerate(values)]


def test_every_type_of_column_comes_back(location: str, objects: ObjectPlace) -> None:
    generations = Generations(Things(), Database(location))
    kept = Snapshots(generations, objects)
    rows = generations.fresh()
    with rows.writing() as connection:
        for thing in _things():
            connection.execute(sa.insert(things), thing)
    before = rows.digest()
    with rows.transaction() as connection:
        snapshot = kept.take(connection, lambda _size: None)
    generations.discard(rows)
    back = kept.restore(snapshot)
    assert back.digest() == before
    with back.transaction() as connection:
        assert {index["name"] for index in sa.inspect(connection).get_indexes("things")} == {"things_by_double"}
    back.close()


def test_packed_bytes_are_left_as_they_are(postgres_url: str) -> None:
    rows = Generations(Things(), Database(postgres_url)).fresh()
    with rows.transaction() as connection:
        storage = "SELECT attname FROM pg_attribute WHERE attrelid = 'things'::regclass AND attstorage = 'e'"
        assert connection.scalars(sa.text(storage)).all() == ["values"]
    rows.close()


def test_an_index_is_there_again(location: str, objects: ObjectPlace) -> None:
    generations = Generations(Notes(), Database(location))
    rows = generations.fresh()
    with rows.transaction() as connection:
        before = sorted(str(index["name"]) for index in sa.inspect(connection).get_indexes("rf_events"))
        snapshot = Snapshots(generations, objects).take(connection, lambda _size: None)
    generations.discard(rows)
    back = Snapshots(generations, objects).restore(snapshot)
    with back.transaction() as connection:
        assert sorted(str(index["name"]) for index in sa.inspect(connection).get_indexes("rf_events")) == before
    back.close()


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[SeaweedFS]:
    with running_seaweedfs() as server:
        yield server


@pytest.fixture(params=["directory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectPlace:
    if request.param == "directory":
        return open_objects(str(tmp_path / "objects"))
    server: SeaweedFS = request.getfixturevalue("seaweedfs")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return open_objects(f"s3://{server.bucket}/{uuid.uuid4().hex}")


def _pieces(size: int, fails_at: int = -1) -> Iterator[bytes]:
    for at in range(0, size, 1_000_000):
        if at // 1_000_000 == fails_at:
            raise ArithmeticError("no more")
        yield bytes([at % 251]) * min(1_000_000, size - at)


@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART + 1])
def test_an_object_comes_back_as_it_was_put(anywhere: ObjectPlace, size: int) -> None:
    anywhere.put("snapshots/a/b", iter([b"something else"]))
    anywhere.put("snapshots/a/b", _pieces(size))
    assert b"".join(anywhere.get("snapshots/a/b")) == b"".join(_pieces(size))


def test_objects_are_listed_and_dropped(anywhere: ObjectPlace) -> None:
    for name in ("snapshots/a/b/1", "snapshots/a/2", "snapshots/ab/3"):
        anywhere.put(name, iter([b"x"]))
    assert sorted(anywhere.names("snapshots/a")) == ["snapshots/a/2", "snapshots/a/b/1"]
    for _ in range(2):
        anywhere.delete("snapshots/a/2")
    assert anywhere.names("snapshots/a") == ["snapshots/a/b/1"]
    assert anywhere.names("nothing") == []
    with pytest.raises(LookupError):
        next(anywhere.get("snapshots/a/2"))


@pytest.mark.parametrize("fails_at", [0, 1, 18])
def test_an_object_is_there_whole_or_not_at_all(anywhere: ObjectPlace, fails_at: int) -> None:
    with pytest.raises(ArithmeticError):
        anywhere.put("snapshots/a", _pieces(20_000_000, fails_at))
    assert anywhere.names("snapshots") == []
    assert anywhere.names("") == []


def test_unfinished_files_are_removed_once_they_are_old(tmp_path: Path) -> None:
    home = tmp_path / "snapshots/notes/0123456789"
    home.mkdir(parents=True)
    for name, age in (("a#1", 0), ("b#1", 90_000), ("c", 90_000)):
        (home / name).touch()
        written = (home / name).stat().st_mtime - age
        os.utime(home / name, (written, written))
    assert open_objects(str(tmp_path)).names("snapshots/notes") == ["snapshots/notes/0123456789/c"]
    assert sorted(path.name for path in home.iterdir()) == ["a#1", "c"]


async def test_a_place_that_cannot_be_used_keeps_nobody_from_starting(log: JetStreamStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await write(log, 5)
    async with running(log, str(tmp_path / "rows"), open_objects(str(tmp_path / "file"))) as projector:
        assert await projector.query(all_notes) == await folded(log)
        with pytest.raises(StoreUnavailable) as caught:
            await take(projector)
        assert caught.value.reason == "BLOB_STORE_UNAVAILABLE"


def test_objects_live_in_a_directory_or_in_a_bucket() -> None:
    with pytest.raises(ValueError):
        open_objects("gs://bucket/prefix")


# Whatever happens in whatever order, the rows are what the log says.


class Machine:
    """A log that loses its tail, rows that are lost, snapshots that are taken and damaged."""

    def __init__(self, home: str) -> None:
        self.rows = f"{home}/rows"
        self.objects = open_objects(f"{home}/objects")
        self.log = MemoryStore("model", TYPES)
        self.version = 1

    async def append(self, streams: list[int]) -> None:
        await self.log.append([new(f"s{stream}", str(stream)) for stream in streams])

    async def lose_tail(self, count: int) -> None:
        kept = self.log._events[: max(len(self.log._events) - count, 0)]
        while kept and not kept[-1].closes_append:
            kept.pop()
        self.log = MemoryStore("model", TYPES)
        self.log._events = kept

    async def lose_rows(self) -> None:
        lose_rows(self.rows)

    async def damage(self, which: int) -> None:
        if names := self.objects.names(FOLDER):
            name = names[which % len(names)]
            self.objects.put(name, iter([_flip(b"".join(self.objects.get(name)))]))

    async def upgrade(self) -> None:
        self.version += 1

    async def run(self, snapshot: bool) -> None:
        async with running(self.log, self.rows, self.objects, Notes(self.version)) as projector:
            assert await projector.query(all_notes) == await folded(self.log)
            if snapshot:
                await take(projector)
                assert 1 <= len(self.objects.names(FOLDER)) <= snapshots.KEPT


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.integers(0, 3), min_size=1, max_size=4)),
        st.tuples(st.just("run"), st.booleans()),
        st.tuples(st.just("lose_tail"), st.integers(1, 5)),
        st.tuples(st.just("damage"), st.integers(0, 1)),
        st.tuples(st.sampled_from(["lose_rows", "upgrade"])),
    ),
    max_size=16,
)


@settings(max_examples=25, deadline=None)
@given(steps)
def test_whatever_happens_the_rows_are_what_the_log_says(taken: list[tuple[str, object]]) -> None:
    async def run(home: str) -> None:
        machine = Machine(home)
        for name, *arguments in taken:
            await getattr(machine, name)(*arguments)
        await machine.run(snapshot=True)
        await machine.lose_rows()
        await machine.run(snapshot=False)

    with tempfile.TemporaryDirectory() as home:
        asyncio.run(run(home))
