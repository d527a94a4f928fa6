"""Moves that may not be what was meant: to a new alias that is near another, to where it is, to what cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

import rollforward as rf
from rollforward import v1
from tests.integration.cli.command_line import Cli, answer
from tests.integration.registry.scored import moving
from tests.integration.registry.test_schedules import schedule, seconds_from_now
from tests.integration.up import ACTOR, SECONDS, Up, new_id


@pytest.fixture
def client(system: Up) -> Iterator[rf.Client]:
    """The SDK's connection."""
    with rf.Client(system.address, actor="Ann") as connection:
        yield connection


@pytest.fixture
def protected(system: Up, model: str) -> Iterator[str]:
    """A model with the aliases champion, which a policy protects, and challenger."""
    policy = v1.Policy(name=f"p-{model}", models=model, aliases="champion", reason_required=True)
    system.policies.SetPolicy(v1.SetPolicyRequest(policy=policy), timeout=SECONDS)
    system.move(model, 1)
    system.move(model, 2, "challenger")
    yield model
    system.policies.RemovePolicy(v1.RemovePolicyRequest(name=policy.name), timeout=SECONDS)


def near(created: v1.NewAlias) -> list[tuple[str, int, bool]]:
    """What a response says of near names."""
    return [(one.alias, one.version, bool(one.policies)) for one in created.near]


@pytest.mark.parametrize("typed", ["champoin", "Champion", "champion-", "chmpion", "CHAMPION"])
def test_a_move_that_creates_an_alias_names_near_ones(system: Up, protected: str, typed: str) -> None:
    response = system.registry.MoveAlias(moving(protected, 1, typed), timeout=SECONDS)
    assert response.moved
    assert (response.created.model, response.created.alias) == (protected, typed)
    assert ("champion", 1, True) in near(response.created)


def test_a_move_that_creates_an_alias_like_no_other_names_none(system: Up, protected: str) -> None:
    response = system.registry.MoveAlias(moving(protected, 1, "nightly"), timeout=SECONDS)
    assert response.HasField("created")
    assert near(response.created) == []


def test_an_alias_that_only_a_policy_names_is_near_too(system: Up, model: str, protected: str) -> None:
    system.registry.RemoveAlias(v1.RemoveAliasRequest(model=model, alias="champion", reason="r"), timeout=SECONDS)
    response = system.registry.MoveAlias(moving(protected, 1, "champoin"), timeout=SECONDS)
    assert near(response.created) == [("champion", 0, True)]


def test_a_move_of_an_alias_that_is_set_creates_none(system: Up, protected: str) -> None:
    request = moving(protected, 2, reason="better", request_id=new_id())
    for _ in range(2):
        response = system.registry.MoveAlias(request, timeout=SECONDS)
        assert (response.moved, response.HasField("created")) == (True, False)


def test_a_repeated_request_says_again_that_it_created(system: Up, protected: str) -> None:
    request = moving(protected, 1, "champoin", request_id=new_id())
    first, second = (system.registry.MoveAlias(request, timeout=SECONDS).created for _ in range(2))
    assert first == second
    assert first.near


def test_a_release_set_and_a_schedule_name_near_ones_too(system: Up, protected: str) -> None:
    targets = [v1.AliasTarget(model=protected, alias=alias, version=1) for alias in ("challenger", "champoin")]
    released = system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets, reason="r"), timeout=SECONDS)
    assert [(one.alias, near(one)[0]) for one in released.created] == [("champoin", ("champion", 1, True))]
    request = v1.ScheduleMoveRequest(model=protected, alias="chmpion", version=1, at=seconds_from_now(3600))
    scheduled = system.registry.ScheduleMove(request, timeout=SECONDS)
    assert ("champion", 1, True) in near(scheduled.creates)
    request.alias, request.reason = "champion", "at night"
    assert not system.registry.ScheduleMove(request, timeout=SECONDS).HasField("creates")


@pytest.mark.parametrize("seconds", [-3600.0, -1.0, 0.0, -315_360_000.0])
def test_a_time_that_has_passed_is_refused(system: Up, model: str, seconds: float) -> None:
    request = v1.ScheduleMoveRequest(model=model, alias="champion", version=1, at=seconds_from_now(seconds))
    error = system.refused(system.registry.ScheduleMove, request)
    assert (error.reason, error.metadata["field"]) == ("INVALID_TIME", "at")


def test_a_repeated_schedule_is_answered_as_the_first_after_its_time_too(system: Up, model: str) -> None:
    request = v1.ScheduleMoveRequest(
        model=model, alias="champion", version=1, at=seconds_from_now(0.3), request_id=new_id()
    )
    first = system.registry.ScheduleMove(request, metadata=ACTOR, timeout=SECONDS).schedule
    with rf.Client(system.address).aliases.watch(model) as watch:
        next(change for change in watch if change.alias == "champion")
    assert system.registry.ScheduleMove(request, metadata=ACTOR, timeout=SECONDS).schedule == first


def test_the_sdk_warns_of_near_names_and_of_a_reason_that_is_not_recorded(client: rf.Client, protected: str) -> None:
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


def test_a_status_that_aliases_suffer_from_is_warned_of(system: Up, client: rf.Client, protected: str) -> None:
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


def test_the_command_line_says_created_and_unchanged(cli: Cli, protected: str) -> None:
    made = cli("aliases", "move", f"{protected}@champoin", "1")
    assert (made.returncode, "created" in made.stdout) == (0, True)
    assert "@champion (v1, protected by policy" in made.stderr
    again = cli("aliases", "move", f"{protected}@champoin", "1", "--reason", "again")
    assert (again.returncode, "unchanged" in again.stdout) == (0, True)
    assert "reason was not recorded" in again.stderr
    fields = answer(cli("aliases", "move", f"{protected}@champoin", "2", "-o", "json"))
    assert (fields["moved"], fields["created"], fields["version"]) == (True, False, 2)
    failed = cli("versions", "set-status", protected, "v2", "failed")
    assert "@challenger, @champoin still point to it" in failed.stderr
