"""The pod's runtime: the newest assignment wins, the old version answers meanwhile, and rollbacks are warm."""

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
    """Return an assignment of a version whose digest is its number."""
    return Assignment(
        target=TargetMessage(model=target.model, alias=target.alias),
        version=version,
        digest=f"sha256:{version:064x}" if version else "",
        revision=revision,
    )


class Harness:
    """A runtime whose models load, fail or wait as the test wants."""

    def __init__(self, *targets: Target) -> None:
        self.outcomes: list[Outcome] = []
        self.reported = asyncio.Event()
        self.loads: list[int] = []
        self.slow: dict[int, asyncio.Event] = {}
        self.broken: set[int] = set()
        self.runtime = Runtime(targets or (CHAMPION,), self.load, self.report)

    def report(self, outcome: Outcome) -> None:
        """Record an outcome."""
        self.outcomes.append(outcome)
        self.reported.set()

    async def load(self, requested: Assignment) -> Loaded:
        """Load a real model for the version, once its event is set."""
        self.loads.append(requested.version)
        if requested.version in self.slow:
            await self.slow[requested.version].wait()
        if requested.version in self.broken:
            raise ModelRefused
        model = Model(
            DummyClassifier(strategy="constant", constant=requested.version).fit([[0.0]], [requested.version])
        )
        return Loaded(requested.digest, model, Batcher(model.predict))

    async def settle(self, count: int) -> list[tuple[int, int, bool]]:
        """Wait for `count` outcomes and return each as version, revision and whether it is served."""
        async with asyncio.timeout(scaled(10)):
            while len(self.outcomes) < count:
                self.reported.clear()
                await self.reported.wait()
        return [
            (outcome.assignment.version, outcome.assignment.revision, not outcome.error) for outcome in self.outcomes
        ]

    def serves(self, name: str = "fraud", version: str = "") -> tuple[int, int]:
        """Return the version and revision that would answer a request."""
        serving: Serving = self.runtime.admit(name, version)
        return serving.assignment.version, serving.assignment.revision


async def test_first_assignment_is_served_once_loaded() -> None:
    harness = Harness()
    harness.slow[1] = asyncio.Event()
    with pytest.raises(NotReady):
        harness.serves()
    harness.runtime.offer(assignment(1, 10))
    with pytest.raises(NotReady):
        harness.serves()
    assert not harness.runtime.ready
    harness.slow[1].set()
    assert await harness.settle(1) == [(1, 10, True)]
    assert harness.serves() == (1, 10)
    assert harness.runtime.ready


async def test_old_version_answers_until_new_one_is_loaded() -> None:
    harness = Harness()
    harness.runtime.offer(assignment(1, 10))
    await harness.settle(1)
    harness.slow[2] = asyncio.Event()
    harness.runtime.offer(assignment(2, 11))
    assert harness.serves() == (1, 10)
    harness.slow[2].set()
    await harness.settle(2)
    assert harness.serves() == (2, 11)


async def test_older_revision_is_ignored() -> None:
    harness = Harness()
    harness.runtime.offer(assignment(2, 20))
    await harness.settle(1)
    for stale in (assignment(1, 19), assignment(1, 20), assignment(0, 0)):
        harness.runtime.offer(stale)
    harness.runtime.offer(assignment(2, 21))
    assert await harness.settle(2) == [(2, 20, True), (2, 21, True)]
    assert harness.serves() == (2, 21)
    assert harness.loads == [2]


async def test_old_version_is_kept_when_load_fails() -> None:
    harness = Harness()
    harness.runtime.offer(assignment(1, 10))
    await harness.settle(1)
    harness.broken.add(2)
    harness.runtime.offer(assignment(2, 11))
    assert await harness.settle(2) == [(1, 10, True), (2, 11, False)]
    assert harness.serves() == (1, 10)
    assert harness.runtime.ready
    harness.runtime.offer(assignment(1, 12))
    assert (await harness.settle(3))[2] == (1, 12, True)
    assert harness.serves() == (1, 12)


async def test_rollback_during_load_discards_the_load() -> None:
    harness = Harness()
    harness.runtime.offer(assignment(1, 10))
    await harness.settle(1)
    harness.slow[2] = asyncio.Event()
    harness.runtime.offer(assignment(2, 11))
    await asyncio.sleep(0)
    harness.slow[2].set()
    harness.runtime.offer(assignment(1, 12))
    assert harness.serves() == (1, 12)
    harness.runtime.offer(assignment(3, 13))
    assert await harness.settle(3) == [(1, 10, True), (1, 12, True), (3, 13, True)]
    assert harness.serves() == (3, 13)


async def test_rollback_reuses_warm_version() -> None:
    harness = Harness()
    for version, revision in ((1, 10), (2, 11)):
        harness.runtime.offer(assignment(version, revision))
        await harness.settle(len(harness.outcomes) + 1)
    slot = harness.runtime.slots[CHAMPION]
    warm = slot.previous
    assert warm is not None
    harness.runtime.offer(assignment(1, 12))
    assert harness.serves() == (1, 12)
    assert slot.current is not None
    assert slot.current.loaded is warm.loaded
    harness.runtime.offer(assignment(2, 13))
    assert harness.serves() == (2, 13)
    assert harness.loads == [1, 2]


async def test_only_previous_version_stays_warm() -> None:
    harness = Harness()
    for version in (1, 2, 3):
        harness.runtime.offer(assignment(version, version))
        await harness.settle(version)
    assert harness.serves(version="3") == (3, 3)
    assert harness.serves(version="2") == (2, 2)
    with pytest.raises(NotServed):
        harness.serves(version="1")
    harness.runtime.offer(assignment(1, 4))
    await harness.settle(4)
    assert harness.loads == [1, 2, 3, 1]


async def test_admitted_request_keeps_its_version() -> None:
    harness = Harness()
    harness.runtime.offer(assignment(1, 1))
    await harness.settle(1)
    bound = harness.runtime.admit("fraud", "")
    pending = asyncio.create_task(bound.loaded.lane.submit(np.zeros((1, 1)), ("predict",)))
    await asyncio.sleep(0)
    for version in (2, 3):
        harness.runtime.offer(assignment(version, version))
        await harness.settle(version)
    assert (await pending)["predict"].tolist() == [1]


async def test_removed_alias_is_not_served_and_returns_warm() -> None:
    harness = Harness(CHAMPION, CHALLENGER)
    harness.runtime.offer(assignment(1, 1))
    harness.runtime.offer(assignment(2, 2, CHALLENGER))
    await harness.settle(2)
    harness.runtime.offer(assignment(0, 3))
    assert (await harness.settle(3))[2] == (0, 3, True)
    for name, version in (("fraud", ""), ("fraud@champion", ""), ("fraud", "1")):
        with pytest.raises(NotServed):
            harness.serves(name, version)
    assert harness.serves("fraud@challenger") == (2, 2)
    assert harness.runtime.ready
    assert [(kept.version, kept.revision) for kept in harness.runtime.assignments()] == [(2, 2), (0, 3)]
    harness.runtime.offer(assignment(1, 4))
    assert harness.serves() == (1, 4)
    assert harness.loads == [1, 2]


async def test_pod_whose_aliases_are_removed_is_not_ready() -> None:
    harness = Harness()
    harness.runtime.offer(assignment(1, 1))
    await harness.settle(1)
    harness.runtime.offer(assignment(0, 2))
    assert not harness.runtime.ready


async def test_pod_is_ready_once_all_aliases_are_served() -> None:
    harness = Harness(CHAMPION, CHALLENGER)
    harness.runtime.offer(assignment(1, 1))
    await harness.settle(1)
    assert not harness.runtime.ready
    harness.runtime.offer(assignment(1, 2, CHALLENGER))
    await harness.settle(2)
    assert harness.runtime.ready


async def test_model_names_and_versions_resolve_to_alias() -> None:
    harness = Harness(CHAMPION, CHALLENGER)
    harness.runtime.offer(assignment(1, 1))
    harness.runtime.offer(assignment(2, 2, CHALLENGER))
    await harness.settle(2)
    assert harness.serves("fraud") == (1, 1)
    assert harness.serves("fraud@champion") == (1, 1)
    assert harness.serves("fraud@challenger") == (2, 2)
    assert harness.serves("fraud", "2") == (2, 2)
    assert harness.runtime.versions("fraud") == [1, 2]
    for name, version in (("other", ""), ("fraud@other", ""), ("fraud@champion", "2"), ("fraud", "01"), ("", "")):
        with pytest.raises(NotServed):
            harness.serves(name, version)


async def test_assignment_of_other_alias_is_ignored() -> None:
    harness = Harness()
    harness.runtime.offer(assignment(1, 1, CHALLENGER))
    assert harness.loads == []
    assert harness.runtime.find("fraud@challenger") == []


async def test_refused_version_is_permanent_until_alias_moves() -> None:
    harness = Harness()
    harness.broken.add(1)
    harness.runtime.offer(assignment(1, 10))
    await harness.settle(1)
    with pytest.raises(VersionRefused):
        harness.serves()
    harness.slow[2] = asyncio.Event()
    harness.runtime.offer(assignment(2, 11))
    with pytest.raises(NotReady) as waiting:
        harness.serves()
    assert type(waiting.value) is NotReady
    harness.slow[2].set()
    await harness.settle(2)
    assert harness.serves() == (2, 11)


async def test_closing_discards_all_versions() -> None:
    harness = Harness()
    for version in (1, 2):
        harness.runtime.offer(assignment(version, version))
        await harness.settle(version)
    harness.slow[3] = asyncio.Event()
    harness.runtime.offer(assignment(3, 3))
    await harness.runtime.close()
    assert len(harness.outcomes) == 2
    with pytest.raises(NotReady):
        harness.serves()
