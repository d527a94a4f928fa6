"""Commands that something happens to while they are done."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from eventstore.errors import TooManyEvents
from eventstore.event import MAX_APPEND_EVENTS, Metadata
from rollforward import v1
from services.registry import POLICIES_STREAM
from tests.model.registry_system import System
from tests.timeouts import scaled

DIGEST = f"sha256:{'1' * 64}"


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """A registry over an empty log."""
    system = System(str(tmp_path))
    system.start()
    yield system
    system.close()


def registering(system: System, model: str) -> None:
    """Registers a version."""

    async def found() -> str:
        return DIGEST

    request = v1.RegisterVersionRequest(model=model)
    assert system.do(lambda metadata: system.commands.register(request, found, metadata)) == ""


def moving(system: System, model: str, alias: str, version: int) -> str:
    """Moves an alias; why it was refused."""
    request = v1.MoveAliasRequest(model=model, alias=alias, version=version)
    return system.do(lambda metadata: system.commands.move(request, metadata))


def release(model: str, aliases: Sequence[str], version: int) -> v1.MoveAliasesRequest:
    """Asks for aliases of a model to be moved together."""
    return v1.MoveAliasesRequest(
        targets=[v1.AliasTarget(model=model, alias=alias, version=version) for alias in aliases]
    )


def releasing(system: System, model: str, aliases: Sequence[str], version: int) -> str:
    """Moves aliases of a model together; why it was refused."""
    request = release(model, aliases, version)
    return system.do(lambda metadata: system.commands.move_together(request, metadata))


def test_a_version_goes_to_the_model_that_was_given_the_name_meanwhile(system: System) -> None:
    registering(system, "old")
    calls = 0

    async def found_late() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await system.commands.rename(v1.RenameModelRequest(model="old", new_name="new"), Metadata("Ann"))
        return DIGEST

    system.run(system.commands.register(v1.RegisterVersionRequest(model="new"), found_late, Metadata("Bob")))
    assert calls == 2
    registered = [event.stream for event in system.events if isinstance(event.data, v1.VersionRegistered)]
    assert registered == ["model/old", "model/old"]
    system.rebuild()  # rows can be made of it


@pytest.mark.parametrize("status", [v1.VERSION_STATUS_FAILED, v1.VERSION_STATUS_PENDING])
def test_what_cannot_be_used_is_not_copied(system: System, status: v1.VersionStatus.ValueType) -> None:
    registering(system, "staging")
    unusable = v1.SetVersionStatusRequest(model="staging", version=1, status=status)
    system.do(lambda metadata: system.commands.handle("staging", unusable, metadata))
    request = v1.CopyVersionRequest(model="staging", version=1, to_model="prod")
    assert system.do(lambda metadata: system.commands.copy(request, metadata)) == "VERSION_NOT_READY"


def test_a_dry_run_of_too_much_is_refused_as_the_rollback_is(system: System) -> None:
    registering(system, "fraud")
    registering(system, "fraud")
    names = [f"a{number}x" for number in range(MAX_APPEND_EVENTS + 1)]
    for version in (1, 2):
        assert releasing(system, "fraud", names[:-1], version) == ""
        assert moving(system, "fraud", names[-1], version) == ""
    for dry_run in (True, False):
        request = v1.RollbackRequest(models="fraud", aliases="a*x", dry_run=dry_run)
        with pytest.raises(TooManyEvents):
            system.run(system.rollbacks.do(request, None, Metadata("Ann")))


class TestGatedReleaseSets:
    """A set whose gates look at much is judged once, and beside it others go on."""

    NAMES = tuple(f"a{number}x" for number in range(200))

    @pytest.fixture
    def gated(self, system: System) -> System:
        """A model with two versions, a policy that binds many aliases of it, and another model."""
        for model in ("fraud", "fraud", "iris"):
            registering(system, model)
        policy = v1.Policy(name="p", models="fraud", aliases="a*", gate="candidate.version > 0")
        request = v1.SetPolicyRequest(policy=policy)
        system.do(lambda metadata: system.policies.handle(POLICIES_STREAM, request, metadata))
        return system

    def test_is_judged_once(self, gated: System, monkeypatch: pytest.MonkeyPatch) -> None:
        asked, head = [], gated.runs_log.head

        async def counted() -> int:
            asked.append(1)
            return await head()

        monkeypatch.setattr(gated.runs_log, "head", counted)
        assert releasing(gated, "fraud", self.NAMES, 1) == ""
        assert len(asked) == 1
        moved = [event.data for event in gated.events if isinstance(event.data, v1.AliasMoved)]
        assert [len(payload.evidence) for payload in moved] == [1] * len(self.NAMES)

    def test_others_go_on_while_it_is_judged(self, gated: System, monkeypatch: pytest.MonkeyPatch) -> None:
        head = gated.runs_log.head

        async def scenario() -> int:
            judging, go_on = asyncio.Event(), asyncio.Event()

            async def held_up() -> int:
                judging.set()
                await go_on.wait()
                return await head()

            monkeypatch.setattr(gated.runs_log, "head", held_up)
            async with asyncio.TaskGroup() as tasks, asyncio.timeout(scaled(20)):
                large = tasks.create_task(gated.commands.move_together(release("fraud", self.NAMES, 1), Metadata("A")))
                await judging.wait()
                await gated.commands.move_together(release("iris", ["x", "y"], 1), Metadata("B"))
                go_on.set()
                events, _ = await large
            return len(events)

        assert gated.run(scenario()) == len(self.NAMES)

    def test_is_judged_again_when_a_holder_was_moved_meanwhile(
        self, gated: System, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, head = [], gated.runs_log.head

        async def overtaken() -> int:
            asked.append(1)
            if len(asked) == 1:
                request = v1.MoveAliasRequest(model="fraud", alias="champion", version=2)
                await gated.commands.move(request, Metadata("B"))
            return await head()

        monkeypatch.setattr(gated.runs_log, "head", overtaken)
        events, _ = gated.run(gated.commands.move_together(release("fraud", self.NAMES, 1), Metadata("A")))
        assert len(asked) == 2
        seen = {one.others["champion"].version for event in events for one in event.data.evidence}  # type: ignore[attr-defined]
        assert seen == {2}
