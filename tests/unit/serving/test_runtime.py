"""A pod's state: the newest assignment wins, the pointer moves last, and what was warm comes back at once."""

import asyncio

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from rollforward.v1 import Assignment
from rollforward.v1 import Target as TargetMessage
from services.pod.batcher import Batcher
from services.pod.models import Model, ModelRefused
from services.pod.runtime import Loaded, NotReady, NotServed, Outcome, Runtime, Serving, Target, VersionRefused
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

CHAMPION = Target("fraud", "champion")
CHALLENGER = Target("fraud", "challenger")


def assignment(version: int, revision: int, target: Target = CHAMPION) -> Assignment:
    """An assignment of a version whose digest is like its number."""
    return Assignment(
        target=TargetMessage(model=target.model, alias=target.alias),
        version=version,
        digest=f"sha256:{version:064x}" if version else "",
        revision=revision,
    )


class Bench:
    """A runtime over models that load when they are told to."""

    def __init__(self, *targets: Target) -> None:
        self.outcomes: list[Outcome] = []
        self.told = asyncio.Event()
        self.loads: list[int] = []
        self.slow: dict[int, asyncio.Event] = {}
        self.broken: set[int] = set()
        self.runtime = Runtime(targets or (CHAMPION,), self.load, self.report)

    def report(self, outcome: Outcome) -> None:
        """Note an outcome."""
        self.outcomes.append(outcome)
        self.told.set()

    async def load(self, wanted: Assignment) -> Loaded:
        """A real model for the version, once its event is set."""
        self.loads.append(wanted.version)
        if wanted.version in self.slow:
            await self.slow[wanted.version].wait()
        if wanted.version in self.broken:
            raise ModelRefused
        model = Model(DummyClassifier(strategy="constant", constant=wanted.version).fit([[0.0]], [wanted.version]))
        return Loaded(wanted.digest, model, Batcher(model.predict))

    async def settle(self, count: int) -> list[tuple[int, int, bool]]:
        """Wait for so many outcomes; each as version, revision, whether it is served."""
        async with asyncio.timeout(scaled(10)):
            while len(self.outcomes) < count:
                self.told.clear()
                await self.told.wait()
        return [(told.assignment.version, told.assignment.revision, not told.error) for told in self.outcomes]

    def serves(self, name: str = "fraud", version: str = "") -> tuple[int, int]:
        """The version and revision that would answer."""
        serving: Serving = self.runtime.admit(name, version)
        return serving.assignment.version, serving.assignment.revision


async def test_a_first_assignment_is_served_once_loaded() -> None:
    bench = Bench()
    bench.slow[1] = asyncio.Event()
    with pytest.raises(NotReady):
        bench.serves()
    bench.runtime.offer(assignment(1, 10))
    with pytest.raises(NotReady):
        bench.serves()
    assert not bench.runtime.ready
    bench.slow[1].set()
    assert await bench.settle(1) == [(1, 10, True)]
    assert bench.serves() == (1, 10)
    assert bench.runtime.ready


async def test_the_old_version_answers_until_the_new_one_is_loaded() -> None:
    bench = Bench()
    bench.runtime.offer(assignment(1, 10))
    await bench.settle(1)
    bench.slow[2] = asyncio.Event()
    bench.runtime.offer(assignment(2, 11))
    assert bench.serves() == (1, 10)
    bench.slow[2].set()
    await bench.settle(2)
    assert bench.serves() == (2, 11)


async def test_an_older_revision_never_wins() -> None:
    bench = Bench()
    bench.runtime.offer(assignment(2, 20))
    await bench.settle(1)
    for stale in (assignment(1, 19), assignment(1, 20), assignment(0, 0)):
        bench.runtime.offer(stale)
    bench.runtime.offer(assignment(2, 21))
    assert await bench.settle(2) == [(2, 20, True), (2, 21, True)]
    assert bench.serves() == (2, 21)
    assert bench.loads == [2]


async def test_a_failed_load_keeps_the_old_version() -> None:
    bench = Bench()
    bench.runtime.offer(assignment(1, 10))
    await bench.settle(1)
    bench.broken.add(2)
    bench.runtime.offer(assignment(2, 11))
    assert await bench.settle(2) == [(1, 10, True), (2, 11, False)]
    assert bench.serves() == (1, 10)
    assert bench.runtime.ready
    bench.runtime.offer(assignment(1, 12))
    assert (await bench.settle(3))[2] == (1, 12, True)
    assert bench.serves() == (1, 12)


async def test_a_rollback_during_a_slow_load_makes_the_load_void() -> None:
    bench = Bench()
    bench.runtime.offer(assignment(1, 10))
    await bench.settle(1)
    bench.slow[2] = asyncio.Event()
    bench.runtime.offer(assignment(2, 11))
    await asyncio.sleep(0)
    bench.slow[2].set()
    bench.runtime.offer(assignment(1, 12))
    assert bench.serves() == (1, 12)
    bench.runtime.offer(assignment(3, 13))
    assert await bench.settle(3) == [(1, 10, True), (1, 12, True), (3, 13, True)]
    assert bench.serves() == (3, 13)


async def test_a_rollback_is_a_pointer_to_what_is_still_warm() -> None:
    bench = Bench()
    for version, revision in ((1, 10), (2, 11)):
        bench.runtime.offer(assignment(version, revision))
        await bench.settle(len(bench.outcomes) + 1)
    slot = bench.runtime.slots[CHAMPION]
    warm = slot.previous
    assert warm is not None
    bench.runtime.offer(assignment(1, 12))
    assert bench.serves() == (1, 12)
    assert slot.current is not None
    assert slot.current.loaded is warm.loaded
    bench.runtime.offer(assignment(2, 13))
    assert bench.serves() == (2, 13)
    assert bench.loads == [1, 2]


async def test_only_the_version_before_stays_warm() -> None:
    bench = Bench()
    for version in (1, 2, 3):
        bench.runtime.offer(assignment(version, version))
        await bench.settle(version)
    assert bench.serves(version="3") == (3, 3)
    assert bench.serves(version="2") == (2, 2)
    with pytest.raises(NotServed):
        bench.serves(version="1")
    bench.runtime.offer(assignment(1, 4))
    await bench.settle(4)
    assert bench.loads == [1, 2, 3, 1]


async def test_an_admitted_request_keeps_its_version_through_swaps() -> None:
    bench = Bench()
    bench.runtime.offer(assignment(1, 1))
    await bench.settle(1)
    bound = bench.runtime.admit("fraud", "")
    pending = asyncio.create_task(bound.loaded.lane.submit(np.zeros((1, 1)), ("predict",)))
    await asyncio.sleep(0)
    for version in (2, 3):
        bench.runtime.offer(assignment(version, version))
        await bench.settle(version)
    assert (await pending)["predict"].tolist() == [1]


async def test_a_removed_alias_answers_no_more_and_comes_back_warm() -> None:
    bench = Bench(CHAMPION, CHALLENGER)
    bench.runtime.offer(assignment(1, 1))
    bench.runtime.offer(assignment(2, 2, CHALLENGER))
    await bench.settle(2)
    bench.runtime.offer(assignment(0, 3))
    assert (await bench.settle(3))[2] == (0, 3, True)
    for name, version in (("fraud", ""), ("fraud@champion", ""), ("fraud", "1")):
        with pytest.raises(NotServed):
            bench.serves(name, version)
    assert bench.serves("fraud@challenger") == (2, 2)
    assert bench.runtime.ready
    assert [(kept.version, kept.revision) for kept in bench.runtime.assignments()] == [(2, 2), (0, 3)]
    bench.runtime.offer(assignment(1, 4))
    assert bench.serves() == (1, 4)
    assert bench.loads == [1, 2]


async def test_a_pod_of_removed_aliases_is_not_ready() -> None:
    bench = Bench()
    bench.runtime.offer(assignment(1, 1))
    await bench.settle(1)
    bench.runtime.offer(assignment(0, 2))
    assert not bench.runtime.ready


async def test_every_alias_must_have_a_version() -> None:
    bench = Bench(CHAMPION, CHALLENGER)
    bench.runtime.offer(assignment(1, 1))
    await bench.settle(1)
    assert not bench.runtime.ready
    bench.runtime.offer(assignment(1, 2, CHALLENGER))
    await bench.settle(2)
    assert bench.runtime.ready


async def test_names_and_versions_find_their_alias() -> None:
    bench = Bench(CHAMPION, CHALLENGER)
    bench.runtime.offer(assignment(1, 1))
    bench.runtime.offer(assignment(2, 2, CHALLENGER))
    await bench.settle(2)
    assert bench.serves("fraud") == (1, 1)
    assert bench.serves("fraud@champion") == (1, 1)
    assert bench.serves("fraud@challenger") == (2, 2)
    assert bench.serves("fraud", "2") == (2, 2)
    assert bench.runtime.versions("fraud") == [1, 2]
    for name, version in (("other", ""), ("fraud@other", ""), ("fraud@champion", "2"), ("fraud", "01"), ("", "")):
        with pytest.raises(NotServed):
            bench.serves(name, version)


async def test_an_alias_that_is_not_followed_is_left_alone() -> None:
    bench = Bench()
    bench.runtime.offer(assignment(1, 1, CHALLENGER))
    assert bench.loads == []
    assert bench.runtime.find("fraud@challenger") == []


async def test_a_refused_version_is_no_reason_to_try_again_until_the_alias_moves() -> None:
    bench = Bench()
    bench.broken.add(1)
    bench.runtime.offer(assignment(1, 10))
    await bench.settle(1)
    with pytest.raises(VersionRefused):
        bench.serves()
    bench.slow[2] = asyncio.Event()
    bench.runtime.offer(assignment(2, 11))
    with pytest.raises(NotReady) as waiting:
        bench.serves()
    assert type(waiting.value) is NotReady
    bench.slow[2].set()
    await bench.settle(2)
    assert bench.serves() == (2, 11)


async def test_closing_lets_go_of_everything() -> None:
    bench = Bench()
    for version in (1, 2):
        bench.runtime.offer(assignment(version, version))
        await bench.settle(version)
    bench.slow[3] = asyncio.Event()
    bench.runtime.offer(assignment(3, 3))
    await bench.runtime.close()
    assert len(bench.outcomes) == 2
    with pytest.raises(NotReady):
        bench.serves()
