"""Registry commands during which something else changes."""

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
    """Start a registry over an empty log."""
    system = System(str(tmp_path))
    system.start()
    yield system
    system.close()


def register(system: System, model: str) -> None:
    """Register a version."""

    async def find_digest() -> str:
        return DIGEST

    request = v1.RegisterVersionRequest(model=model)
    assert system.do(lambda metadata: system.commands.register(request, find_digest, metadata)) == ""


def move_alias(system: System, model: str, alias: str, version: int) -> str:
    """Move an alias; return the reason of a rejection."""
    request = v1.MoveAliasRequest(model=model, alias=alias, version=version)
    return system.do(lambda metadata: system.commands.move(request, metadata))


def release_request(model: str, aliases: Sequence[str], version: int) -> v1.MoveAliasesRequest:
    """Return a request that moves aliases of a model together."""
    return v1.MoveAliasesRequest(
        targets=[v1.AliasTarget(model=model, alias=alias, version=version) for alias in aliases]
    )


def move_aliases(system: System, model: str, aliases: Sequence[str], version: int) -> str:
    """Move aliases of a model together; return the reason of a rejection."""
    request = release_request(model, aliases, version)
    return system.do(lambda metadata: system.commands.move_together(request, metadata))


def test_version_is_registered_in_model_renamed_meanwhile(system: System) -> None:
    register(system, "old")
    calls = 0

    async def find_digest_late() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            await system.commands.rename(v1.RenameModelRequest(model="old", new_name="new"), Metadata("Ann"))
        return DIGEST

    system.run(system.commands.register(v1.RegisterVersionRequest(model="new"), find_digest_late, Metadata("Bob")))
    assert calls == 2
    registered = [event.stream for event in system.events if isinstance(event.data, v1.VersionRegistered)]
    assert registered == ["model/old", "model/old"]
    system.rebuild()  # the log can be projected


@pytest.mark.parametrize("status", [v1.VERSION_STATUS_FAILED, v1.VERSION_STATUS_PENDING])
def test_version_that_is_not_ready_is_not_copied(system: System, status: v1.VersionStatus.ValueType) -> None:
    register(system, "staging")
    unusable = v1.SetVersionStatusRequest(model="staging", version=1, status=status)
    system.do(lambda metadata: system.commands.handle("staging", unusable, metadata))
    request = v1.CopyVersionRequest(model="staging", version=1, to_model="prod")
    assert system.do(lambda metadata: system.commands.copy(request, metadata)) == "VERSION_NOT_READY"


def test_dry_run_of_too_large_rollback_is_rejected(system: System) -> None:
    register(system, "fraud")
    register(system, "fraud")
    names = [f"a{number}x" for number in range(MAX_APPEND_EVENTS + 1)]
    for version in (1, 2):
        assert move_aliases(system, "fraud", names[:-1], version) == ""
        assert move_alias(system, "fraud", names[-1], version) == ""
    for dry_run in (True, False):
        request = v1.RollbackRequest(models="fraud", aliases="a*x", dry_run=dry_run)
        with pytest.raises(TooManyEvents):
            system.run(system.rollbacks.do(request, None, Metadata("Ann")))


class TestGatedReleaseSets:
    """Large release sets with gates."""

    NAMES = tuple(f"a{number}x" for number in range(200))

    @pytest.fixture
    def gated(self, system: System) -> System:
        """Create a model with two versions, a policy for many of its aliases, and another model."""
        for model in ("fraud", "fraud", "iris"):
            register(system, model)
        policy = v1.Policy(name="p", models="fraud", aliases="a*", gate="candidate.version > 0")
        request = v1.SetPolicyRequest(policy=policy)
        system.do(lambda metadata: system.policies.handle(POLICIES_STREAM, request, metadata))
        return system

    def test_gates_are_evaluated_once_for_release_set(self, gated: System, monkeypatch: pytest.MonkeyPatch) -> None:
        calls, head = [], gated.runs_log.head

        async def counted() -> int:
            calls.append(1)
            return await head()

        monkeypatch.setattr(gated.runs_log, "head", counted)
        assert move_aliases(gated, "fraud", self.NAMES, 1) == ""
        assert len(calls) == 1
        moved = [event.data for event in gated.events if isinstance(event.data, v1.AliasMoved)]
        assert [len(payload.evidence) for payload in moved] == [1] * len(self.NAMES)

    def test_other_commands_run_while_gates_are_evaluated(self, gated: System, monkeypatch: pytest.MonkeyPatch) -> None:
        head = gated.runs_log.head

        async def scenario() -> int:
            evaluating, proceed = asyncio.Event(), asyncio.Event()

            async def slow_head() -> int:
                evaluating.set()
                await proceed.wait()
                return await head()

            monkeypatch.setattr(gated.runs_log, "head", slow_head)
            async with asyncio.TaskGroup() as tasks, asyncio.timeout(scaled(20)):
                large = tasks.create_task(
                    gated.commands.move_together(release_request("fraud", self.NAMES, 1), Metadata("A"))
                )
                await evaluating.wait()
                await gated.commands.move_together(release_request("iris", ["x", "y"], 1), Metadata("B"))
                proceed.set()
                events, _ = await large
            return len(events)

        assert gated.run(scenario()) == len(self.NAMES)

    def test_gates_are_evaluated_again_after_conflict(self, gated: System, monkeypatch: pytest.MonkeyPatch) -> None:
        calls, head = [], gated.runs_log.head

        async def overtaken() -> int:
            calls.append(1)
            if len(calls) == 1:
                request = v1.MoveAliasRequest(model="fraud", alias="champion", version=2)
                await gated.commands.move(request, Metadata("B"))
            return await head()

        monkeypatch.setattr(gated.runs_log, "head", overtaken)
        events, _ = gated.run(gated.commands.move_together(release_request("fraud", self.NAMES, 1), Metadata("A")))
        assert len(calls) == 2
        seen = {evidence.others["champion"].version for event in events for evidence in event.data.evidence}  # type: ignore[attr-defined]
        assert seen == {2}
