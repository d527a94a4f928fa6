"""The guarantees in docs/watch.md during outages: a watch resumes where it was, whatever was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from eventstore.tail import KEPT_BYTES
from rollforward import v1
from tests.contract.watch.registries import Registries, changes_of, read, reason_at_end, registries
from tests.e2e.processes import Services
from tests.integration.up import SECONDS, Client

pytestmark = pytest.mark.busy

CHAMPION = "m@champion"
MOVES = 60
LARGE_EVENTS = 90  # of 400 kB each

Outage = Callable[[Services], object]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Registries]:
    """Yield a log on which registry processes can be started."""
    with registries(tmp_path) as started:
        yield started


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Yield all services, with a model of two versions."""
    with Services(tmp_path / "data") as running:
        client = Client(running.address)
        digest = client.upload()
        for _ in range(2):
            client.registry.RegisterVersion(v1.RegisterVersionRequest(model="m", digest=digest), timeout=SECONDS)
        client.channel.close()
        yield running


def killed(services: Services) -> None:
    """Kill the services and NATS, and start them again."""
    services.kill()
    services.start()


def stopped(services: Services) -> None:
    """Stop the services gracefully, and start them again."""
    assert services.stop() == 0
    services.start()


def nats_killed(services: Services) -> None:
    """Kill NATS alone, which the services restart."""
    services.kill_nats()


@pytest.mark.timeout(180)
def test_client_yields_each_change_once_despite_outages(services: Services) -> None:
    outages: dict[int, Outage] = {10: killed, 20: nats_killed, 30: stopped, 40: nats_killed, 50: killed}
    with services.connect("writer") as writing, services.connect("watcher") as watching, ThreadPoolExecutor(1) as pool:
        watch = watching.aliases.watch(CHAMPION)
        moves = pool.submit(lambda: [writing.aliases.move(CHAMPION, 1 + turn % 2).revision for turn in range(MOVES)])
        changes = []
        for number in range(MOVES):
            changes.append(next(watch))
            if number in outages:
                outages[number](services)
        watch.close()
        assert [change.revision for change in changes] == moves.result()
        assert changes == list(reversed(list(watching.aliases.history(CHAMPION))))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("outage", [killed, stopped, nats_killed])
def test_watch_resumes_after_outage(services: Services, outage: Outage) -> None:
    with services.connect("writer") as writer:
        first = [writer.aliases.move(CHAMPION, version).revision for version in (1, 2) * 5]
        client = Client(services.address)
        watch = client.registry.WatchAliases(v1.WatchAliasesRequest(from_revision=first[0]), timeout=SECONDS)
        steps = read(watch, first[4])
        outage(services)
        if not services_kept_the_stream(outage):
            rest, reason = reason_at_end(watch)
            assert reason == ("SHUTTING_DOWN" if outage is stopped else "UNAVAILABLE")
            steps += rest
        then = [writer.aliases.move(CHAMPION, version).revision for version in (1, 2) * 5]
        watch.cancel()
        again = v1.WatchAliasesRequest(from_revision=steps[-1].position)
        resumed = client.registry.WatchAliases(again, wait_for_ready=True, timeout=SECONDS)
        assert [change.revision for change in changes_of([*steps, *read(resumed, then[-1])])] == [*first[1:], *then]
        resumed.cancel()
        client.channel.close()


def services_kept_the_stream(outage: Outage) -> bool:
    """Return whether the process with the watch survived."""
    return outage is nats_killed


def test_watch_resumes_on_other_process(log: Registries) -> None:
    doomed, there = log.start(), log.start()
    model = there.new_model()
    begun = doomed.head()
    watch = doomed.watch(from_revision=begun)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [there.move(model, version).position for version in (1, 2) * 30])
        steps = [next(watch) for _ in range(5)]
        doomed.program.kill()
        rest, reason = reason_at_end(watch)
        assert reason == "UNAVAILABLE"
        steps += rest
        ended = writing.result()[-1]
    assert steps[-1].position <= ended
    resumed = there.watch(from_revision=steps[-1].position)
    steps += read(resumed, ended) if steps[-1].position < ended else []
    assert [change.revision for change in changes_of(steps)] == writing.result()
    assert changes_of(steps) == there.changes(begun)
    resumed.cancel()


@pytest.mark.timeout(180)
def test_watch_without_reader_ends_and_resumes_without_gap(log: Registries) -> None:
    registry, there = log.start(), log.start()
    model, *others = [there.new_model() for _ in range(5)]
    slow = [registry.watch(model=model) for _ in range(5)]
    begun = max(next(watch).position for watch in slow)
    process = psutil.Process(registry.program.pid)
    before = process.memory_info().rss
    # More than the buffers of an unread stream take ...
    for turn in range(24):
        targets = [v1.AliasTarget(model=model, alias=f"slow-{number}", version=1 + turn % 2) for number in range(60)]
        large = v1.MoveAliasesRequest(targets=targets, reason="r" * 4_000)
        there.registry.MoveAliases(large, timeout=SECONDS)

    def describe(other: str) -> None:
        # ... then more than a process caches for slow watches.
        for turn in range(LARGE_EVENTS // len(others)):
            tags = {str(key): f"{turn}.{key}".ljust(5_000, "x") for key in range(40)}
            there.registry.ChangeTags(v1.ChangeTagsRequest(model=other, set=tags), timeout=SECONDS)

    with ThreadPoolExecutor(len(others)) as pool:
        list(pool.map(describe, others))
    truth = there.changes(begun, model=model)
    ended = truth[-1].revision
    assert changes_of(read(registry.watch(model=model, from_revision=begun), ended)) == truth
    assert process.memory_info().rss - before < 3 * KEPT_BYTES
    for watch in slow:
        steps, reason = reason_at_end(watch)
        assert reason == "WATCHER_TOO_SLOW"
        resumed = registry.watch(model=model, from_revision=steps[-1].position)
        later = read(resumed, ended)
        assert steps
        assert changes_of(later)
        assert changes_of([*steps, *later]) == truth
        resumed.cancel()
