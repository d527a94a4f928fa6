"""Release sets: several aliases at one revision, all or none."""

from __future__ import annotations

import pytest

from rollforward import Conflict, v1
from tests.integration.up import ACTOR, SECONDS, Up


def target(model: str, version: int, alias: str = "champion", expected: int | None = None) -> v1.AliasTarget:
    """An alias of a release set."""
    return v1.AliasTarget(model=model, alias=alias, version=version, expected_revision=expected)


def move(system: Up, *targets: v1.AliasTarget, request_id: str = "") -> v1.MoveAliasesResponse:
    """Moves a release set."""
    request = v1.MoveAliasesRequest(targets=targets, reason="release 7", request_id=request_id)
    return system.registry.MoveAliases(request, metadata=ACTOR, timeout=SECONDS)


def test_changes_all_aliases_at_one_revision(system: Up) -> None:
    one, other = system.new_model(), system.new_model()
    before = system.move(one, 1).alias.revision
    answer = move(system, target(one, 2, expected=before), target(other, 1), target(one, 1, "candidate"))
    assert [(alias.model, alias.alias, alias.version) for alias in answer.aliases] == [
        (one, "champion", 2),
        (other, "champion", 1),
        (one, "candidate", 1),
    ]
    assert {alias.revision for alias in answer.aliases} == {answer.revision} == {answer.position}
    assert {alias.actor for alias in answer.aliases} == {"Zoë"}
    for position in range(before, answer.revision):
        at = v1.AsOf(position=position)
        listed = system.registry.ResolveAliases(v1.ResolveAliasesRequest(model=one, at=at), timeout=SECONDS).aliases
        assert [(alias.alias, alias.version) for alias in listed] == [("champion", 1)]


def test_one_that_is_refused_refuses_all(system: Up) -> None:
    one, other = system.new_model(), system.new_model()
    moved = system.move(other, 1).alias
    request = v1.MoveAliasesRequest(targets=[target(one, 1), target(other, 2, expected=moved.revision - 1)])
    refused = system.refused(system.registry.MoveAliases, request)
    assert isinstance(refused, Conflict)
    assert refused.reason == "WRONG_REVISION"
    assert refused.current == moved
    request = v1.MoveAliasesRequest(targets=[target(one, 1), target(other, 9)])
    assert system.refused(system.registry.MoveAliases, request).reason == "VERSION_NOT_FOUND"


@pytest.mark.parametrize("count", [0, 2])
def test_names_each_alias_once(system: Up, model: str, count: int) -> None:
    request = v1.MoveAliasesRequest(targets=[target(model, 1)] * count)
    assert system.refused(system.registry.MoveAliases, request).reason == "INVALID_RELEASE_SET"


def test_where_they_are_already_nothing_happens(system: Up, model: str) -> None:
    first = move(system, target(model, 1), target(model, 2, "candidate"))
    again = move(system, target(model, 1), target(model, 2, "candidate"))
    assert (again.revision, list(again.aliases)) == (0, list(first.aliases))
    assert system.heads()["registry"] == first.position


def test_sent_twice_is_done_once(system: Up, model: str) -> None:
    first = move(system, target(model, 1), target(model, 2, "candidate"), request_id=f"once-{model}")
    system.move(model, 2)
    again = move(system, target(model, 1), target(model, 2, "candidate"), request_id=f"once-{model}")
    assert (again.revision, again.position) == (first.revision, first.position)
    assert list(again.aliases) == list(first.aliases)


def test_arrives_at_a_watcher_whole(system: Up, model: str) -> None:
    watch = system.registry.WatchAliases(v1.WatchAliasesRequest(model=model), timeout=SECONDS)
    assert next(watch).HasField("snapshot")
    answer = move(system, target(model, 1), target(model, 2, "candidate"))
    step = next(step for step in watch if step.HasField("changes"))
    watch.cancel()
    assert [change.alias for change in step.changes.changes] == ["champion", "candidate"]
    assert {change.revision for change in step.changes.changes} == {step.position} == {answer.revision}


def test_an_alias_that_is_there_keeps_its_revision_while_the_others_move(system: Up) -> None:
    one, other = system.new_model(), system.new_model()
    before = system.move(one, 1).alias
    answer = move(system, target(one, 1), target(other, 2))
    assert answer.aliases[0] == before
    assert answer.aliases[1].revision == answer.revision
    request = v1.ListEventsRequest(log="registry", stream=f"model/{one}", type="AliasKept")
    [kept] = system.audit.ListEvents(request, timeout=SECONDS).events
    payload = v1.AliasKept()
    kept.data.Unpack(payload)
    assert (payload.alias, payload.version) == ("champion", 1)
