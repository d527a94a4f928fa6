"""Release sets: several aliases are moved at one revision, or none."""

from __future__ import annotations

import pytest

from rollforward import Conflict, v1
from tests.integration.up import ACTOR, SECONDS, Up


def target(model: str, version: int, alias: str = "champion", expected: int | None = None) -> v1.AliasTarget:
    """Return a target of a release set."""
    return v1.AliasTarget(model=model, alias=alias, version=version, expected_revision=expected)


def move(system: Up, *targets: v1.AliasTarget, request_id: str = "") -> v1.MoveAliasesResponse:
    """Move a release set."""
    request = v1.MoveAliasesRequest(targets=targets, reason="release 7", request_id=request_id)
    return system.registry.MoveAliases(request, metadata=ACTOR, timeout=SECONDS)


def test_release_set_moves_all_aliases_at_one_revision(system: Up) -> None:
    first, second = system.new_model(), system.new_model()
    before = system.move(first, 1).alias.revision
    response = move(system, target(first, 2, expected=before), target(second, 1), target(first, 1, "candidate"))
    assert [(alias.model, alias.alias, alias.version) for alias in response.aliases] == [
        (first, "champion", 2),
        (second, "champion", 1),
        (first, "candidate", 1),
    ]
    assert {alias.revision for alias in response.aliases} == {response.revision} == {response.position}
    assert {alias.actor for alias in response.aliases} == {"Zoë"}
    for position in range(before, response.revision):
        at = v1.AsOf(position=position)
        listed = system.registry.ResolveAliases(v1.ResolveAliasesRequest(model=first, at=at), timeout=SECONDS).aliases
        assert [(alias.alias, alias.version) for alias in listed] == [("champion", 1)]


def test_rejected_target_rejects_release_set(system: Up) -> None:
    first, second = system.new_model(), system.new_model()
    moved = system.move(second, 1).alias
    request = v1.MoveAliasesRequest(targets=[target(first, 1), target(second, 2, expected=moved.revision - 1)])
    refused = system.refused(system.registry.MoveAliases, request)
    assert isinstance(refused, Conflict)
    assert refused.reason == "WRONG_REVISION"
    assert refused.current == moved
    request = v1.MoveAliasesRequest(targets=[target(first, 1), target(second, 9)])
    assert system.refused(system.registry.MoveAliases, request).reason == "VERSION_NOT_FOUND"


@pytest.mark.parametrize("count", [0, 2])
def test_empty_or_duplicate_targets_are_rejected(system: Up, model: str, count: int) -> None:
    request = v1.MoveAliasesRequest(targets=[target(model, 1)] * count)
    assert system.refused(system.registry.MoveAliases, request).reason == "INVALID_RELEASE_SET"


def test_release_set_without_effect_writes_nothing(system: Up, model: str) -> None:
    released = move(system, target(model, 1), target(model, 2, "candidate"))
    again = move(system, target(model, 1), target(model, 2, "candidate"))
    assert (again.revision, list(again.aliases)) == (0, list(released.aliases))
    assert system.heads()["registry"] == released.position


def test_repeated_release_set_runs_once(system: Up, model: str) -> None:
    first = move(system, target(model, 1), target(model, 2, "candidate"), request_id=f"once-{model}")
    system.move(model, 2)
    again = move(system, target(model, 1), target(model, 2, "candidate"), request_id=f"once-{model}")
    assert (again.revision, again.position) == (first.revision, first.position)
    assert list(again.aliases) == list(first.aliases)


def test_watch_receives_release_set_in_one_step(system: Up, model: str) -> None:
    watch = system.registry.WatchAliases(v1.WatchAliasesRequest(model=model), timeout=SECONDS)
    assert next(watch).HasField("snapshot")
    response = move(system, target(model, 1), target(model, 2, "candidate"))
    step = next(step for step in watch if step.HasField("changes"))
    watch.cancel()
    assert [change.alias for change in step.changes.changes] == ["champion", "candidate"]
    assert {change.revision for change in step.changes.changes} == {step.position} == {response.revision}


def test_unchanged_alias_keeps_its_revision(system: Up) -> None:
    first, second = system.new_model(), system.new_model()
    before = system.move(first, 1).alias
    response = move(system, target(first, 1), target(second, 2))
    assert response.aliases[0] == before
    assert response.aliases[1].revision == response.revision
    request = v1.ListEventsRequest(log="registry", stream=f"model/{first}", type="AliasKept")
    [kept] = system.audit.ListEvents(request, timeout=SECONDS).events
    payload = v1.AliasKept()
    kept.data.Unpack(payload)
    assert (payload.alias, payload.version) == ("champion", 1)
