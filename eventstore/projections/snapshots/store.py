"""Snapshots: the rows of a projection at one position, kept outside its database, so that a start is quick.

A snapshot is one object, `snapshots/<projection>/<fingerprint>/<position>-<mark>.<database>`; the mark is of the event
at the position. After the first epoch of the log its number follows the mark: `<position>-<mark>-<epoch>`. In it stand
what it is of, in JSON, and the parts of a dump, all in compressed frames with a length before each, an empty one at the
end of each part, and last the sha256 of everything before.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Protocol

import sqlalchemy as sa

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from eventstore.epochs import FIRST_EPOCH, mark_of
from eventstore.event import KnownPosition
from eventstore.projections.generation import Generation
from eventstore.projections.generations import Generations
from eventstore.projections.snapshots.dump import BLOCK, Part, blocks, dump
from eventstore.projections.tables import checkpoint, epoch
from eventstore.store import EventStore

KEPT = 2
"""How many snapshots of a projection are kept."""

_FORMS: dict[bytes, Callable[[bytes], bytes]] = {
    b"rollforward snapshot 1\n": zlib.decompress,
    b"rollforward snapshot 2\n": zstd.decompress,
}
"""The first bytes of each form, and how its frames are decompressed; the last form is written."""

_FORM = list(_FORMS)[-1]
_LEVEL = 1  # of compression: more of it takes longer and gains nothing
_DIGEST_BYTES = 32
_NAME = re.compile(r"(\d{20})-([0-9a-f]{16})(?:-(\d+))?\.(sqlite|postgresql)")


class Objects(Protocol):
    """Where named bytes are kept. Every call blocks, and raises `StoreUnavailable` when the place is out of reach."""

    def names(self, under: str) -> list[str]:
        """Return the names that begin with `under` and a slash."""
        ...

    def put(self, name: str, pieces: Iterator[bytes]) -> None:
        """Store bytes under a name, in place of what was there: all of them, or, if an iteration fails, none."""
        ...

    def get(self, name: str) -> Iterator[bytes]:
        """Yield the bytes under a name. Raises `LookupError` when there are none."""
        ...

    def delete(self, name: str) -> None:
        """Delete the bytes under a name, if there are any."""
        ...


class SnapshotUnusable(Exception):
    """A snapshot is damaged, of another form or of other rows, or is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is kept: of the log up to `position`, where the event has this `mark`, in an `epoch`."""

    name: str
    position: int
    mark: str
    epoch: int = FIRST_EPOCH


@dataclass(frozen=True, slots=True)
class _Header:
    projection: str
    fingerprint: str
    position: int
    event_id: str
    time: int
    epoch: int = FIRST_EPOCH


class Snapshots:
    """The snapshots of one projection that its database can take in. Every call blocks.

    Args:
        generations: Those of the projection.
        objects: Where the snapshots are kept.
    """

    def __init__(self, generations: Generations, objects: Objects) -> None:
        self._generations = generations
        self._objects = objects
        self._home = f"snapshots/{generations.name}"
        self._folder = f"{self._home}/{generations.fingerprint}"
        self._abandoned = threading.Event()

    def abandon(self) -> None:
        """Make all current and later work raise `SnapshotUnusable` soon."""
        self._abandoned.set()

    def kept(self) -> list[Snapshot]:
        """Return the existing snapshots, newest first."""
        snapshots = [
            snapshot for snapshot in self._named(self._folder) if snapshot.name.endswith(self._generations.kind)
        ]
        return sorted(snapshots, key=lambda snapshot: (snapshot.position, snapshot.mark), reverse=True)

    def known(self) -> list[KnownPosition]:
        """Return what the snapshots of all versions of the projection, for every database, know of the log."""
        return [
            KnownPosition(f"snapshot {kept.name}", kept.epoch, kept.position, kept.mark)
            for kept in self._named(self._home)
        ]

    def put_aside(self, lost: KnownPosition, number: int) -> str | None:
        """Keep a lost snapshot under another name, which is returned; None when it is there no more."""
        if lost not in self.known():
            return None
        name = lost.source.removeprefix("snapshot ")
        aside = f"lost/{number}/{name}"
        with tempfile.TemporaryFile() as file:  # a place cannot be read from while it is written to
            file.writelines(self._objects.get(name))
            file.seek(0)
            self._objects.put(aside, iter(lambda: file.read(BLOCK), b""))
        self._objects.delete(name)
        return aside

    def _named(self, folder: str) -> list[Snapshot]:
        return [
            Snapshot(name, int(match[1]), match[2], int(match[3] or FIRST_EPOCH))
            for name in self._objects.names(folder)
            if (match := _NAME.fullmatch(name.rpartition("/")[2]))
        ]

    def take(self, connection: sa.Connection, progress: Callable[[int], None]) -> Snapshot:
        """Store what a transaction sees.

        Args:
            connection: A transaction in which nothing was read yet.
            progress: Called after each block with the number of bytes stored.
        """
        at = connection.execute(sa.select(checkpoint)).one()
        began = connection.scalar(sa.select(epoch.c.epoch)) or FIRST_EPOCH
        name, fingerprint = self._generations.name, self._generations.fingerprint
        header = _Header(name, fingerprint, at.position, at.event_id, at.time, began)
        mark = mark_of(at.event_id)
        place = f"{self._folder}/{at.position:020}-{mark}{f'-{began}' if began != FIRST_EPOCH else ''}"
        taken = Snapshot(f"{place}.{self._generations.kind}", at.position, mark, began)
        pieces = _sealed(_encoded(header, dump(connection, self._generations.tables)))
        self._objects.put(taken.name, self._counted(pieces, progress))
        return taken

    def forget(self, useless: Collection[str], kept: Collection[str]) -> None:
        """Drop snapshots by name, and those of other versions of the projection, but none that is to be kept."""
        others = [name for name in self._objects.names(self._home) if not name.startswith(f"{self._folder}/")]
        for name in {*others, *useless}.difference(kept):
            self._objects.delete(name)

    def restore(self, snapshot: Snapshot) -> Generation:
        """Create a live generation from a snapshot, whose digest is verified before the database sees it.

        Raises:
            SnapshotUnusable, LookupError, OSError, sa.exc.DBAPIError: There is something wrong with it.
            StoreUnavailable: It is out of reach.
        """
        # The file has no name, so that not even a crash leaves it behind.
        with tempfile.TemporaryFile() as file:
            self._fetch(snapshot, file)
            try:
                rows = self._filled(file)
            except (ValueError, TypeError, zlib.error, zstd.ZstdError) as error:
                raise SnapshotUnusable(f"cannot read {snapshot.name}: {error}") from error
        at = rows.checkpoint()
        if (at.position, mark_of(at.event_id), at.live) != (snapshot.position, snapshot.mark, True):
            self._generations.discard(rows)
            raise SnapshotUnusable(f"{snapshot.name} has rows of position {at.position}: expected {snapshot.position}")
        return rows

    def _filled(self, file: IO[bytes]) -> Generation:
        header = _read_header(file)
        if (header.projection, header.fingerprint) != (self._generations.name, self._generations.fingerprint):
            raise SnapshotUnusable(f"it is of {header.projection} {header.fingerprint}")
        parts = (self._going_on(part) for part in _parts(file))
        return self._generations.filled(parts, header.position, header.event_id, header.time, header.epoch)

    def _fetch(self, snapshot: Snapshot, file: IO[bytes]) -> None:
        digest, last = hashlib.sha256(), b""
        for piece in self._going_on(self._objects.get(snapshot.name)):
            file.write(piece)
            known = last + piece
            digest.update(memoryview(known)[:-_DIGEST_BYTES])
            last = known[-_DIGEST_BYTES:]
        if digest.digest() != last:
            raise SnapshotUnusable(f"{snapshot.name} is damaged")
        file.seek(0)

    def _counted(self, pieces: Iterable[bytes], progress: Callable[[int], None]) -> Iterator[bytes]:
        size = 0
        for piece in self._going_on(pieces):
            yield piece
            size += len(piece)
            progress(size)

    def _going_on(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._abandoned.is_set():
                raise SnapshotUnusable("the process is stopping")
            yield piece


async def is_marked(store: EventStore, position: int, mark: str) -> bool:
    """Return whether the log has the event of a mark; position 0 is before the first event."""
    if not position:
        return True
    event = await store.event_at(position)
    return event is not None and mark_of(event.id) == mark


def _encoded(header: _Header, parts: Iterable[Part]) -> Iterator[bytes]:
    yield _FORM
    yield _frame(json.dumps(asdict(header)).encode())
    for part in parts:
        for block in blocks(part):
            yield _frame(block)
        yield _frame(b"")


def _sealed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    yield digest.digest()


def _frame(block: bytes) -> bytes:
    packed = zstd.compress(block, _LEVEL) if block else b""
    return len(packed).to_bytes(4, "big") + packed


def _read_header(file: IO[bytes]) -> _Header:
    return _Header(**json.loads(next(_frames(file, _decompressor(file)), b"")))


def _decompressor(file: IO[bytes]) -> Callable[[bytes], bytes]:
    """Read which form a snapshot has, and return what decompresses its frames."""
    if not (decompress := _FORMS.get(file.read(len(_FORM)))):
        raise SnapshotUnusable("unknown format")
    return decompress


def _parts(file: IO[bytes]) -> Iterator[Part]:
    end = file.seek(-_DIGEST_BYTES, 2)
    file.seek(0)
    decompress = _decompressor(file)
    next(_frames(file, decompress))
    while file.tell() < end:
        yield _frames(file, decompress)


def _frames(file: IO[bytes], decompress: Callable[[bytes], bytes]) -> Iterator[bytes]:
    while size := int.from_bytes(file.read(4), "big"):
        yield decompress(file.read(size))
