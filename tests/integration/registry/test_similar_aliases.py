"""Warnings about possible mistakes: an alias with a similar name, a move without effect, an unusable version."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

import rollforward as rf
from rollforward import v1
from tests.integration.cli.command_line import Cli, answer
from tests.integration.registry.scored_models import move_request
from tests.integration.registry.test_schedules import schedule, seconds_from_now
from tests.integration.up import ACTOR, SECONDS, Up, new_id


@pytest.fixture
def client(system: Up) -> Iterator[rf.Client]:
    """Connect a client of the SDK."""
    with rf.Client(system.address, actor="Ann") as connection:
        yield connection


@pytest.fixture
def protected(system: Up, model: str) -> Iterator[str]:
    """Create a model with the aliases champion, protected by a policy, and challenger."""
    policy = v1.Policy(name=f"p-{model}", models=model, aliases="champion", reason_required=True)
    system.policies.SetPolicy(v1.SetPolicyRequest(policy=policy), timeout=SECONDS)
    system.move(model, 1)
    system.move(model, 2, "challenger")
    yield model
    system.policies.RemovePolicy(v1.RemovePolicyRequest(name=policy.name), timeout=SECONDS)


def near(created: v1.NewAlias) -> list[tuple[str, int, bool]]:
    """Return the similar aliases in a response."""
    return [(alias.alias, alias.version, bool(alias.policies)) for alias in created.near]


@pytest.mark.parametrize("typed", ["champoin", "Champion", "champion-", "chmpion", "CHAMPION"])
def test_move_that_creates_alias_names_similar_ones(system: Up, protected: str, typed: str) -> None:
    response = system.registry.MoveAlias(move_request(protected, 1, typed), timeout=SECONDS)
    assert response.moved
    assert (response.created.model, response.created.alias) == (protected, typed)
    assert ("champion", 1, True) in near(response.created)


def test_move_that_creates_distinct_alias_names_none(system: Up, protected: str) -> None:
    response = system.registry.MoveAlias(move_request(protected, 1, "nightly"), timeout=SECONDS)
    assert response.HasField("created")
    assert near(response.created) == []


def test_alias_named_only_by_policy_is_similar(system: Up, model: str, protected: str) -> None:
    system.registry.RemoveAlias(v1.RemoveAliasRequest(model=model, alias="champion", reason="r"), timeout=SECONDS)
    response = system.registry.MoveAlias(move_request(protected, 1, "champoin"), timeout=SECONDS)
    assert near(response.created) == [("champion", 0, True)]


def test_move_of_existing_alias_creates_none(system: Up, protected: str) -> None:
    request = move_request(protected, 2, reason="better", request_id=new_id())
    for _ in range(2):
        response = system.registry.MoveAlias(request, timeout=SECONDS)
        assert (response.moved, response.HasField("created")) == (True, False)


def test_repeated_request_reports_creation_again(system: Up, protected: str) -> None:
    request = move_request(protected, 1, "champoin", request_id=new_id())
    first, second = (system.registry.MoveAlias(request, timeout=SECONDS).created for _ in range(2))
    assert first == second
    assert first.near


def test_release_set_and_schedule_name_similar_aliases(system: Up, protected: str) -> None:
    targets = [v1.AliasTarget(model=protected, alias=alias, version=1) for alias in ("challenger", "champoin")]
    released = system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets, reason="r"), timeout=SECONDS)
    assert [(created.alias, near(created)[0]) for created in released.created] == [("champoin", ("champion", 1, True))]
    request = v1.ScheduleMoveRequest(model=protected, alias="chmpion", version=1, at=seconds_from_now(3600))
    scheduled = system.registry.ScheduleMove(request, timeout=SECONDS)
    assert ("champion", 1, True) in near(scheduled.creates)
    request.alias, request.reason = "champion", "at night"
    assert not system.registry.ScheduleMove(request, timeout=SECONDS).HasField("creates")


@pytest.mark.parametrize("seconds", [-3600.0, -1.0, 0.0, -315_360_000.0])
def test_schedule_in_past_is_rejected(system: Up, model: str, seconds: float) -> None:
    request = v1.ScheduleMoveRequest(model=model, alias="champion", version=1, at=seconds_from_now(seconds))
    error = system.refused(system.registry.ScheduleMove, request)
    assert (error.reason, error.metadata["field"]) == ("INVALID_TIME", "at")


def test_repeated_schedule_returns_first_response_after_its_time(system: Up, model: str) -> None:
    request = v1.ScheduleMoveRequest(
        model=model, alias="champion", version=1, at=seconds_from_now(0.3), request_id=new_id()
    )
    first = system.registry.ScheduleMove(request, metadata=ACTOR, timeout=SECONDS).schedule
    with rf.Client(system.address).aliases.watch(model) as watch:
        next(change for change in watch if change.alias == "champion")
    assert system.registry.ScheduleMove(request, metadata=ACTOR, timeout=SECONDS).schedule == first


def test_sdk_warns_of_similar_names_and_unrecorded_reason(client: rf.Client, protected: str) -> None:
    with pytest.warns(rf.RollforwardWarning, match=r"Did you mean @champion \(v1, protected by policy"):
        client.aliases.move(f"{protected}@champoin", 1)
    with pytest.warns(rf.RollforwardWarning, match="unchanged"):
        client.aliases.move(f"{protected}@champion", 1, reason="again")
    with pytest.warns(rf.RollforwardWarning, match="unchanged"):
        client.aliases.move_many({f"{protected}@champion": 1}, reason="again")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.aliases.move(f"{protected}@chmpion", 1)
        assert client.aliases.move(f"{protected}@challenger", 2).version == 2


def test_sdk_warns_of_status_that_breaks_aliases(system: Up, client: rf.Client, protected: str) -> None:
    system.move(protected, 2, "stage")
    schedule(system, protected, 2, 3600.0)
    with pytest.warns(rf.RollforwardWarning) as caught:
        response = client.versions.set_status(protected, 2, "failed")
    assert (response.changed, list(response.aliases)) == (True, ["challenger", "stage"])
    assert list(response.scheduled_aliases) == ["champion"]
    assert len(caught) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.versions.set_status(protected, 2, "ready").changed
        assert not client.versions.set_status(protected, 2, "ready").changed
    for alias in ("challenger", "stage"):
        client.aliases.remove(f"{protected}@{alias}")
    with pytest.warns(rf.RollforwardWarning, match="scheduled"):
        client.versions.delete(protected, 2)
    client.aliases.remove(f"{protected}@champion", reason="r")
    with pytest.warns(rf.RollforwardWarning, match="scheduled"):
        client.models.delete(protected)


def test_command_line_reports_created_and_unchanged(cli: Cli, protected: str) -> None:
    created = cli("aliases", "move", f"{protected}@champoin", "1")
    assert (created.returncode, "created" in created.stdout) == (0, True)
    assert "@champion (v1, protected by policy" in created.stderr
    again = cli("aliases", "move", f"{protected}@champoin", "1", "--reason", "again")
    assert (again.returncode, "unchanged" in again.stdout) == (0, True)
    assert "reason was not recorded" in again.stderr
    fields = answer(cli("aliases", "move", f"{protected}@champoin", "2", "-o", "json"))
    assert (fields["moved"], fields["created"], fields["version"]) == (True, False, 2)
    failed = cli("versions", "set-status", protected, "v2", "failed")
    assert "@challenger, @champoin still point to it" in failed.stderr
