"""Assignments when models are renamed and when aliases move together: every name of a model is served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rollforward import v1
from tests.integration.serving.test_serving import deployments, start, target
from tests.integration.up import SECONDS, Up, new_id


def rename(system: Up, model: str) -> tuple[str, int]:
    """Rename a model; return the new name and the position of the rename."""
    request = v1.RenameModelRequest(model=model, new_name=f"renamed-{new_id()}")
    return request.new_name, system.registry.RenameModel(request, timeout=SECONDS).position


def assignment_of(model: str, moved: v1.Alias) -> v1.Assignment:
    """Return the assignment that a pod receives if it follows the model by this name."""
    return v1.Assignment(
        target=target(model, moved.alias), version=moved.version, digest=moved.digest, revision=moved.revision
    )


def follow(system: Up, *targets: v1.Target) -> Any:
    """Watch assignments from the log's head."""
    headers = (("rollforward-min-position", f"registry={system.heads()['registry']}"),)
    request = v1.WatchAssignmentsRequest(pod_id=new_id(), targets=targets)
    return system.serving.WatchAssignments(request, metadata=headers, timeout=SECONDS)


def first_assignments(system: Up, *targets: v1.Target) -> Sequence[v1.Assignment]:
    """Return the assignments that a pod receives when it connects now."""
    following = follow(system, *targets)
    snapshot = next(following)
    following.cancel()
    assert snapshot.snapshot
    return list(snapshot.assignments)


def test_watch_of_former_name_receives_moves_under_new_name(system: Up, model: str) -> None:
    before = system.move(model, 1).alias
    following = follow(system, target(model))
    assert list(next(following).assignments) == [assignment_of(model, before)]
    new_name, _ = rename(system, model)
    newer_name, _ = rename(system, new_name)
    moved = system.move(newer_name, 2).alias
    step = next(following)
    assert list(step.assignments) == [assignment_of(model, moved)]
    assert step.position == moved.revision
    following.cancel()


def test_every_name_is_served_after_rename(system: Up, model: str) -> None:
    moved = system.move(model, 1).alias
    names = [model]
    for _ in range(2):
        names.append(rename(system, names[-1])[0])
    # The assignment from before the rename, and one after it.
    assert first_assignments(system, *map(target, names)) == [assignment_of(name, moved) for name in names]
    moved = system.move(names[-1], 2).alias
    following = follow(system, *map(target, names))
    assert list(next(following).assignments) == [assignment_of(name, moved) for name in names]
    moved = system.move(names[-1], 1).alias
    assert list(next(following).assignments) == [assignment_of(name, moved) for name in names]
    following.cancel()


def test_watch_of_unused_name_receives_assignments_when_model_takes_it(system: Up, model: str) -> None:
    champion, candidate = system.move(model, 1).alias, system.move(model, 2, "candidate").alias
    awaited = f"renamed-{new_id()}"
    targets = [target(awaited), target(awaited, "candidate"), target(awaited, "unset")]
    following = follow(system, *targets)
    assert list(next(following).assignments) == [v1.Assignment(target=missing) for missing in targets]
    request = v1.RenameModelRequest(model=model, new_name=awaited)
    renamed = system.registry.RenameModel(request, timeout=SECONDS).position
    step = next(following)
    assert (list(step.assignments), step.position) == (
        [assignment_of(awaited, champion), assignment_of(awaited, candidate)],
        renamed,
    )
    moved = [system.move(awaited, 1, alias).alias for alias in ("unset", "candidate")]
    assert [list(next(following).assignments) for _ in moved] == [[assignment_of(awaited, alias)] for alias in moved]
    following.cancel()


def test_release_set_is_one_step_with_one_revision(system: Up) -> None:
    models = [system.new_model() for _ in range(3)]
    following = follow(system, *map(target, models))
    next(following)
    targets = [v1.AliasTarget(model=model, alias="champion", version=1) for model in models]
    done = system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=SECONDS)
    step = next(following)
    assert list(step.assignments) == [
        assignment_of(model, alias) for model, alias in zip(models, done.aliases, strict=True)
    ]
    assert {assignment.revision for assignment in step.assignments} == {step.position} == {done.revision}
    assert first_assignments(system, *map(target, models)) == list(step.assignments)
    following.cancel()


def test_deployments_are_known_across_rename(system: Up, model: str) -> None:
    moved = system.move(model, 1).alias
    pod_id = start(system, target(model))
    new_name, _ = rename(system, model)
    moved = system.move(new_name, 2).alias
    acknowledge = v1.AcknowledgeAssignmentRequest(pod_id=pod_id, assignment=assignment_of(model, moved))
    system.serving.AcknowledgeAssignment(acknowledge, timeout=SECONDS)
    (deployment,) = deployments(system, model)
    assert deployment.desired == assignment_of(model, moved)
    assert (deployment.pods[0].version, deployment.pods[0].revision) == (2, moved.revision)
