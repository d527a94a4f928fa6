"""What a collection of garbage removes, what it never does, and that no race with uploads and names loses a blob.

ROLLFORWARD_GARBAGE_SEEDS makes more races.
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

AGE = 60.0  # seconds: how old garbage is here
OLD = AGE + 5.0  # after which all that is there is garbage, if nothing names it
LONG = 2 * AGE + 10.0  # after which what is set aside now is removed
SEEDS = int(os.environ.get("ROLLFORWARD_GARBAGE_SEEDS", "1"))
LIMIT = scaled(30.0)

# So that an artifact is left alone as often as not for long enough to be removed.
CLIENTS, ARTIFACTS, STEPS = 16, 60, 10


class Later:
    """A store whose collections begin later by its clock."""

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


async def collect(
    store: BlobStore, *names: str, after: float = OLD, dry_run: bool = False
) -> v1.CollectGarbageResponse:
    """Collect once, to the end, so many seconds from now."""
    later = cast("BlobStore", Later(store, after))
    steps = [step async for step in Collector(later, Names(*names)).collect(AGE, dry_run=dry_run)]
    assert steps[-1].done
    last = steps[-1]
    assert last.seen == last.kept + last.set_aside + last.put_back + last.removed
    return last


async def is_stored(store: BlobStore, artifact: str) -> bool:
    """Whether an artifact and all its bytes are there and right."""
    with perhaps_refused("ARTIFACT_NOT_FOUND", "BLOB_NOT_FOUND"):
        files = (await manifests.load(store, artifact)).files
        return [digest_of(await read(store, file.digest)) for file in files] == [file.digest for file in files]
    return False


def blobs_of(place: Place) -> list[str]:
    return [key for key in place.listed() if "sha256/" in key]


def in_trash(place: Place) -> list[str]:
    return [key for key in place.listed() if key.startswith("trash/")]


async def test_what_nothing_names_is_set_aside_then_removed(place: Place) -> None:
    kept, garbage = await store_artifact(place.store, b"a", b"b"), await store_artifact(place.store, b"b", b"c")
    first = await collect(place.store, kept)
    assert (first.seen, first.set_aside) == (7, 3)  # a blob, a manifest, and the manifest as a blob
    assert await is_stored(place.store, kept)
    assert await is_stored(place.opened_again(), garbage)
    assert len(in_trash(place)) == 3
    again = await collect(place.store, kept)  # what was set aside just now stays
    assert (again.seen, again.kept) == (7, 7)
    assert (await collect(place.store, kept, after=LONG)).removed == 1  # first the manifest that mentions the others
    assert (await collect(place.store, kept, after=LONG)).removed == 2
    assert await is_stored(place.store, kept)
    assert not await is_stored(place.store, garbage)
    assert await place.store.sizes([digest_of(b"c"), garbage]) == {}
    assert in_trash(place) == []
    last = await collect(place.store, kept, after=LONG)
    assert (last.seen, last.kept) == (4, 4)


async def test_the_bytes_removed_are_counted(place: Place) -> None:
    await place.store.put(digest_of(b"12345"), pieces(b"12345"))
    assert (await collect(place.store)).removed_bytes == 0
    assert (await collect(place.store, after=LONG)).removed_bytes == 5


async def test_a_blob_outlives_every_manifest_that_mentions_it(place: Place) -> None:
    garbage = await store_artifact(place.store, b"a")
    await collect(place.store)
    while garbage in await manifests.within(place.store).sizes([garbage]):
        assert await is_stored(place.store, garbage)
        assert (await collect(place.store, after=LONG)).removed == 1
    assert await place.store.sizes([digest_of(b"a")]) == {digest_of(b"a"): 1}
    assert (await collect(place.store, after=LONG)).removed == 2


async def test_what_is_young_stays_whatever_names_it(place: Place) -> None:
    await store_artifact(place.store, b"young")
    for after in (0.0, AGE - 5.0):
        found = await collect(place.store, after=after)
        assert (found.seen, found.kept) == (3, 3)


async def test_a_dry_run_changes_nothing(place: Place) -> None:
    await store_artifact(place.store, b"a")
    before = blobs_of(place)
    assert (await collect(place.store, dry_run=True)).set_aside == 3
    assert blobs_of(place) == before
    await collect(place.store)
    before = blobs_of(place)
    would = await collect(place.store, after=LONG, dry_run=True)
    assert (would.removed, would.kept) == (1, 2)
    assert blobs_of(place) == before


async def test_what_is_named_again_is_put_back(place: Place) -> None:
    artifact = await store_artifact(place.store, b"a", b"b")
    assert (await collect(place.store)).set_aside == 4
    assert (await collect(place.store, artifact, after=LONG)).put_back == 4
    assert await is_stored(place.store, artifact)
    assert in_trash(place) == []


@pytest.mark.parametrize("way", ["find", "put", "save", "describe"])
async def test_who_uses_what_was_set_aside_has_it_put_back(place: Place, way: str) -> None:
    artifact = await store_artifact(place.store, b"a")
    assert (await collect(place.store)).set_aside == 3
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
    await collect(place.store, artifact, after=LONG)
    before = place.listed()
    with pytest.raises(Rejected) as refused:
        await collect(place.store, artifact, digest_of(b"elsewhere"), after=LONG)
    assert place.listed() == before
    assert (refused.value.kind, refused.value.reason) == (Kind.PRECONDITION, "ARTIFACT_LOST")


@pytest.mark.parametrize("age", [0, -1, MAX_AGE_SECONDS + 1, float("nan")])
async def test_an_age_out_of_range_is_refused(place: Place, age: float) -> None:
    with pytest.raises(Rejected) as refused:
        await anext(Collector(place.store, Names()).collect(age))
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "INVALID_AGE")


async def test_one_collection_at_a_time(place: Place) -> None:
    await place.store.put(digest_of(b"a"), pieces(b"a"))
    first = Collector(place.store, Names()).collect(AGE)
    await anext(first)
    with pytest.raises(Rejected) as refused:
        await collect(place.opened_again())
    assert (refused.value.kind, refused.value.reason) == (Kind.PRECONDITION, "COLLECTION_RUNNING")
    await first.aclose()
    await collect(place.opened_again())


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
        tag, ends = lease._tag, lease._until
        await until(lambda: lease._tag != tag and lease._until > ends)  # it is renewed as time goes by
        await obstore.put_async(store, "collection.lock", b"another")
        await until(lambda: not lease.lasts())
    assert bytes(await (await obstore.get_async(store, "collection.lock")).bytes_async()) == b"another"


class World:
    """Clients that upload and name artifacts of a few contents again and again, and what must hold meanwhile."""

    def __init__(self, place: Place, seed: int, age: float) -> None:
        self._place = place
        self._random = random.Random(seed)
        self._age = age
        self.names = Names()
        self.done = {"named": 0, "checked": 0, "removed": 0, "put_back": 0, "set_aside": 0}

    async def live(self) -> None:
        """Let clients, checkers and two collecting processes work at once, and stop at the first lost blob.

        They do so again, with an age that is twice as long, until all that is counted has happened: on a slow machine
        nobody may be quick enough for a short one.
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

    async def _collector(self, clients: Sequence[asyncio.Task[None]]) -> None:
        store = self._place.opened_again()
        while not all(client.done() for client in clients):
            with perhaps_refused("COLLECTION_RUNNING"):
                steps = [step async for step in Collector(store, self.names).collect(self._age)]
                for outcome in ("removed", "put_back", "set_aside"):
                    self.done[outcome] += getattr(steps[-1], outcome)
            await asyncio.sleep(0.01)

    async def _checker(self, clients: Sequence[asyncio.Task[None]]) -> None:
        while not all(client.done() for client in clients):
            for artifact in list(self.names.digests):
                stored = await is_stored(self._place.store, artifact)
                assert stored or artifact not in self.names.digests, f"{artifact} is named and lost"
                self.done["checked"] += 1
            await asyncio.sleep(0)


@pytest.mark.busy
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_race_loses_what_is_named(place: Place, seed: int) -> None:
    world = World(place, seed, age=0.6 if "://" in place.url else 0.25)
    await world.live()
    for artifact in world.names.digests:
        assert await is_stored(place.opened_again(), artifact)
