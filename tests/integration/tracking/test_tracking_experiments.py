"""Experiments on a real system, from creation to deletion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest
from google.protobuf.message import Message

from rollforward import v1
from rollforward.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed, RollforwardError
from tests.integration.up import ACTOR, SECONDS, Up, new_id


def create(system: Up, name: str, **tags: str) -> str:
    """Create an experiment; return its id."""
    request = v1.CreateExperimentRequest(name=name, tags=tags)
    return system.tracking.CreateExperiment(request, timeout=SECONDS).experiment_id


def get(system: Up, experiment_id: str) -> v1.Experiment:
    """Return an experiment."""
    request = v1.GetExperimentRequest(experiment_id=experiment_id)
    return system.tracking.GetExperiment(request, timeout=SECONDS).experiment


def rename(system: Up, experiment_id: str, name: str) -> v1.RenameExperimentResponse:
    """Rename an experiment."""
    request = v1.RenameExperimentRequest(experiment_id=experiment_id, new_name=name, reason="clearer")
    return system.tracking.RenameExperiment(request, metadata=ACTOR, timeout=SECONDS)


def delete(system: Up, experiment_id: str) -> int:
    """Delete an experiment; return the position."""
    request = v1.DeleteExperimentRequest(experiment_id=experiment_id)
    return system.tracking.DeleteExperiment(request, timeout=SECONDS).position


def start(system: Up, experiment_id: str) -> str:
    """Start a run of an experiment; return its id."""
    run_id = new_id()
    system.tracking.StartRun(v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id), timeout=SECONDS)
    return run_id


def test_former_name_is_free_after_rename(system: Up) -> None:
    old, new = new_id(), new_id()
    first = create(system, old)
    done = rename(system, first, new)
    assert done.position == system.heads()["tracking"]
    assert rename(system, first, new).position == done.position
    second = create(system, old)
    assert (get(system, first).name, get(system, second).name) == (new, old)
    by_name = v1.GetExperimentRequest(name=old)
    assert system.tracking.GetExperiment(by_name, timeout=SECONDS).experiment.experiment_id == second
    request = v1.ListEventsRequest(stream="experiments", type="rollforward.v1.ExperimentRenamed", page_size=1)
    headers = (("rollforward-min-position", f"tracking={done.position}"),)
    event = system.audit.ListEvents(request, metadata=headers, timeout=SECONDS).events[0]
    assert (event.actor, event.reason) == ("Zoë", "clearer")


def test_tags_are_set_and_removed(system: Up) -> None:
    experiment_id = create(system, new_id(), a="1", b="2")
    change = v1.ChangeExperimentTagsRequest(experiment_id=experiment_id, set={"b": "3", "c": ""}, remove=["a", "x"])
    done = system.tracking.ChangeExperimentTags(change, timeout=SECONDS)
    assert dict(get(system, experiment_id).tags) == {"b": "3", "c": ""}
    assert system.tracking.ChangeExperimentTags(change, timeout=SECONDS) == done
    assert get(system, experiment_id).updated_at.ToNanoseconds() > get(system, experiment_id).created_at.ToNanoseconds()


def test_runs_are_deleted_and_restored_with_experiment(system: Up) -> None:
    experiment_id = create(system, new_id())
    kept, dropped = start(system, experiment_id), start(system, experiment_id)
    system.tracking.DeleteRun(v1.DeleteRunRequest(run_id=dropped), timeout=SECONDS)
    position = delete(system, experiment_id)
    assert delete(system, experiment_id) == position

    def deleted() -> dict[str, bool]:
        listing = v1.ListRunsRequest(experiment_id=experiment_id, lifecycle=v1.LIFECYCLE_ALL)
        return {run.run_id: run.deleted for run in system.tracking.ListRuns(listing, timeout=SECONDS).runs}

    assert get(system, experiment_id).deleted
    assert deleted() == {kept: True, dropped: True}
    request = v1.RestoreExperimentRequest(experiment_id=experiment_id)
    system.tracking.RestoreExperiment(request, timeout=SECONDS)
    assert not get(system, experiment_id).deleted
    assert deleted() == {kept: False, dropped: True}


def test_run_of_deleted_experiment_loses_nothing(system: Up) -> None:
    experiment_id = create(system, new_id())
    run_id = start(system, experiment_id)
    delete(system, experiment_id)
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, params={"depth": "3"}), timeout=SECONDS)
    finish = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
    system.tracking.FinishRun(finish, timeout=SECONDS)
    run = system.tracking.GetRun(v1.GetRunRequest(run_id=run_id), timeout=SECONDS).run
    assert (dict(run.params), run.status, run.deleted) == ({"depth": "3"}, v1.RUN_STATUS_FINISHED, True)


def test_restore_is_rejected_while_name_is_taken(system: Up) -> None:
    name = new_id()
    first = create(system, name)
    delete(system, first)
    second = create(system, name)
    restoration = v1.RestoreExperimentRequest(experiment_id=first)
    error = system.refused(system.tracking.RestoreExperiment, restoration)
    assert (type(error), error.reason) == (AlreadyExists, "EXPERIMENT_EXISTS")
    rename(system, second, new_id())
    system.tracking.RestoreExperiment(restoration, timeout=SECONDS)
    assert get(system, first).name == name


def test_repeated_commands_return_first_responses(system: Up) -> None:
    name, other = new_id(), new_id()
    experiment_id = create(system, name)
    commands: list[tuple[Any, Message]] = [
        (
            system.tracking.RenameExperiment,
            v1.RenameExperimentRequest(experiment_id=experiment_id, new_name=other, request_id=new_id()),
        ),
        (
            system.tracking.ChangeExperimentTags,
            v1.ChangeExperimentTagsRequest(experiment_id=experiment_id, set={"a": "1"}, request_id=new_id()),
        ),
        (
            system.tracking.StartRun,
            v1.StartRunRequest(experiment_id=experiment_id, run_id=new_id(), request_id=new_id()),
        ),
        (
            system.tracking.DeleteExperiment,
            v1.DeleteExperimentRequest(experiment_id=experiment_id, request_id=new_id()),
        ),
    ]
    responses = [method(request, timeout=SECONDS) for method, request in commands]
    create(system, other)
    heads = system.heads()
    assert [method(request, timeout=SECONDS) for method, request in commands] == responses
    assert system.heads() == heads


REJECTED: Sequence[tuple[str, Callable[[str, str], object], type[RollforwardError], str]] = [
    ("RenameExperiment", lambda of, _: v1.RenameExperimentRequest(experiment_id=of), InvalidRequest, "INVALID_NAME"),
    (
        "RenameExperiment",
        lambda of, taken: v1.RenameExperimentRequest(experiment_id=of, new_name=taken),
        AlreadyExists,
        "EXPERIMENT_EXISTS",
    ),
    (
        "RenameExperiment",
        lambda of, _: v1.RenameExperimentRequest(experiment_id=f"0{of}", new_name=new_id()),
        NotFound,
        "EXPERIMENT_NOT_FOUND",
    ),
    (
        "ChangeExperimentTags",
        lambda of, _: v1.ChangeExperimentTagsRequest(experiment_id=of, set={"a//b": ""}),
        InvalidRequest,
        "INVALID_KEY",
    ),
    (
        "ChangeExperimentTags",
        lambda of, _: v1.ChangeExperimentTagsRequest(experiment_id=of, set={"a": "x" * 20_001}),
        InvalidRequest,
        "INVALID_VALUE",
    ),
    ("DeleteExperiment", lambda _, __: v1.DeleteExperimentRequest(), NotFound, "EXPERIMENT_NOT_FOUND"),
    ("RestoreExperiment", lambda _, __: v1.RestoreExperimentRequest(), NotFound, "EXPERIMENT_NOT_FOUND"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "request_of", "kind", "reason"), REJECTED, ids=count())
def test_invalid_request_is_rejected(
    system: Up, method: str, request_of: Callable[[str, str], object], kind: type[RollforwardError], reason: str
) -> None:
    taken = new_id()
    create(system, taken)
    request = request_of(create(system, new_id()), taken)
    error = system.refused(getattr(system.tracking, method), request)
    assert (type(error), error.reason) == (kind, reason)


def test_deleted_experiment_rejects_changes(system: Up) -> None:
    experiment_id = create(system, new_id())
    delete(system, experiment_id)
    calls: list[tuple[Any, Any]] = [
        (system.tracking.StartRun, v1.StartRunRequest(run_id=new_id(), experiment_id=experiment_id)),
        (
            system.tracking.RenameExperiment,
            v1.RenameExperimentRequest(experiment_id=experiment_id, new_name=new_id()),
        ),
        (
            system.tracking.ChangeExperimentTags,
            v1.ChangeExperimentTagsRequest(experiment_id=experiment_id, set={"a": "b"}),
        ),
        (
            system.logged_models.CreateLoggedModel,
            v1.CreateLoggedModelRequest(model_id=f"m-{new_id()}", experiment_id=experiment_id, name="forest"),
        ),
    ]
    for method, request in calls:
        error = system.refused(method, request)
        assert (type(error), error.reason) == (PreconditionFailed, "EXPERIMENT_DELETED")
