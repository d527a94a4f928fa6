"""What pods are told when models are renamed, whose every name serves, and when aliases move together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollforward import v1
from tests.integration.serving.test_serving import deployments, start, target
from tests.integration.up import SECONDS, Up, new_id


def rename(system: Up, model: str) -> tuple[str, int]:
    """Gives a model a new name; the name, and the position from which it has it."""
    request = v1.RenameModelRequest(model=model, new_name=f"renamed-{new_id()}")
    return request.new_name, system.registry.RenameModel(request, timeout=SECONDS).position


def assigned(model: str, moved: v1.Alias) -> v1.Assignment:
    """An assignment in the words of a pod that follows the model by this name."""
    return v1.Assignment(
        target=target(model, moved.alias), version=moved.version, digest=moved.digest, revision=moved.revision
    )


def follow(system: Up, *targets: v1.Target) -> Any:
    """Follows assignments, from what the log holds now."""
    headers = (("rollforward-min-position", f"registry={system.heads()['registry']}"),)
    request = v1.WatchAssignmentsRequest(pod_id=new_id(), targets=targets)
    return system.serving.WatchAssignments(request, metadata=headers, timeout=SECONDS)


def first(system: Up, *targets: v1.Target) -> Sequence[v1.Assignment]:
    """What a pod that connects now is told."""
    following = follow(system, *targets)
    snapshot = next(following)
    following.cancel()
    assert snapshot.snapshot
    return list(snapshot.assignments)


def test_who_follows_the_old_name_hears_of_moves_made_under_the_new(system: Up, model: str) -> None:
    before = system.move(model, 1).alias
    following = follow(system, target(model))
    assert list(next(following).assignments) == [assigned(model, before)]
    new_name, _ = rename(system, model)
    newer_name, _ = rename(system, new_name)
    moved = system.move(newer_name, 2).alias
    step = next(following)
    assert list(step.assignments) == [assigned(model, moved)]
    assert step.position == moved.revision
    following.cancel()


def test_who_connects_after_a_rename_is_served_by_every_name(system: Up, model: str) -> None:
    moved = system.move(model, 1).alias
    names = [model]
    for _ in range(2):
        names.append(rename(system, names[-1])[0])
    # What was there before the rename, and what is moved after it.
    assert first(system, *map(target, names)) == [assigned(name, moved) for name in names]
    moved = system.move(names[-1], 2).alias
    following = follow(system, *map(target, names))
    assert list(next(following).assignments) == [assigned(name, moved) for name in names]
    moved = system.move(names[-1], 1).alias
    assert list(next(following).assignments) == [assigned(name, moved) for name in names]
    following.cancel()


def test_who_waits_for_a_name_is_told_when_a_model_takes_it(system: Up, model: str) -> None:
    champion, candidate = system.move(model, 1).alias, system.move(model, 2, "candidate").alias
    awaited = f"renamed-{new_id()}"
    wanted = [target(awaited), target(awaited, "candidate"), target(awaited, "unset")]
    following = follow(system, *wanted)
    assert list(next(following).assignments) == [v1.Assignment(target=one) for one in wanted]
    request = v1.RenameModelRequest(model=model, new_name=awaited)
    renamed = system.registry.RenameModel(request, timeout=SECONDS).position
    step = next(following)
    assert (list(step.assignments), step.position) == (
        [assigned(awaited, champion), assigned(awaited, candidate)],
        renamed,
    )
    moved = [system.move(awaited, 1, alias).alias for alias in ("unset", "candidate")]
    assert [list(next(following).assignments) for _ in moved] == [[assigned(awaited, one)] for one in moved]
    following.cancel()


def test_a_release_set_comes_whole_with_one_revision(system: Up) -> None:
    models = [system.new_model() for _ in range(3)]
    following = follow(system, *map(target, models))
    next(following)
    targets = [v1.AliasTarget(model=model, alias="champion", version=1) for model in models]
    done = system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=SECONDS)
    step = next(following)
    assert list(step.assignments) == [assigned(model, alias) for model, alias in zip(models, done.aliases, strict=True)]
    assert {one.revision for one in step.assignments} == {step.position} == {done.revision}
    assert first(system, *map(target, models)) == list(step.assignments)
    following.cancel()


def test_who_serves_what_is_known_across_a_rename(system: Up, model: str) -> None:
    moved = system.move(model, 1).alias
    pod_id = start(system, target(model))
    new_name, _ = rename(system, model)
    moved = system.move(new_name, 2).alias
    acknowledge = v1.AcknowledgeAssignmentRequest(pod_id=pod_id, assignment=assigned(model, moved))
    system.serving.AcknowledgeAssignment(acknowledge, timeout=SECONDS)
    (deployment,) = deployments(system, model)
    assert deployment.desired == assigned(model, moved)
    assert (deployment.pods[0].version, deployment.pods[0].revision) == (2, moved.revision)
