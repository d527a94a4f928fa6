"""The registry's live view and scheduler survive bugs: they fail, then continue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog.testing

from eventstore.errors import StoreUnavailable
from eventstore.event import Metadata, NewEvent, RecordedEvent
from eventstore.ids import new_id
from eventstore.memory import MemoryStore
from eventstore.projections.database import Database
from eventstore.projections.projector import Projector
from eventstore.tail import Tail
from rollforward import v1
from services import registry
from services.registry import scheduler
from services.registry.live_view import LiveView
from services.registry.projection.apply import RegistryProjection
from services.registry.scheduler import Scheduler
from services.registry.tag_history import Changes
from tests.servers.nats import until
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

DIGEST = f"sha256:{'1' * 64}"


class BuggyView(LiveView):
    """A live view that fails at one event."""

    bad_at = 0

    def _apply(self, event: RecordedEvent) -> None:
        if event.position == self.bad_at:
            raise ArithmeticError("a bug")
        super()._apply(event)


@dataclass
class Registry:
    """A log, its tail, its rows, and a live view that fails at a position."""

    log: MemoryStore
    tail: Tail
    rows: Projector
    live: BuggyView

    async def append(self, *payloads: object) -> int:
        """Append events to the model's stream."""
        events = [NewEvent("model/m", payload, Metadata("Ann"), key := new_id(), key) for payload in payloads]  # type: ignore[arg-type]
        return (await self.log.append(events))[-1]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Registry]:
    """Run a registry that has a model with one version."""
    log = MemoryStore("registry", registry.EVENTS)
    tail = Tail(log)
    rows = Projector(tail, RegistryProjection(), Database(str(tmp_path)))
    parts = Registry(log, tail, rows, BuggyView(rows, tail))
    await parts.append(v1.ModelCreated(model="m"), v1.VersionRegistered(model="m", version=1, digest=DIGEST))
    for part in (tail, rows, parts.live):
        await part.start()
    yield parts
    for part in (parts.live, rows, tail):
        await part.stop()


def moved(to: int) -> v1.AliasMoved:
    """Return the event of a moved alias."""
    return v1.AliasMoved(model="m", alias="a", to_version=to, to_digest=DIGEST)


async def test_failed_view_refuses_queries_until_it_is_reloaded(
    running: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, proceed = running.live._load, asyncio.Event()

    async def delayed() -> None:
        await proceed.wait()
        await load()

    monkeypatch.setattr(running.live, "_load", delayed)
    running.live.bad_at = 4
    with structlog.testing.capture_logs() as logged:
        await running.append(moved(1))
        await running.live.wait_for(3)
        assert running.live.resolve("m", "a").alias.version == 1
        await running.append(moved(1))
        await until(lambda: running.live.failure is not None)
        with pytest.raises(StoreUnavailable) as caught:
            running.live.resolve("m", "a")
        assert caught.value.reason == "PROJECTION_FAILED"
        proceed.set()
        await asyncio.wait_for(running.live.wait_for(4), scaled(20))
    assert running.live.resolve("m", "a").alias.revision == 4
    assert [entry["log_level"] for entry in logged] == ["error"]
    last = await running.append(moved(1))
    await asyncio.wait_for(running.live.wait_for(last), scaled(20))
    assert running.live.resolve("m", "a").alias.revision == last


class FailingScheduler(Scheduler):
    """A scheduler whose first look at what is due fails."""

    looks = 0

    async def _look(self) -> float:
        self.looks += 1
        if self.looks == 1:
            raise ArithmeticError("a bug")
        return await super()._look()


async def test_failed_scheduler_tries_again(running: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.0)
    failing = FailingScheduler(None, running.rows, running.tail)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logged:
        await failing.start()
        await until(lambda: failing.looks > 1)
        await failing.stop()
    assert [entry["log_level"] for entry in logged] == ["error"]


class CountingScheduler(Scheduler):
    """A scheduler that counts how often it queries what is due."""

    looks = 0

    async def _look(self) -> float:
        self.looks += 1
        return await super()._look()


async def test_scheduler_continues_after_failed_batch(running: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def failing_once(events: object) -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ArithmeticError("a bug")
        return True

    monkeypatch.setattr(scheduler, "_sets_a_time", failing_once)
    counting = CountingScheduler(None, running.rows, running.tail)  # type: ignore[arg-type]
    with structlog.testing.capture_logs() as logged:
        await counting.start()
        await until(lambda: counting.looks == 1)
        await running.append(moved(1))
        await until(lambda: calls == 1)
        await until(lambda: counting.looks == 2)
        await running.append(moved(1))
        await until(lambda: calls == 2)
        await counting.stop()
    assert [entry["log_level"] for entry in logged] == ["error"]


def tagged(value: str | None) -> v1.ModelTagsChanged:
    """Return the event of the tag "team" set, or removed."""
    return v1.ModelTagsChanged(model="m", changes=[v1.TagChange(key="team", to_value=value)])


async def test_past_tags_are_read_from_log(running: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("a", None, "b"):
        await running.append(tagged(value))
        await running.append(moved(1))
    late = LiveView(running.rows, running.tail)
    await running.rows.wait_for(await running.log.head())
    await late.start()
    events = [event async for event in running.log.read("model/m") if isinstance(event.data, v1.AliasMoved)]
    real = late._history.read

    async def overtaken(origin: str) -> Changes:
        """Read, while one more change is received."""
        monkeypatch.undo()
        changes = await real(origin)
        await late.wait_for(await running.append(tagged("c")))
        return changes

    monkeypatch.setattr(late._history, "read", overtaken)
    await late.recall_tags(events)
    tags_at = {
        event.position: [tag for tag in "abc" if late.had_tags("m", {"team": tag}, event.position)] for event in events
    }
    assert tags_at == {4: ["a"], 6: [], 8: ["b"]}
    assert late.had_tags("m", {"team": "c"}, await running.log.head())
    # Later changes are added to those that were read.
    await late.wait_for(await running.append(tagged("d")))
    assert late.had_tags("m", {"team": "c"}, await running.log.head() - 1)
    assert late.had_tags("m", {"team": "d"}, await running.log.head())
    await late.stop()
