"""Garbage collection: what it removes and what it never does, and that no race with uploads loses a blob.

ROLLFORWARD_GARBAGE_SEEDS sets the number of races.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import cast

import obstore
import pytest
from obstore.store import S3Store

from eventstore.errors import Kind, Rejected
from rollforward import v1
from services.artifacts import manifests
from services.artifacts.garbage_collection import MAX_AGE_SECONDS, Collector
from services.artifacts.s3.lease import leased
from services.artifacts.store import BlobStore, Turn
from tests.contract.artifacts.blob_places import Place, digest_of, pieces, read
from tests.servers.nats import until
from tests.timeouts import scaled

AGE = 60.0  # seconds: the minimum age of garbage in these tests
OLD = AGE + 5.0  # seconds after which every unreferenced blob is garbage
LONG = 2 * AGE + 10.0  # seconds after which a blob that is set aside now is removed
SEEDS = int(os.environ.get("ROLLFORWARD_GARBAGE_SEEDS", "1"))
LIMIT = scaled(30.0)

# With these numbers, about half of the artifacts stay unreferenced for long enough to be removed.
CLIENTS, ARTIFACTS, STEPS = 16, 60, 10


class LaterStore:
    """A store whose collections seem to begin later."""

    def __init__(self, store: BlobStore, seconds: float) -> None:
        self._store = store
        self._seconds = seconds

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    @asynccontextmanager
    async def collecting(self) -> AsyncGenerator[Turn]:
        async with self._store.collecting() as turn:
            turn.began += self._seconds  # type: ignore[misc]
            yield turn


class Referenced:
    """The digests that the logs reference."""

    def __init__(self, *digests: str) -> None:
        self.digests = set(digests)

    async def __call__(self) -> set[str]:
        return set(self.digests)


@contextmanager
def allow_rejection(*reasons: str) -> Iterator[None]:
    """Suppress a rejection for one of these reasons."""
    try:
        yield
    except Rejected as refusal:
        if refusal.reason not in reasons:
            raise


async def store_artifact(store: BlobStore, *contents: bytes) -> str:
    """Store files as a client does, and their manifest; return its digest."""
    files = []
    for number, data in enumerate(contents):
        digest = digest_of(data)
        if digest not in await store.keep([digest]):
            await store.put(digest, pieces(data))
        files.append(v1.ManifestFile(path=str(number), size_bytes=len(data), digest=digest))
    return await manifests.save(store, v1.Manifest(files=files))


async def collect(
    store: BlobStore, *names: str, after: float = OLD, dry_run: bool = False
) -> v1.CollectGarbageResponse:
    """Run a complete collection as if `after` seconds from now."""
    later = cast("BlobStore", LaterStore(store, after))
    steps = [step async for step in Collector(later, Referenced(*names)).collect(AGE, dry_run=dry_run)]
    assert steps[-1].done
    last = steps[-1]
    assert last.seen == last.kept + last.set_aside + last.put_back + last.removed
    return last


async def is_stored(store: BlobStore, artifact: str) -> bool:
    """Return whether an artifact is stored, with all its bytes correct."""
    with allow_rejection("ARTIFACT_NOT_FOUND", "BLOB_NOT_FOUND"):
        files = (await manifests.load(store, artifact)).files
        return [digest_of(await read(store, file.digest)) for file in files] == [file.digest for file in files]
    return False


def blobs_of(place: Place) -> list[str]:
    return [key for key in place.listed() if "sha256/" in key]


def in_trash(place: Place) -> list[str]:
    return [key for key in place.listed() if key.startswith("trash/")]


async def test_unreferenced_blob_is_set_aside_then_removed(place: Place) -> None:
    kept, garbage = await store_artifact(place.store, b"a", b"b"), await store_artifact(place.store, b"b", b"c")
    first = await collect(place.store, kept)
    assert (first.seen, first.set_aside) == (7, 3)  # a blob, a manifest, and the manifest as a blob
    assert await is_stored(place.store, kept)
    assert await is_stored(place.opened_again(), garbage)
    assert len(in_trash(place)) == 3
    again = await collect(place.store, kept)  # blobs that were set aside just now stay
    assert (again.seen, again.kept) == (7, 7)
    assert (await collect(place.store, kept, after=LONG)).removed == 1  # first the manifest that references the others
    assert (await collect(place.store, kept, after=LONG)).removed == 2
    assert await is_stored(place.store, kept)
    assert not await is_stored(place.store, garbage)
    assert await place.store.sizes([digest_of(b"c"), garbage]) == {}
    assert in_trash(place) == []
    last = await collect(place.store, kept, after=LONG)
    assert (last.seen, last.kept) == (4, 4)


async def test_removed_bytes_are_counted(place: Place) -> None:
    await place.store.put(digest_of(b"12345"), pieces(b"12345"))
    assert (await collect(place.store)).removed_bytes == 0
    assert (await collect(place.store, after=LONG)).removed_bytes == 5


async def test_blob_outlives_its_manifests(place: Place) -> None:
    garbage = await store_artifact(place.store, b"a")
    await collect(place.store)
    while garbage in await manifests.within(place.store).sizes([garbage]):
        assert await is_stored(place.store, garbage)
        assert (await collect(place.store, after=LONG)).removed == 1
    assert await place.store.sizes([digest_of(b"a")]) == {digest_of(b"a"): 1}
    assert (await collect(place.store, after=LONG)).removed == 2


async def test_young_blob_is_kept(place: Place) -> None:
    await store_artifact(place.store, b"young")
    for after in (0.0, AGE - 5.0):
        result = await collect(place.store, after=after)
        assert (result.seen, result.kept) == (3, 3)


async def test_dry_run_changes_nothing(place: Place) -> None:
    await store_artifact(place.store, b"a")
    before = blobs_of(place)
    assert (await collect(place.store, dry_run=True)).set_aside == 3
    assert blobs_of(place) == before
    await collect(place.store)
    before = blobs_of(place)
    planned = await collect(place.store, after=LONG, dry_run=True)
    assert (planned.removed, planned.kept) == (1, 2)
    assert blobs_of(place) == before


async def test_blob_referenced_again_is_restored(place: Place) -> None:
    artifact = await store_artifact(place.store, b"a", b"b")
    assert (await collect(place.store)).set_aside == 4
    assert (await collect(place.store, artifact, after=LONG)).put_back == 4
    assert await is_stored(place.store, artifact)
    assert in_trash(place) == []


@pytest.mark.parametrize("operation", ["find", "put", "save", "describe"])
async def test_use_of_blob_restores_it(place: Place, operation: str) -> None:
    artifact = await store_artifact(place.store, b"a")
    assert (await collect(place.store)).set_aside == 3
    store = place.opened_again()
    if operation == "find":
        assert await store.keep([digest_of(b"a")]) == {digest_of(b"a"): 1}
    elif operation == "put":
        await store.put(digest_of(b"a"), pieces(b"a"))
    elif operation == "save":
        assert await store_artifact(store, b"a") == artifact
    else:
        assert await manifests.describe(store, artifact) == (1, 1)
    used = {"find": digest_of(b"a"), "put": digest_of(b"a"), "save": artifact, "describe": artifact}[operation]
    folder = "manifests/" if operation in {"save", "describe"} else ""
    assert f"{folder}sha256/{used[7:9]}/{used[7:]}" in place.listed()
    assert await is_stored(store, artifact)


async def test_missing_referenced_artifact_stops_collection(place: Place) -> None:
    artifact = await store_artifact(place.store, b"a")
    await collect(place.store, artifact, after=LONG)
    before = place.listed()
    with pytest.raises(Rejected) as refused:
        await collect(place.store, artifact, digest_of(b"elsewhere"), after=LONG)
    assert place.listed() == before
    assert (refused.value.kind, refused.value.reason) == (Kind.PRECONDITION, "ARTIFACT_LOST")


@pytest.mark.parametrize("age", [0, -1, MAX_AGE_SECONDS + 1, float("nan")])
async def test_age_out_of_range_is_rejected(place: Place, age: float) -> None:
    with pytest.raises(Rejected) as refused:
        await anext(Collector(place.store, Referenced()).collect(age))
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_AGE")


async def test_collections_do_not_overlap(place: Place) -> None:
    await place.store.put(digest_of(b"a"), pieces(b"a"))
    first = Collector(place.store, Referenced()).collect(AGE)
    await anext(first)
    with pytest.raises(Rejected) as refused:
        await collect(place.opened_again())
    assert (refused.value.kind, refused.value.reason) == (Kind.PRECONDITION, "COLLECTION_RUNNING")
    await first.aclose()
    await collect(place.opened_again())


async def test_lease_of_killed_collection_expires(bucket: Place) -> None:
    store = S3Store.from_url(bucket.url, client_options={"allow_http": True})
    await obstore.put_async(store, "collection.lock", b"of one that was killed")
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(Rejected):
                async with leased(store, 2.0) as lease:
                    assert lease.lasts()
                    break


async def test_lease_ends_when_another_begins(bucket: Place) -> None:
    store = S3Store.from_url(bucket.url, client_options={"allow_http": True})
    async with leased(store, 2.0) as lease:
        tag, ends = lease._tag, lease._until
        await until(lambda: lease._tag != tag and lease._until > ends)  # it is renewed regularly
        await obstore.put_async(store, "collection.lock", b"another")
        await until(lambda: not lease.lasts())
    assert bytes(await (await obstore.get_async(store, "collection.lock")).bytes_async()) == b"another"


class Simulation:
    """Clients that repeatedly upload and reference a few artifacts, while collections run."""

    def __init__(self, place: Place, seed: int, age: float) -> None:
        self._place = place
        self._random = random.Random(seed)
        self._age = age
        self.names = Referenced()
        self.done = {"named": 0, "checked": 0, "removed": 0, "put_back": 0, "set_aside": 0}

    async def run(self) -> None:
        """Run clients, a checker and two collectors concurrently, and stop at the first lost blob.

        Repeat with twice the age until every counted event has happened: on a slow machine, clients may be too slow
        for a short age.
        """
        while not all(self.done.values()):
            async with asyncio.TaskGroup() as tasks:
                clients = [tasks.create_task(self._client()) for _ in range(CLIENTS)]
                others = [self._collector(clients), self._collector(clients), self._checker(clients)]
                for other in others:
                    tasks.create_task(other)
            self._age *= 2

    async def _client(self) -> None:
        store = self._place.opened_again()
        for _ in range(STEPS):
            started = time.monotonic()
            artifact = await self._known_artifact(store) if self._random.random() < 0.5 else await self._upload(store)
            await asyncio.sleep(self._random.random() * self._age * 0.7)
            # A client that takes longer than the age of garbage may lose its blobs; the guarantee is for faster ones.
            if artifact and time.monotonic() < started + self._age:
                self.names.digests.add(artifact)
                self.done["named"] += 1
                await asyncio.sleep(self._random.random() * self._age * 2)
                if self._random.random() < 0.98:
                    self.names.digests.discard(artifact)

    async def _upload(self, store: BlobStore) -> str | None:
        with allow_rejection("BLOB_MISSING"):
            return await store_artifact(store, *self._contents())
        return None

    async def _known_artifact(self, store: BlobStore) -> str | None:
        """Return an artifact that may have been stored long ago, as a client that registers a digest does."""
        files = [
            v1.ManifestFile(path=str(number), size_bytes=len(data), digest=digest_of(data))
            for number, data in enumerate(self._contents())
        ]
        artifact = digest_of(manifests.canonical_bytes(v1.Manifest(files=files)))
        with allow_rejection("ARTIFACT_NOT_FOUND"):
            await manifests.describe(store, artifact)
            return artifact
        return None

    def _contents(self) -> list[bytes]:
        number = self._random.randrange(ARTIFACTS)
        return [f"own {number}".encode(), f"shared {number // 2}".encode()]

    async def _collector(self, clients: Sequence[asyncio.Task[None]]) -> None:
        store = self._place.opened_again()
        while not all(client.done() for client in clients):
            with allow_rejection("COLLECTION_RUNNING"):
                steps = [step async for step in Collector(store, self.names).collect(self._age)]
                for outcome in ("removed", "put_back", "set_aside"):
                    self.done[outcome] += getattr(steps[-1], outcome)
            await asyncio.sleep(0.01)

    async def _checker(self, clients: Sequence[asyncio.Task[None]]) -> None:
        while not all(client.done() for client in clients):
            for artifact in list(self.names.digests):
                stored = await is_stored(self._place.store, artifact)
                assert stored or artifact not in self.names.digests, f"{artifact} is referenced and lost"
                self.done["checked"] += 1
            await asyncio.sleep(0)


@pytest.mark.busy
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_race_loses_referenced_blob(place: Place, seed: int) -> None:
    simulation = Simulation(place, seed, age=0.6 if "://" in place.url else 0.25)
    await simulation.run()
    for artifact in simulation.names.digests:
        assert await is_stored(place.opened_again(), artifact)
