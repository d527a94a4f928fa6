"""Many watchers that resume from far back: all of them catch up, and no move fails meanwhile."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import rollforward as rf
from rollforward import v1
from tests.integration.up import SECONDS, Up, new_id

WATCHERS = 40
MODELS = 30
MOVES = 900


@pytest.fixture(scope="module")
def models(system: Up) -> list[str]:
    """Create models with a history of several pages."""
    names = [system.new_model() for _ in range(MODELS)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: system.move(names[number % MODELS], 1 + number // MODELS % 2), range(MOVES)))
    for version in (2, 1) * 2:
        targets = [v1.AliasTarget(model=name, alias="champion", version=version) for name in names]
        system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=SECONDS)
    return names


def appends(step: v1.WatchAliasesResponse) -> list[v1.AliasChanges]:
    """Return the changes of each append in a step."""
    if step.HasField("appends"):
        assert len(step.appends.appends) > 1
        return list(step.appends.appends)
    return [step.changes] if step.HasField("changes") else []


class Watchers:
    """Watches of all aliases from the beginning, each read by its own thread up to a position."""

    def __init__(self, system: Up, until: int) -> None:
        self._stub = v1.RegistryServiceStub(system.channel)
        self._until = until
        self.read: list[list[v1.WatchAliasesResponse]] = []

    def watch(self, number: int) -> None:
        request = v1.WatchAliasesRequest(from_revision=0, several_appends=number % 2 == 0)
        steps = []
        call = self._stub.WatchAliases(request, timeout=8 * SECONDS)
        for step in call:
            steps.append(step)
            if step.position >= self._until:
                break
        call.cancel()
        self.read.append(steps)


def moves(system: Up, model: str, stop: threading.Event) -> int:
    """Move an alias until stopped; return the number of moves. Raises when one fails."""
    for number in itertools.count(1):
        system.move(model, 1 + number % 2, alias="meanwhile")
        if stop.is_set():
            return number
    raise AssertionError


def test_all_watches_catch_up_and_no_move_fails(system: Up, models: list[str]) -> None:
    watchers, stop = Watchers(system, system.heads()["registry"]), threading.Event()
    with ThreadPoolExecutor(WATCHERS + 1) as pool:
        moving = pool.submit(moves, system, models[0], stop)
        watching = [pool.submit(watchers.watch, number) for number in range(WATCHERS)]
        for future in watching:
            future.result()
        stop.set()
        assert moving.result() > 0
    request = v1.ListAliasHistoryRequest(page_size=1000)
    listed = list(reversed(list(_history(system, request))))
    for steps in watchers.read:
        assert [step.position for step in steps] == sorted({step.position for step in steps})
        changes = [change for step in steps for append in appends(step) for change in append.changes]
        assert changes == listed[: len(changes)]
        assert changes[-1].revision >= watchers._until - MODELS
        # The changes of an append are complete, and separate from others.
        for append in [append for step in steps for append in appends(step)]:
            assert len({change.revision for change in append.changes}) == 1
        revisions = [append.changes[0].revision for step in steps for append in appends(step)]
        assert revisions == sorted(set(revisions))


def _history(system: Up, request: v1.ListAliasHistoryRequest) -> Iterator[v1.AliasChange]:
    headers_at_head = (("rollforward-min-position", f"registry={system.heads()['registry']}"),)
    while True:
        response = system.registry.ListAliasHistory(request, metadata=headers_at_head, timeout=SECONDS)
        yield from response.changes
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def test_client_yields_same_changes_one_by_one(system: Up, models: list[str]) -> None:
    request = v1.ListAliasHistoryRequest(model=models[3], page_size=1000)
    listed = list(reversed(list(_history(system, request))))
    with rf.Client(system.address) as client, client.aliases.watch(models[3], from_revision=0) as watch:
        assert [next(watch) for _ in listed] == listed
        assert watch.position == listed[-1].revision


@pytest.mark.usefixtures("models")
def test_watch_without_matching_changes_reaches_head(system: Up) -> None:
    head = system.heads()["registry"]
    request = v1.WatchAliasesRequest(model=f"none-{new_id()}", from_revision=0, several_appends=True)
    for step in system.registry.WatchAliases(request, timeout=SECONDS):
        assert step.HasField("bookmark")
        if step.position >= head:
            break
