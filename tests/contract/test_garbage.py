"""What a collection of garbage removes, what it never does, and that no race with uploads and names loses a blob.

ROLLFORWARD_GARBAGE_SEEDS makes more races.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import obstore
import pytest
from obstore.store import S3Store

from eventstore.errors import Kind, Rejected
from rollforward import v1
from services.tracking import manifests
from services.tracking.blobs import BlobStore
from services.tracking.garbage import LONGEST_AGE, Collector
from services.tracking.s3_lease import leased
from tests.contract.blob_places import Place, digest_of, pieces, read

AGE = 0.3  # seconds: how old garbage is here
SEEDS = int(os.environ.get("ROLLFORWARD_GARBAGE_SEEDS", "1"))
LIMIT = 30.0

# So that an artifact is left alone for as often as not long enough to be removed.
CLIENTS, ARTIFACTS = 16, 40


class Names:
    """What the logs name."""

    def __init__(self, *digests: str) -> None:
        self.digests = set(digests)

    async def __call__(self) -> set[str]:
        return set(self.digests)


@contextmanager
def perhaps_refused(*reasons: str) -> Iterator[None]:
    """Ends early where it is refused for one of these reasons."""
    try:
        yield
    except Rejected as refusal:
        if refusal.reason not in reasons:
            raise


async def store_artifact(store: BlobStore, *contents: bytes) -> str:
    """Store files as a client does, and their manifest; its digest."""
    files = []
    for number, data in enumerate(contents):
        digest = digest_of(data)
        if digest not in await store.keep([digest]):
            await store.put(digest, pieces(data))
        files.append(v1.ManifestFile(path=str(number), size_bytes=len(data), digest=digest))
    return await manifests.save(store, v1.Manifest(files=files))


async def collect(store: BlobStore, names: Names, *, dry_run: bool = False) -> v1.CollectGarbageResponse:
    """Collect once, to the end."""
    steps = [step async for step in Collector(store, names).collect(AGE, dry_run=dry_run)]
    assert steps[-1].done
    return steps[-1]


async def collect_until(store: BlobStore, names: Names, outcome: str, count: int) -> None:
    """Collect until so many blobs in all had this outcome, and fail when there are more."""
    total = 0
    async with asyncio.timeout(LIMIT):
        while total < count:
            total += getattr(await collect(store, names), outcome)
    assert total == count


async def is_stored(store: BlobStore, artifact: str) -> bool:
    """Whether an artifact and all its bytes are there and right."""
    with perhaps_refused("ARTIFACT_NOT_FOUND", "BLOB_NOT_FOUND"):
        files = (await manifests.load(store, artifact)).files
        return [digest_of(await read(store, file.digest)) for file in files] == [file.digest for file in files]
    return False


async def test_what_nothing_names_is_set_aside_then_removed(place: Place) -> None:
    kept, garbage = await store_artifact(place.store, b"a", b"b"), await store_artifact(place.store, b"b", b"c")
    names = Names(kept)
    await collect_until(place.store, names, "set_aside", 3)  # a blob, a manifest, and the manifest as a blob
    assert await is_stored(place.store, kept)
    assert await is_stored(place.opened_again(), garbage)
    assert len([key for key in place.listed() if key.startswith("trash/")]) == 3
    await collect_until(place.store, names, "removed", 3)
    assert await is_stored(place.store, kept)
    assert not await is_stored(place.store, garbage)
    assert await place.store.sizes([digest_of(b"c"), garbage]) == {}
    assert not [key for key in place.listed() if key.startswith("trash/")]
    last = await collect(place.store, names)
    assert (last.seen, last.kept, last.set_aside, last.removed) == (4, 4, 0, 0)


async def test_the_bytes_removed_are_counted(place: Place) -> None:
    await place.store.put(digest_of(b"12345"), pieces(b"12345"))
    total = 0
    async with asyncio.timeout(LIMIT):
        while not total:
            total = (await collect(place.store, Names())).removed_bytes
    assert total == 5


async def test_a_blob_outlives_every_manifest_that_mentions_it(place: Place) -> None:
    garbage = await store_artifact(place.store, b"a")
    removed: list[int] = []
    async with asyncio.timeout(LIMIT):
        while await place.store.sizes([digest_of(b"a")]):
            removed.append((await collect(place.store, Names())).removed)
            if garbage in await manifests.within(place.store).sizes([garbage]):
                assert await is_stored(place.store, garbage)
    assert next(count for count in removed if count) == 1
    await collect_until(place.store, Names(), "removed", 3 - sum(removed))


async def test_what_is_young_stays_whatever_names_it(place: Place) -> None:
    await store_artifact(place.store, b"young")
    steps = [step async for step in Collector(place.store, Names()).collect(LIMIT)]
    assert (steps[-1].seen, steps[-1].kept) == (3, 3)


async def test_a_dry_run_changes_nothing(place: Place) -> None:
    await store_artifact(place.store, b"a")
    async with asyncio.timeout(LIMIT):
        while (await collect(place.store, Names(), dry_run=True)).set_aside < 3:
            assert not [key for key in place.listed() if key.startswith("trash/")]
    await collect_until(place.store, Names(), "set_aside", 3)
    before = place.listed()
    async with asyncio.timeout(LIMIT):
        while not (would := await collect(place.store, Names(), dry_run=True)).removed:
            assert place.listed() == before
    assert (would.removed, would.kept) == (1, 2)
    assert place.listed() == before


async def test_what_is_named_again_is_put_back(place: Place) -> None:
    artifact = await store_artifact(place.store, b"a", b"b")
    await collect_until(place.store, Names(), "set_aside", 4)
    await collect_until(place.store, Names(artifact), "put_back", 4)
    assert await is_stored(place.store, artifact)
    assert not [key for key in place.listed() if key.startswith("trash/")]


@pytest.mark.parametrize("way", ["find", "put", "save", "describe"])
async def test_who_uses_what_was_set_aside_has_it_put_back(place: Place, way: str) -> None:
    artifact = await store_artifact(place.store, b"a")
    await collect_until(place.store, Names(), "set_aside", 3)
    store = place.opened_again()
    if way == "find":
        assert await store.keep([digest_of(b"a")]) == {digest_of(b"a"): 1}
    elif way == "put":
        await store.put(digest_of(b"a"), pieces(b"a"))
    elif way == "save":
        assert await store_artifact(store, b"a") == artifact
    else:
        assert await manifests.describe(store, artifact) == (1, 1)
    back = {"find": digest_of(b"a"), "put": digest_of(b"a"), "save": artifact, "describe": artifact}[way]
    folder = "manifests/" if way in {"save", "describe"} else ""
    assert f"{folder}sha256/{back[7:9]}/{back[7:]}" in place.listed()
    assert await is_stored(store, artifact)


async def test_a_named_artifact_that_is_not_stored_stops_all(place: Place) -> None:
    artifact = await store_artifact(place.store, b"a")
    await collect_until(place.store, Names(artifact), "kept", 3)
    with pytest.raises(Rejected) as refused:
        await collect(place.store, Names(artifact, digest_of(b"elsewhere")))
    assert (refused.value.kind, refused.value.reason) == (Kind.PRECONDITION, "ARTIFACT_LOST")


@pytest.mark.parametrize("age", [0, -1, LONGEST_AGE + 1, float("nan")])
async def test_an_age_out_of_range_is_refused(place: Place, age: float) -> None:
    with pytest.raises(Rejected) as refused:
        await anext(Collector(place.store, Names()).collect(age))
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_AGE")


async def test_one_collection_at_a_time(place: Place) -> None:
    await place.store.put(digest_of(b"a"), pieces(b"a"))
    first = Collector(place.store, Names()).collect(AGE)
    await anext(first)
    with pytest.raises(Rejected) as refused:
        await collect(place.opened_again(), Names())
    assert (refused.value.kind, refused.value.reason) == (Kind.PRECONDITION, "COLLECTION_RUNNING")
    await first.aclose()
    await collect(place.opened_again(), Names())


async def test_the_turn_of_a_collection_that_died_ends_by_itself(bucket: Place) -> None:
    store = S3Store.from_url(bucket.url, client_options={"allow_http": True})
    await obstore.put_async(store, "collection.lock", b"of one that was killed")
    async with asyncio.timeout(LIMIT):
        while True:
            with suppress(Rejected):
                async with leased(store, 2.0) as lease:
                    assert lease.lasts()
                    break


async def test_a_turn_ends_when_another_one_began(bucket: Place) -> None:
    store = S3Store.from_url(bucket.url, client_options={"allow_http": True})
    async with leased(store, 2.0) as lease:
        began = time.monotonic()
        async with asyncio.timeout(LIMIT):
            while time.monotonic() < began + 2.0:
                assert lease.lasts()
                await asyncio.sleep(0.1)  # it is renewed as time goes by
        await obstore.put_async(store, "collection.lock", b"another")
        async with asyncio.timeout(LIMIT):
            while lease.lasts():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
    assert bytes(await (await obstore.get_async(store, "collection.lock")).bytes_async()) == b"another"


class World:
    """Clients that upload and name artifacts of a few contents again and again, and what must hold meanwhile."""

    def __init__(self, place: Place, seed: int, age: float) -> None:
        self._place = place
        self._random = random.Random(seed)
        self._age = age
        self.names = Names()
        self.done = {"named": 0, "checked": 0, "removed": 0, "put_back": 0, "set_aside": 0}

    async def live(self, seconds: float) -> None:
        """Let clients, checkers and two collecting processes work at once, and stop at the first lost blob."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._client(until))
            for _ in range(2):
                tasks.create_task(self._collector(until))
            tasks.create_task(self._checker(until))

    async def _client(self, until: float) -> None:
        store = self._place.opened_again()
        while time.monotonic() < until:
            told = time.monotonic()
            artifact = await self._known_artifact(store) if self._random.random() < 0.5 else await self._upload(store)
            await asyncio.sleep(self._random.random() * self._age * 0.7)
            # Who takes longer than the age of garbage may find it gone: the promise is for those who do not.
            if artifact and time.monotonic() < told + self._age:
                self.names.digests.add(artifact)
                self.done["named"] += 1
                await asyncio.sleep(self._random.random() * self._age * 2)
                if self._random.random() < 0.98:
                    self.names.digests.discard(artifact)

    async def _upload(self, store: BlobStore) -> str | None:
        with perhaps_refused("BLOB_MISSING"):
            return await store_artifact(store, *self._contents())
        return None

    async def _known_artifact(self, store: BlobStore) -> str | None:
        """An artifact that was perhaps stored long ago, as who registers a digest has it."""
        files = [
            v1.ManifestFile(path=str(number), size_bytes=len(data), digest=digest_of(data))
            for number, data in enumerate(self._contents())
        ]
        artifact = digest_of(manifests.canonical_bytes(v1.Manifest(files=files)))
        with perhaps_refused("ARTIFACT_NOT_FOUND"):
            await manifests.describe(store, artifact)
            return artifact
        return None

    def _contents(self) -> list[bytes]:
        number = self._random.randrange(ARTIFACTS)
        return [f"own {number}".encode(), f"shared {number // 2}".encode()]

    async def _collector(self, until: float) -> None:
        store = self._place.opened_again()
        while time.monotonic() < until:
            with perhaps_refused("COLLECTION_RUNNING"):
                steps = [step async for step in Collector(store, self.names).collect(self._age)]
                for outcome in ("removed", "put_back", "set_aside"):
                    self.done[outcome] += getattr(steps[-1], outcome)
            await asyncio.sleep(0.01)

    async def _checker(self, until: float) -> None:
        while time.monotonic() < until:
            for artifact in list(self.names.digests):
                stored = await is_stored(self._place.store, artifact)
                assert stored or artifact not in self.names.digests, f"{artifact} is named and lost"
                self.done["checked"] += 1
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_race_loses_what_is_named(place: Place, seed: int) -> None:
    local = "://" not in place.url
    world = World(place, seed, age=0.5 if local else 1.5)
    await world.live(6.0 if local else 12.0)
    assert min(world.done.values()) > 0, world.done
    for artifact in world.names.digests:
        assert await is_stored(place.opened_again(), artifact)
