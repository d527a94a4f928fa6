"""What snapshots promise, on SQLite and on PostgreSQL: with them rows are there sooner, and never others."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.projections.snapshots import store
from services.artifacts.objects import ObjectPlace
from tests.contract.projections.kept import FOLDER, applied_at_start, flipped, positions, take, taken
from tests.contract.projections.notes import Notes, all_notes, folded, lose_rows, running, write
from tests.contract.store.events import TYPES


async def test_rows_of_a_snapshot_are_those_of_a_rebuild(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    at = await taken(log, location, objects, 40)
    head = await write(log, 7)
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == list(range(at + 1, head + 1))


async def test_rows_that_are_there_need_no_snapshot(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    at = await taken(log, location, objects)
    async with running(log, location, objects=objects) as projector:
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


def _empty(data: bytes) -> bytes:
    return b""


def _other_form(data: bytes) -> bytes:
    pieces = [store._FORM.replace(b"2", b"9"), data[len(store._FORM) : -store._DIGEST_BYTES]]
    return b"".join(store._sealed(pieces))


def _no_rows(data: bytes) -> bytes:
    header = store._read_header(io.BytesIO(data))
    return b"".join(store._sealed(store._encoded(header, [iter([b"nothing"])])))


def _no_parts(data: bytes) -> bytes:
    return b"".join(store._sealed(store._encoded(store._read_header(io.BytesIO(data)), [])))


def _no_header(data: bytes) -> bytes:
    return b"".join(store._sealed([store._FORM, store._frame(b"")]))


def _more_in_the_header(data: bytes) -> bytes:
    header = json.dumps(asdict(store._read_header(io.BytesIO(data))) | {"more": 1})
    return b"".join(store._sealed([store._FORM, store._frame(header.encode())]))


def _not_packed(data: bytes) -> bytes:
    pieces = list(store._encoded(store._read_header(io.BytesIO(data)), []))
    return b"".join(store._sealed([*pieces, (7).to_bytes(4, "big"), b"nothing"]))


DAMAGES: list[Callable[[bytes], bytes]] = [
    *(_cut, flipped, _empty),
    # With a digest that is right.
    *(_other_form, _no_rows, _no_parts, _no_header, _more_in_the_header, _not_packed),
]


async def test_a_damaged_snapshot_is_passed_over(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    first = await taken(log, location, objects)
    last = await taken(log, location, objects)
    newest = max(objects.names(FOLDER))
    sound = b"".join(objects.get(newest))
    for damage in DAMAGES:
        objects.put(newest, iter([damage(sound)]))
        lose_rows(location)
        projection = Notes()
        async with running(log, location, projection, objects) as projector:
            assert projection.applied == list(range(first + 1, last + 1))
            assert await projector.query(all_notes) == await folded(log)


async def test_a_snapshot_of_the_form_before_this_one_is_used(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    await taken(log, location, objects)
    (name,) = objects.names(FOLDER)
    file = io.BytesIO(b"".join(objects.get(name)))
    pieces = [b"rollforward snapshot 1\n", zlib_frame(json.dumps(asdict(store._read_header(file))).encode())]
    file.seek(0)
    for part in store._parts(file):
        pieces += [*map(zlib_frame, part), bytes(4)]
    objects.put(name, store._sealed(pieces))
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == []


def zlib_frame(block: bytes) -> bytes:
    packed = zlib.compress(block, 1)
    return len(packed).to_bytes(4, "big") + packed


async def test_a_snapshot_of_another_version_is_unfit(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    head = await taken(log, location, objects)
    assert await applied_at_start(log, location, objects, version=2) == list(range(1, head + 1))
    (old,) = objects.names(FOLDER)
    async with running(log, location, Notes(2), objects) as projector:
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
