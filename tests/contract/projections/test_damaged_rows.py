"""Rows that are damaged, deleted or replaced, at rest or while in use, are rebuilt."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventstore.errors import StoreUnavailable
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from tests.contract.projections.notes import all_notes, folded, notes, rebuilt, running, write
from tests.contract.store.events import TYPES

SECONDS = 20


def _overwrite(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _overwrite_middle(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 4096 // 2 * 4096)


def _write_text(path: Path) -> None:
    path.write_text("this is no database\n" * 1000)


def _make_empty(path: Path) -> None:
    path.write_bytes(b"")


def _make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("x")


def _forbid(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read and write everything")
    path.chmod(0)


def _make_wal_directory(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink(missing_ok=True)
    path.with_name(f"{path.name}-wal").mkdir()


def _delete(path: Path) -> None:
    path.unlink()


def _replace(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.rename(path)


AT_REST = [
    _overwrite,
    _overwrite_middle,
    _cut,
    _write_text,
    _make_empty,
    _make_directory,
    _forbid,
    _make_wal_directory,
    _delete,
]


def file_of(location: Path) -> Path:
    (path,) = location.glob("rf_notes_*.db")
    return path


@pytest.mark.parametrize("damage", AT_REST)
async def test_file_damaged_at_rest_is_set_aside(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    log = MemoryStore("damaged", TYPES)
    await write(log, 500)
    async with running(log, str(tmp_path)):
        pass
    path = file_of(tmp_path)
    damage(path)
    async with asyncio.timeout(SECONDS), running(log, str(tmp_path)) as projector:
        assert await projector.query(all_notes) == await folded(log)
        assert projector.failure is None
        await write(log, 1)
        await projector.wait_for(await log.head())
        assert (await rebuilt(projector)).done
    if damage not in {_delete, _make_empty}:
        assert path.with_name(f"{path.name}.damaged").exists()


@pytest.mark.parametrize(
    "damage", [_overwrite, _overwrite_middle, _cut, _write_text, _make_directory, _delete, _replace]
)
async def test_file_damaged_while_in_use_is_rebuilt(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    log = MemoryStore("damaged", TYPES)
    await write(log, 500)
    async with asyncio.timeout(SECONDS), running(log, str(tmp_path)) as projector:
        with projector.generation._engine.connect() as rows:
            rows.exec_driver_sql("COMMIT")
            rows.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        projector.generation._engine.dispose()  # SQLite's cache would hide the damage
        damage(file_of(tmp_path))
        await _wait_until_rebuilt(projector, log)
        await write(log, 3)
        await projector.wait_for(await log.head())
        assert await projector.query(all_notes) == await folded(log)
        assert (await rebuilt(projector)).done


async def _wait_until_rebuilt(projector: Projector, log: MemoryStore) -> None:
    """Wait until the rows are rebuilt; until then, only unavailability may be raised."""
    before, reasons = projector.generation, set[str]()
    while projector.generation is before:
        try:
            await projector.check()
            await projector.query(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(notes)))
            await projector.query(all_notes)
            await write(log, 1)
            await projector.wait_for(await log.head())
        except StoreUnavailable as error:
            reasons.add(error.reason)
        await asyncio.sleep(0)
    assert reasons <= {"DATABASE_UNAVAILABLE", "PROJECTION_BEHIND"}
    await projector.wait_for(await log.head())


@pytest.mark.parametrize("statement", ["DROP SCHEMA {} CASCADE", "DROP TABLE {}.notes", "DROP TABLE {}.rf_checkpoint"])
async def test_dropped_tables_are_rebuilt(location: str, statement: str) -> None:
    if "://" not in location:
        pytest.skip("SQLite keeps files")
    log = MemoryStore("dropped", TYPES)
    await write(log, 20)
    async with asyncio.timeout(SECONDS), running(log, location) as projector:
        with Database(location)._server.begin() as connection:
            connection.exec_driver_sql(statement.format(projector.generation.label))
        await _wait_until_rebuilt(projector, log)
        assert await projector.query(all_notes) == await folded(log)
    async with running(log, location) as projector:
        assert await projector.query(all_notes) == await folded(log)
