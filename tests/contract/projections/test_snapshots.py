"""The contract of snapshots, on SQLite and on PostgreSQL: they speed up a start and never change its rows."""

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
from tests.contract.projections.notes import Notes, all_notes, folded, lose_rows, running, write
from tests.contract.projections.snapshots import FOLDER, applied_at_start, flipped, positions, take, write_and_take
from tests.contract.store.events import TYPES


async def test_restored_rows_equal_rebuilt_rows(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    at = await write_and_take(log, location, objects, 40)
    head = await write(log, 7)
    lose_rows(location)
    assert await applied_at_start(log, location, objects) == list(range(at + 1, head + 1))


async def test_existing_rows_are_not_restored(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    at = await write_and_take(log, location, objects)
    async with running(log, location, objects=objects) as projector:
        await projector.wait_for(await write(log, 5))
    assert await applied_at_start(log, location, objects) == []
    assert positions(objects) == [at]


async def test_snapshot_of_empty_log_is_restored(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    assert await write_and_take(log, location, objects, 0) == 0
    lose_rows(location)
    head = await write(log, 3)
    assert await applied_at_start(log, location, objects) == list(range(1, head + 1))


# Damaged snapshots; the log has all their events.


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _make_empty(data: bytes) -> bytes:
    return b""


def _change_format(data: bytes) -> bytes:
    pieces = [store._FORM.replace(b"2", b"9"), data[len(store._FORM) : -store._DIGEST_BYTES]]
    return b"".join(store._sealed(pieces))


def _replace_rows(data: bytes) -> bytes:
    header = store._read_header(io.BytesIO(data))
    return b"".join(store._sealed(store._encoded(header, [iter([b"nothing"])])))


def _drop_parts(data: bytes) -> bytes:
    return b"".join(store._sealed(store._encoded(store._read_header(io.BytesIO(data)), [])))


def _drop_header(data: bytes) -> bytes:
    return b"".join(store._sealed([store._FORM, store._frame(b"")]))


def _extend_header(data: bytes) -> bytes:
    header = json.dumps(asdict(store._read_header(io.BytesIO(data))) | {"more": 1})
    return b"".join(store._sealed([store._FORM, store._frame(header.encode())]))


def _add_unpacked_block(data: bytes) -> bytes:
    pieces = list(store._encoded(store._read_header(io.BytesIO(data)), []))
    return b"".join(store._sealed([*pieces, (7).to_bytes(4, "big"), b"nothing"]))


DAMAGES: list[Callable[[bytes], bytes]] = [
    *(_cut, flipped, _make_empty),
    # With a valid digest.
    *(_change_format, _replace_rows, _drop_parts, _drop_header, _extend_header, _add_unpacked_block),
]


async def test_damaged_snapshot_is_skipped(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    first = await write_and_take(log, location, objects)
    last = await write_and_take(log, location, objects)
    newest = max(objects.names(FOLDER))
    content = b"".join(objects.get(newest))
    for damage in DAMAGES:
        objects.put(newest, iter([damage(content)]))
        lose_rows(location)
        projection = Notes()
        async with running(log, location, projection, objects) as projector:
            assert projection.applied == list(range(first + 1, last + 1))
            assert await projector.query(all_notes) == await folded(log)


async def test_snapshot_of_former_format_is_restored(location: str, objects: ObjectPlace) -> None:
    log = MemoryStore("words", TYPES)
    await write_and_take(log, location, objects)
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


async def test_snapshot_of_other_version_is_not_restored(
    log: JetStreamStore, location: str, objects: ObjectPlace
) -> None:
    head = await write_and_take(log, location, objects)
    assert await applied_at_start(log, location, objects, version=2) == list(range(1, head + 1))
    (old,) = objects.names(FOLDER)
    async with running(log, location, Notes(2), objects) as projector:
        await take(projector)
        (name,) = objects.names(FOLDER)
        assert old != name
        assert projector.fingerprint in name


async def test_newest_two_snapshots_are_kept(log: JetStreamStore, location: str, objects: ObjectPlace) -> None:
    taken_positions = [await write_and_take(log, location, objects, 2) for _ in range(4)]
    assert positions(objects) == taken_positions[-2:]


async def test_databases_have_their_own_snapshots(
    log: JetStreamStore, postgres_url: str, tmp_path: Path, objects: ObjectPlace
) -> None:
    files = str(tmp_path / "rows")
    for _ in range(2):
        await write_and_take(log, files, objects, 2)
    head = await write_and_take(log, files, objects, 2)
    await write_and_take(log, postgres_url, objects, 0)
    for location in (files, postgres_url):
        lose_rows(location)
        assert await applied_at_start(log, location, objects) == []
    assert positions(objects) == [head - 2, head, head]
