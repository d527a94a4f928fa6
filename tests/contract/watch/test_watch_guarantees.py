"""The guarantees in docs/watch.md, checked on two registry processes over one log."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

import rollforward as rf
from rollforward import v1
from rollforward.errors import InvalidRequest, from_rpc_error
from tests.contract.watch.registries import ALIAS, Registries, Registry, changes_of, insist, read, registries
from tests.integration.up import SECONDS, new_id

Steps = list[v1.WatchAliasesResponse]

# The shared fixtures take long to set up.
pytestmark = [pytest.mark.xdist_group("watch"), pytest.mark.busy]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registries]:
    """Yield a log on which registry processes can be started."""
    with registries(tmp_path_factory.mktemp("registries")) as started:
        yield started


@pytest.fixture(scope="module")
def pair(log: Registries) -> tuple[Registry, Registry]:
    """Start two processes."""
    return log.start(), log.start()


@pytest.fixture(scope="module")
def here(pair: tuple[Registry, Registry]) -> Registry:
    """Return one of the two processes."""
    return pair[0]


@pytest.fixture(scope="module")
def there(pair: tuple[Registry, Registry]) -> Registry:
    """Return the other process."""
    return pair[1]


@pytest.fixture(scope="module")
def models(here: Registry) -> list[str]:
    """Create models with two versions each."""
    return [here.new_model() for _ in range(4)]


@dataclass
class Recording:
    """The steps of watches while four programs wrote through two processes, and the history."""

    begun: int
    ended: int
    truth: list[v1.AliasChange] = field(default_factory=list)
    from_the_start: list[Steps] = field(default_factory=list)
    with_snapshot: list[Steps] = field(default_factory=list)


@pytest.fixture(scope="module")
def recording(here: Registry, there: Registry, models: list[str]) -> Recording:
    """Record two programs that each move an alias, and every fifth time that of all models at once."""
    begun = here.head()

    def write(number: int) -> int:
        registry = (here, there)[number % 2]
        for turn in range(25):
            own = v1.MoveAliasRequest(model=models[number], alias=f"of-{number}", version=1 + turn % 2)
            insist(registry.registry.MoveAlias, own)
            if turn % 5 == number:
                registry.move_set(dict.fromkeys(models, 1 + number % 2))
        last = v1.MoveAliasRequest(model=models[number], alias="last", version=2)
        return insist(registry.registry.MoveAlias, last).position

    early = [registry.watch(from_revision=begun) for registry in (here, there)]
    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, number) for number in range(4)]
        late: list[tuple[Any, v1.WatchAliasesResponse]] = []
        while not all(writer.done() for writer in writers):
            late.append((watch := (here, there)[len(late) % 2].watch(), next(watch)))
        ended = max(writer.result() for writer in writers)
    received_late = [[first, *(read(watch, ended) if first.position < ended else [])] for watch, first in late[-20:]]
    watched = [read(watch, ended) for watch in early]
    for watch in [*early, *(watch for watch, _ in late)]:
        watch.cancel()
    return Recording(begun, ended, there.changes(begun), watched, received_late)


def test_changes_are_ordered(recording: Recording) -> None:
    for steps in recording.from_the_start:
        positions = [step.position for step in steps]
        assert positions == sorted(set(positions))
        places = [change.position for change in changes_of(steps)]
        assert places == sorted(places)


def test_changes_are_unique(recording: Recording) -> None:
    for steps in recording.from_the_start:
        assert set(Counter(change.event_id for change in changes_of(steps)).values()) == {1}


def test_no_change_is_missing(recording: Recording) -> None:
    assert len(recording.truth) > 100
    for steps in recording.from_the_start:
        assert changes_of(steps) == recording.truth


def test_all_watches_receive_same_changes(recording: Recording) -> None:
    first, second = [[step for step in steps if step.changes.changes] for steps in recording.from_the_start]
    assert first == second


def test_append_is_one_step(recording: Recording, models: list[str]) -> None:
    sizes = Counter[int]()
    for step in recording.from_the_start[0]:
        changes = step.changes.changes
        assert [change for change in recording.truth if change.revision == step.position] == list(changes)
        sizes[len(changes)] += 1
    assert sizes[1]
    assert max(sizes) > 1
    assert max(sizes) <= len(models)


def test_changes_continue_after_snapshot_without_gap(recording: Recording) -> None:
    assert any(step.changes.changes for steps in recording.with_snapshot for step in steps)
    for first, *later in recording.with_snapshot:
        state = {
            (change.model, change.alias): (change.to_version, change.revision)
            for change in recording.truth
            if change.revision <= first.position
        }
        assert {
            (alias.model, alias.alias): (alias.version, alias.revision)
            for alias in first.snapshot.aliases
            if alias.revision > recording.begun
        } == state
        assert changes_of(later) == [change for change in recording.truth if change.revision > first.position]


def test_watch_resumes_from_every_position(recording: Recording, here: Registry, there: Registry) -> None:
    for number, position in enumerate(range(recording.begun, recording.ended)):
        watch = (here, there)[number % 2].watch(from_revision=position)
        steps = read(watch, recording.ended)
        watch.cancel()
        # Also from the middle of an append: its changes are one step.
        assert changes_of(steps) == [change for change in recording.truth if change.revision > position]
        assert len({step.position for step in steps}) == len(steps)


def test_revision_beyond_log_is_rejected(here: Registry) -> None:
    for position in (here.head() + 1, 2**64 - 1):
        with pytest.raises(grpc.RpcError) as refused:
            next(here.watch(from_revision=position))
        error = from_rpc_error(refused.value)
        assert (type(error), error.reason) == (InvalidRequest, "POSITION_AHEAD")


def test_release_set_is_one_step_with_one_revision(here: Registry, there: Registry, models: list[str]) -> None:
    here.move_set(dict.fromkeys(models, 1))
    watch = there.watch(alias=ALIAS)
    next(watch)
    done = here.move_set(dict.fromkeys(models, 2))
    step = next(watch)
    assert step.position == done.revision
    assert [(change.model, change.to_version) for change in step.changes.changes] == [(model, 2) for model in models]
    assert {change.revision for change in step.changes.changes} == {done.revision}
    watch.cancel()


def test_rollback_of_many_aliases_is_one_step_with_one_revision(
    here: Registry, there: Registry, models: list[str]
) -> None:
    here.move_set(dict.fromkeys(models, 1))
    here.move_set(dict.fromkeys(models, 2))
    watch = there.watch(alias=ALIAS)
    next(watch)
    done = here.registry.Rollback(v1.RollbackRequest(models="*", aliases=ALIAS), timeout=SECONDS)
    step = next(watch)
    assert step.position == done.revision
    changes = {change.model: change for change in step.changes.changes if change.model in models}
    assert {model: change.to_version for model, change in changes.items()} == dict.fromkeys(models, 1)
    assert {(change.revision, change.cause) for change in changes.values()} == {
        (done.revision, v1.ALIAS_CAUSE_ROLLBACK)
    }
    watch.cancel()


@pytest.mark.timeout(60)
def test_bookmark_is_safe_to_resume_from(here: Registry, there: Registry, models: list[str]) -> None:
    quiet = there.watch(model=models[0])
    begun = next(quiet).position
    received_of_others = threading.Event()

    def move_others() -> int:
        last = 0
        while not received_of_others.is_set():
            for version in (1, 2):
                last = here.move(models[1], version, "of-others").position
        return last

    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(move_others)
        try:
            bookmark = next(quiet)
        finally:
            received_of_others.set()
    assert bookmark.WhichOneof("step") == "bookmark"
    assert begun < bookmark.position <= others.result()
    # Once the log is idle, a bookmark brings the watch to its end.
    bookmark = next(step for step in quiet if step.position == others.result())
    assert bookmark.WhichOneof("step") == "bookmark"
    quiet.cancel()
    moved = [here.move(models[0], version, "mine").position for version in (1, 2)]
    resumed = there.watch(model=models[0], from_revision=bookmark.position)
    assert [change.revision for change in changes_of(read(resumed, moved[-1]))] == moved
    resumed.cancel()


def test_watch_filters_by_model_and_alias(here: Registry, there: Registry, models: list[str]) -> None:
    begun = here.head()
    model_a, model_b = models[:2]
    for model, alias in ((model_a, "x"), (model_b, "x"), (model_a, "y"), (model_b, "y")):
        for version in (1, 2):
            here.move(model, version, alias)
    for filters in ({"model": model_a}, {"alias": "x"}, {"model": model_b, "alias": "y"}):
        watch = there.watch(from_revision=begun, **filters)
        expected = there.changes(begun, **filters)
        assert changes_of(read(watch, expected[-1].revision)) == expected
        snapshot = next(there.watch(**filters)).snapshot
        assert all(getattr(alias, key) == value for alias in snapshot.aliases for key, value in filters.items())
        assert {(change.model, change.alias) for change in expected} <= {
            (alias.model, alias.alias) for alias in snapshot.aliases
        }
        watch.cancel()


def test_watch_filters_by_tags_at_revision(here: Registry, there: Registry, models: list[str]) -> None:
    tagged, bare = models[:2]
    team = {"team": new_id(), "tier": "1"}

    def tag(model: str, **fields: object) -> int:
        request = v1.ChangeTagsRequest(model=model, **fields)  # type: ignore[arg-type]
        return here.registry.ChangeTags(request, timeout=SECONDS).position

    tag(tagged, set=team)
    here.move(tagged, 1, "tagged")
    tag(bare, set={"tier": "1"})
    watch = there.watch(tags=team)
    first = next(watch)
    begun = first.position
    assert {alias.model for alias in first.snapshot.aliases} == {tagged}
    here.move(bare, 1, "tagged")
    mine = here.move(tagged, 2, "tagged")
    tag(bare, set=team)
    now_too = here.move(bare, 2, "tagged")
    tag(tagged, remove=["team"])
    here.move(tagged, 1, "tagged")
    last = here.move(bare, 1, "tagged")
    changes = changes_of(read(watch, last.position))
    assert [change.revision for change in changes] == [mine.position, now_too.position, last.position]
    watch.cancel()
    # A watch that starts later, when the tags have changed, yields the same.
    tag(tagged, set=team)
    tag(bare, remove=["team", "tier"])
    for registry in (here, there):
        late = registry.watch(tags=team, from_revision=begun)
        assert changes_of(read(late, last.position)) == changes
        late.cancel()


def test_watch_resumes_on_process_started_later(log: Registries, here: Registry) -> None:
    model, begun = here.new_model(), here.head()
    moved = [here.move(model, version).position for version in (1, 2)]
    watch = log.start().watch(model=model, from_revision=begun)
    assert [change.revision for change in changes_of(read(watch, moved[-1]))] == moved
    watch.cancel()


def test_watch_follows_renamed_model_by_any_name(here: Registry, there: Registry) -> None:
    names = [here.new_model(), f"renamed-{new_id()}"]
    begun = here.move(names[0], 1).position
    watches = [there.watch(model=names[0])]
    assert [alias.version for alias in next(watches[0]).snapshot.aliases] == [1]
    renaming = v1.RenameModelRequest(model=names[0], new_name=names[1])
    renamed = here.registry.RenameModel(renaming, timeout=SECONDS).position
    watches += [there.watch(model=name, from_revision=begun) for name in names]
    moved = [here.move(names[1], version).position for version in (2, 1)]
    for watch in watches:
        changes = changes_of(read(watch, moved[-1]))
        assert [(change.model, change.revision) for change in changes] == [(names[1], revision) for revision in moved]
        assert renamed < changes[0].revision
        watch.cancel()


def test_watch_filters_by_names_up_to_revision(here: Registry, there: Registry) -> None:
    names = [here.new_model(), f"renamed-{new_id()}"]
    begun = here.head()
    watch = there.watch(model=names[1], from_revision=begun)
    here.move(names[0], 1)
    here.registry.RenameModel(v1.RenameModelRequest(model=names[0], new_name=names[1]), timeout=SECONDS)
    moved = [here.move(names[1], version).position for version in (2, 1)]
    changes = changes_of(read(watch, moved[-1]))
    assert [change.revision for change in changes] == moved
    watch.cancel()
    # A watch that starts later, when the name is known, yields the same.
    for registry in (here, there):
        late = registry.watch(model=names[1], from_revision=begun)
        assert changes_of(read(late, moved[-1])) == changes
        late.cancel()


def test_client_resumes_before_partly_read_release_set(here: Registry, models: list[str]) -> None:
    address = f"tracking={here.address},registry={here.address}"
    here.move_set(dict.fromkeys(models, 1))
    before = here.head()
    revision = here.move_set(dict.fromkeys(models, 2)).revision
    with rf.Client(address, actor="a-watcher") as client:
        with client.aliases.watch(from_revision=before) as watch:
            seen = [next(watch).model for _ in range(2)]
            assert before <= watch.position < revision
            between = watch.position
            seen += [next(watch).model for _ in range(2)]
            assert watch.position >= revision
        assert seen == models
        with client.aliases.watch(from_revision=between) as again:
            assert [next(again).model for _ in models] == models
