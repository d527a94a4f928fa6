"""Rollback: what it restores, on which condition, at one revision or not at all."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import grpc
import pytest

from rollforward import Conflict, v1
from tests.integration.up import ACTOR, SECONDS, Client, Up, new_id, up


def roll_back(system: Client, models: str, aliases: str = "champion", **fields: object) -> v1.RollbackResponse:
    """Roll aliases back."""
    request = v1.RollbackRequest(models=models, aliases=aliases, reason="it was worse", **fields)  # type: ignore[arg-type]
    return system.registry.Rollback(request, metadata=ACTOR, timeout=SECONDS)


def resolve(system: Client, model: str, alias: str = "champion") -> int:
    """Return the version of an alias; 0 if it is unset."""
    aliases = system.registry.ResolveAliases(v1.ResolveAliasesRequest(model=model), timeout=SECONDS).aliases
    return next((current.version for current in aliases if current.alias == alias), 0)


def last_change(system: Client, model: str) -> v1.AliasChange:
    """Return the champion's last change."""
    request = v1.ListAliasHistoryRequest(model=model, alias="champion", page_size=1)
    return system.registry.ListAliasHistory(request, timeout=SECONDS).changes[0]


@pytest.fixture
def family(system: Up) -> list[str]:
    """Create three models of one family, each with two versions and the champion on the second."""
    root = new_id()
    names = [f"{root}-{number}" for number in range(3)]
    digest = system.upload()
    for name in names:
        for _ in range(2):
            system.registry.RegisterVersion(v1.RegisterVersionRequest(model=name, digest=digest), timeout=SECONDS)
        for version in (1, 2):
            system.move(name, version)
    return names


def test_rollback_restores_previous_version_and_back(system: Up, model: str) -> None:
    first = system.move(model, 1).alias
    system.move(model, 2)
    response = roll_back(system, model)
    [change] = response.changes
    assert (change.from_version, change.to_version, change.restored_revision) == (2, 1, first.revision)
    assert response.revision == response.position
    last = last_change(system, model)
    assert (last.cause, last.restored_revision, last.reason) == (
        v1.ALIAS_CAUSE_ROLLBACK,
        first.revision,
        "it was worse",
    )
    assert [change.to_version for change in roll_back(system, model).changes] == [2]
    assert resolve(system, model) == 2


def test_previous_version_is_found_across_removals(system: Up, model: str) -> None:
    for version in (1, 2):
        system.move(model, version)
    removal = v1.RemoveAliasRequest(model=model, alias="champion")
    system.registry.RemoveAlias(removal, timeout=SECONDS)
    system.move(model, 2)
    assert [change.to_version for change in roll_back(system, model).changes] == [1]
    system.registry.RemoveAlias(removal, timeout=SECONDS)
    assert [change.to_version for change in roll_back(system, model).changes] == [1]


def test_rollback_to_position_time_or_before_event(system: Up, model: str) -> None:
    first = system.move(model, 1).alias
    second = system.move(model, 2).alias
    response = roll_back(system, model, as_of=v1.AsOf(position=first.revision))
    assert (response.to_position, [change.to_version for change in response.changes]) == (first.revision, [1])
    assert [change.to_version for change in roll_back(system, model, as_of=v1.AsOf(time=second.moved_at)).changes] == [
        2
    ]
    back = last_change(system, model)
    assert [change.to_version for change in roll_back(system, model, before_event=back.event_id).changes] == [1]
    response = roll_back(system, model, as_of=v1.AsOf(position=first.revision - 1))
    assert [(change.from_version, change.to_version) for change in response.changes] == [(1, 0)]
    assert resolve(system, model) == 0
    refused = system.refused(
        system.registry.Rollback, v1.RollbackRequest(models=model, aliases="*", before_event=new_id())
    )
    assert refused.reason == "EVENT_NOT_FOUND"


def test_family_is_rolled_back_at_one_revision(system: Up, family: list[str]) -> None:
    pattern = f"{family[0][:-2]}-*"
    dry = roll_back(system, pattern, "*", dry_run=True)
    assert system.heads()["registry"] == dry.computed_at
    assert [(change.model, change.from_version, change.to_version) for change in dry.changes] == [
        (name, 2, 1) for name in family
    ]
    response = roll_back(system, pattern, "*", expected_position=dry.computed_at)
    assert list(response.changes) == list(dry.changes)
    listed = [last_change(system, name) for name in family]
    assert {change.revision for change in listed} == {response.revision}


def test_escaped_pattern_selects_model_with_wildcard_in_name(system: Up) -> None:
    root, digest = new_id(), system.upload()
    for name in (f"{root}*", f"{root}-eu"):
        for version in (1, 2):
            system.registry.RegisterVersion(v1.RegisterVersionRequest(model=name, digest=digest), timeout=SECONDS)
            system.move(name, version)
    assert [change.model for change in roll_back(system, f"{root}*", dry_run=True).changes] == [
        f"{root}*",
        f"{root}-eu",
    ]
    assert [change.model for change in roll_back(system, f"{root}[*]").changes] == [f"{root}*"]
    assert (resolve(system, f"{root}*"), resolve(system, f"{root}-eu")) == (1, 2)


def test_change_since_dry_run_rejects_rollback(system: Up, family: list[str]) -> None:
    pattern = f"{family[0][:-2]}-*"
    dry = roll_back(system, pattern, "*", dry_run=True)
    system.move(family[1], 1)
    request = v1.RollbackRequest(models=pattern, aliases="*", expected_position=dry.computed_at)
    refused = system.refused(system.registry.Rollback, request)
    assert isinstance(refused, Conflict)
    assert (refused.reason, refused.metadata["model"]) == ("CHANGED_SINCE", family[1])


def test_rollback_checks_expected_revision(system: Up, model: str) -> None:
    system.move(model, 1)
    seen = system.move(model, 2).alias
    request = v1.RollbackRequest(models=model, aliases="champion", expected_revision=seen.revision - 1)
    refused = system.refused(system.registry.Rollback, request)
    assert isinstance(refused, Conflict)
    assert (refused.reason, refused.current) == ("WRONG_REVISION", seen)
    assert roll_back(system, model, expected_revision=seen.revision).changes


def test_deleted_version_is_rejected_or_skipped(system: Up, family: list[str]) -> None:
    gone = v1.DeleteVersionRequest(model=family[0], version=1)
    system.registry.DeleteVersion(gone, timeout=SECONDS)
    pattern = f"{family[0][:-2]}-*"
    refused = system.refused(system.registry.Rollback, v1.RollbackRequest(models=pattern, aliases="*"))
    assert (refused.reason, refused.metadata["model"]) == ("VERSION_DELETED", family[0])
    response = roll_back(system, pattern, "*", skip_missing=True)
    assert [(change.model, change.skipped) for change in response.changes] == [
        (family[0], True),
        (family[1], False),
        (family[2], False),
    ]
    assert [resolve(system, name) for name in family] == [2, 1, 1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"models": "", "aliases": "*"}, "INVALID_SCOPE"),
        ({"models": "*", "aliases": ""}, "INVALID_SCOPE"),
        ({"models": "none-*", "aliases": "*"}, "ALIAS_NOT_FOUND"),
        ({"models": "*", "aliases": "*", "as_of": v1.AsOf()}, "INVALID_AS_OF"),
        ({"models": "*", "aliases": "*", "as_of": v1.AsOf(position=2**40)}, "POSITION_AHEAD"),
        ({"models": "*", "aliases": "*", "expected_revision": 1}, "INVALID_SCOPE"),
    ],
)
def test_invalid_rollback_is_rejected(system: Up, family: list[str], fields: dict[str, object], reason: str) -> None:
    request = v1.RollbackRequest(**fields)  # type: ignore[arg-type]
    assert system.refused(system.registry.Rollback, request).reason == reason


def test_alias_without_history_has_nothing_to_restore(system: Up, model: str) -> None:
    system.move(model, 1)
    request = v1.RollbackRequest(models=model, aliases="*")
    assert system.refused(system.registry.Rollback, request).reason == "NOTHING_TO_RESTORE"


def test_repeated_rollback_runs_once(system: Up, model: str) -> None:
    for version in (1, 2):
        system.move(model, version)
    first = roll_back(system, model, request_id=f"once-{model}")
    again = roll_back(system, model, request_id=f"once-{model}")
    assert (again.revision, again.position, list(again.changes)) == (
        first.revision,
        first.position,
        list(first.changes),
    )
    assert resolve(system, model) == 1


def test_rollback_to_recent_version_skips_gates_and_records_it(system: Up, model: str) -> None:
    for version in (1, 2):
        system.move(model, version)
    gate = "candidate.version > 5"
    policy = v1.Policy(name=f"p-{new_id()}", models=model, aliases="champion", gate=gate)
    system.policies.SetPolicy(v1.SetPolicyRequest(policy=policy), timeout=SECONDS)
    with pytest.raises(grpc.RpcError):
        system.move(model, 1)
    [change] = roll_back(system, model).changes
    assert list(change.skipped_gates) == [gate]
    assert list(last_change(system, model).skipped_gates) == [gate]
    with pytest.raises(grpc.RpcError):
        system.move(model, 2)


@pytest.mark.busy
@pytest.mark.parametrize("delay", [0.02, 0.1])
def test_killed_rollback_restores_all_aliases_or_none(tmp_path: Path, delay: float) -> None:
    names = [f"alias-{number}" for number in range(1000)]
    with up(tmp_path / "data") as system:
        model = system.new_model()
        for version in (1, 2):
            targets = [v1.AliasTarget(model=model, alias=name, version=version) for name in names]
            system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=SECONDS)
        outcomes: list[object] = []

        def roll_back_all() -> None:
            try:
                outcomes.append(roll_back(system, model, "*", request_id="all"))
            except grpc.RpcError as error:
                outcomes.append(error.code())

        rolling_back = threading.Thread(target=roll_back_all)
        rolling_back.start()
        time.sleep(delay)
        system.program.kill()
        rolling_back.join(SECONDS)
    with up(tmp_path / "data") as system:
        request = v1.ResolveAliasesRequest(model=model, page_size=1000)
        versions = {alias.version for alias in system.registry.ResolveAliases(request, timeout=SECONDS).aliases}
        assert versions in ({1}, {2})
        if isinstance(outcomes[0], v1.RollbackResponse):
            assert versions == {1}
        again = roll_back(system, model, "*", request_id="all")
        assert len(again.changes) == 1000
        versions = {alias.version for alias in system.registry.ResolveAliases(request, timeout=SECONDS).aliases}
        assert versions == {1}
