"""Garbage collection: sets aside blobs that nothing uses, and removes blobs that were set aside long enough ago.

That no race can lose a blob is argued in docs/adr/0018-two-phase-garbage-collection.md, with these names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from eventstore import Kind, Rejected
from rollforward import v1
from services.artifacts import manifests
from services.artifacts.store import BlobStore, Entry, Turn

A_DAY = 24 * 60 * 60
MAX_AGE_SECONDS = 10 * 365 * A_DAY

_STEP = 60 * 60  # seconds that setting one blob aside may take, at most
_AT_ONCE = 32

_T = TypeVar("_T")

Named = Callable[[], Awaitable[AbstractSet[str]]]
"""The digests of all artifacts that are named at a moment after the call began."""


@dataclass(slots=True)
class Marks:
    """Digests to keep: `live` ones in place, and those `mentioned` by an unused manifest at least set aside."""

    live: set[str] = field(default_factory=set)
    mentioned: set[str] = field(default_factory=set)


class Collector:
    """The garbage collector of a store.

    Args:
        blobs: The store.
        named: What is named.
    """

    def __init__(self, blobs: BlobStore, named: Named) -> None:
        self._blobs = blobs
        self._manifests = manifests.within(blobs)
        self._named = named

    async def collect(
        self, min_age: float = A_DAY, *, dry_run: bool = False
    ) -> AsyncGenerator[v1.CollectGarbageResponse]:
        """Collect once, and say how far it is; what is younger than `min_age` seconds stays.

        Raises `Rejected` INVALID_AGE, COLLECTION_RUNNING, or ARTIFACT_LOST when something names an artifact that is not
        stored: this may be the wrong store, and then all in it looks like garbage. Raises `StoreUnavailable`.
        """
        if not 0 < min_age <= MAX_AGE_SECONDS:
            raise Rejected(Kind.INVALID, "INVALID_AGE", f"invalid age: expected at most {MAX_AGE_SECONDS} seconds")
        async with self._blobs.collecting() as turn:
            sweep = _Sweep(turn, min_age, dry_run=dry_run)
            marks = await self._mark(turn.began - min_age)
            # First what was set aside before, so that what is removed was not set aside by this collection.
            for aside in (True, False):
                for store, mentioned in ((self._manifests, set[str]()), (self._blobs, marks.mentioned)):
                    async with aclosing(store.entries(aside=aside)) as pages:
                        async for page in pages:
                            await sweep.look(store, page, marks.live, mentioned, aside=aside)
                            yield sweep.report()
            if not dry_run:
                await self._blobs.discard_abandoned()
            yield sweep.report(done=True)

    async def _mark(self, young: float) -> Marks:
        """Return the digests that are in use or too young to be garbage, and those that other manifests mention."""
        named = set(await self._named())
        marks = Marks(set(named))
        marks.live |= await self._files(named, must_be=True)
        # Trash first: a manifest that is put back meanwhile is met in its place.
        for aside in (True, False):
            async with aclosing(self._manifests.entries(aside=aside)) as pages:
                async for page in pages:
                    await self._mark_unnamed(marks, page, named, young, aside=aside)
        return marks

    async def _mark_unnamed(
        self, marks: Marks, page: Iterable[Entry], named: Collection[str], young: float, *, aside: bool
    ) -> None:
        for entry in page:
            if entry.digest not in named:
                files = {entry.digest} | await self._files([entry.digest], must_be=False)
                marks.mentioned |= files
                if not aside and entry.since > young:
                    marks.live |= files

    async def _files(self, digests: Iterable[str], *, must_be: bool) -> set[str]:
        """Return the blobs of artifacts. Raises `Rejected` ARTIFACT_LOST."""
        blobs: set[str] = set()
        for chunk in _at_once(digests):
            for manifest in await asyncio.gather(*(self._load(digest, must_be=must_be) for digest in chunk)):
                blobs.update(file.digest for file in manifest.files)
        return blobs

    async def _load(self, digest: str, *, must_be: bool) -> v1.Manifest:
        try:
            return await manifests.load(self._blobs, digest)
        except Rejected as refusal:
            if refusal.kind is not Kind.NOT_FOUND:
                raise
            if must_be:
                message = f"nothing collected: the artifact {digest} is registered but not stored"
                raise Rejected(Kind.PRECONDITION, "ARTIFACT_LOST", message, digest=digest) from refusal
            return v1.Manifest()


class _Sweep:
    """One collection at work: what it does with each blob, and what it has done."""

    def __init__(self, turn: Turn, min_age: float, *, dry_run: bool) -> None:
        self.done = v1.CollectGarbageResponse()
        self._turn = turn
        self._dry_run = dry_run
        self._step = min(min_age, _STEP)
        self._young = turn.began - min_age
        self._fresh = turn.began - min_age - self._step - turn.resolution

    def report(self, *, done: bool = False) -> v1.CollectGarbageResponse:
        """Return a copy of the progress so far."""
        report = v1.CollectGarbageResponse(done=done)
        report.MergeFrom(self.done)
        return report

    async def look(
        self, store: BlobStore, page: list[Entry], live: Collection[str], mentioned: Collection[str], *, aside: bool
    ) -> None:
        """Do with each blob of a page what is due."""
        self.done.seen += len(page)
        for chunk in _at_once(page):
            if aside:
                await asyncio.gather(*(self._look_aside(store, entry, live, mentioned) for entry in chunk))
            else:
                await asyncio.gather(*(self._look_at(store, entry, live) for entry in chunk))

    async def _look_aside(
        self, store: BlobStore, entry: Entry, live: Collection[str], mentioned: Collection[str]
    ) -> None:
        if entry.digest in live:
            back = await self._put_back(store, entry)
            self.done.put_back += back
        elif entry.since > self._fresh or entry.digest in mentioned or not self._turn.lasts():
            self.done.kept += 1
        else:
            if not self._dry_run:
                await store.remove(entry.digest)
            self.done.removed += 1
            self.done.removed_bytes += entry.size

    async def _put_back(self, store: BlobStore, entry: Entry) -> bool:
        if self._dry_run:
            return True
        back = entry.digest in await store.keep([entry.digest])
        if back and self._turn.lasts():
            await store.remove(entry.digest)
        return back

    async def _look_at(self, store: BlobStore, entry: Entry, live: Collection[str]) -> None:
        if entry.digest in live or entry.since > self._young:
            self.done.kept += 1
            return
        deadline = time.monotonic() + self._step / 2  # the rest is for the last request

        def still() -> bool:
            return self._turn.lasts() and time.monotonic() < deadline

        if self._dry_run or await store.set_aside(entry.digest, still):
            self.done.set_aside += 1
        else:
            self.done.kept += 1


def _at_once(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
