"""Runs on a real system: started, described, resumed, deleted and restored, and their sources."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import InvalidRequest, NotFound, PreconditionFailed
from services.series.columns import Points, pack
from tests.integration.up import SECONDS, Up, new_id

POINT = pack("loss", Points(np.array([1]), np.array([2]), np.array([0.5])))


def get(system: Up, run_id: str) -> v1.Run:
    """Return a run."""
    return system.tracking.GetRun(v1.GetRunRequest(run_id=run_id), timeout=SECONDS).run


def start(system: Up, **fields: Any) -> str:
    """Start a run in its own experiment; return its id."""
    run_id = new_id()
    request = v1.StartRunRequest(run_id=run_id, experiment_id=system.new_experiment(), **fields)
    system.tracking.StartRun(request, timeout=SECONDS)
    return run_id


def finish(system: Up, run_id: str, status: v1.RunStatus.ValueType = v1.RUN_STATUS_FINISHED) -> None:
    """Finish a run."""
    request = v1.FinishRunRequest(run_id=run_id, status=status, end_time=Timestamp(seconds=99))
    system.tracking.FinishRun(request, timeout=SECONDS)


def test_start_records_all_fields(system: Up) -> None:
    source = v1.RunSource(
        entry_point="train.py", git_commit="a" * 40, git_url="https://example.com/a.git", packages=["numpy==2.0.0"]
    )
    parent = start(system)
    run_id = start(system, name="child", description="why\n", parent_run_id=parent, source=source, scheduled=True)
    run = get(system, run_id)
    assert (run.name, run.description, run.parent_run_id, run.source) == ("child", "why\n", parent, source)
    assert run.status == v1.RUN_STATUS_SCHEDULED


def test_unknown_parent_is_rejected(system: Up) -> None:
    request = v1.StartRunRequest(run_id=new_id(), experiment_id=system.new_experiment(), parent_run_id=new_id())
    error = system.refused(system.tracking.StartRun, request)
    assert (type(error), error.reason) == (NotFound, "RUN_NOT_FOUND")
    assert error.metadata["run_id"] == request.parent_run_id


def test_run_is_resumed_repeatedly(system: Up) -> None:
    run_id = start(system, scheduled=True)
    resume = v1.ResumeRunRequest(run_id=run_id)
    for _ in range(2):
        position = system.tracking.ResumeRun(resume, timeout=SECONDS).position
        assert get(system, run_id).status == v1.RUN_STATUS_RUNNING
        assert system.tracking.ResumeRun(resume, timeout=SECONDS).position == position
        finish(system, run_id)
        assert get(system, run_id).end_time == Timestamp(seconds=99)
    system.tracking.ResumeRun(resume, timeout=SECONDS)
    assert not get(system, run_id).HasField("end_time")


def test_name_and_description_may_change(system: Up) -> None:
    run_id = start(system, name="old")
    system.tracking.RenameRun(v1.RenameRunRequest(run_id=run_id, new_name="new"), timeout=SECONDS)
    system.tracking.DescribeRun(v1.DescribeRunRequest(run_id=run_id, description="x" * 20_000), timeout=SECONDS)
    run = get(system, run_id)
    assert (run.name, run.description) == ("new", "x" * 20_000)


def test_tags_are_removed(system: Up) -> None:
    run_id = start(system, tags={"a": "1", "b": "2"})
    batch = v1.LogBatchRequest(run_id=run_id, tags={"c": "3"}, removed_tags=["a", "unknown"])
    system.tracking.LogBatch(batch, timeout=SECONDS)
    assert dict(get(system, run_id).tags) == {"b": "2", "c": "3"}


def test_points_are_logged_with_known_parameters(system: Up) -> None:
    run_id = start(system)
    batch = v1.LogBatchRequest(run_id=run_id, params={"depth": "3"}, series=[POINT])
    for points in (1, 2):
        system.tracking.LogBatch(batch, timeout=SECONDS)
        assert get(system, run_id).metrics["loss"].count == points


def test_lineage_is_logged_once(system: Up) -> None:
    run_id = start(system)
    train = v1.DatasetInput(
        dataset=v1.Dataset(name="train", digest="d1", source_type="s3", source="{}"), tags={"context": "training"}
    )
    output = v1.ModelOutput(model_id=f"m-{new_id()}", step=7)
    lineage = v1.LogLineageRequest(run_id=run_id, inputs=[train], outputs=[output], request_id=new_id())
    done = system.tracking.LogLineage(lineage, timeout=SECONDS)
    assert system.tracking.LogLineage(lineage, timeout=SECONDS) == done
    run = get(system, run_id)
    assert (list(run.inputs), list(run.outputs)) == ([train], [output])


def test_full_run_accepts_points_and_is_readable(system: Up) -> None:
    run_id = start(system)
    for turn in range(3):
        tags = {f"{turn}.{number}": "x" * 8_000 for number in range(122)}
        system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, tags=tags), timeout=SECONDS)
    more = v1.LogBatchRequest(run_id=run_id, params={f"{number}": "x" * 6_000 for number in range(20)})
    error = system.refused(system.tracking.LogBatch, more)
    assert (type(error), error.reason, error.metadata["run_id"]) == (PreconditionFailed, "RUN_FULL", run_id)
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, series=[POINT]), timeout=SECONDS)
    run = get(system, run_id)
    assert (len(run.tags), run.metrics["loss"].count) == (366, 1)
    removed = v1.LogBatchRequest(run_id=run_id, removed_tags=[f"0.{number}" for number in range(122)])
    system.tracking.LogBatch(removed, timeout=SECONDS)
    system.tracking.LogBatch(more, timeout=SECONDS)
    run = get(system, run_id)
    assert (len(run.tags), len(run.params)) == (244, 20)


@pytest.mark.parametrize("key", [" a ", "\u212b"])
def test_tag_with_any_key_can_be_removed(system: Up, key: str) -> None:
    run_id, experiment_id = start(system, tags={key: "1"}), system.new_experiment()
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, removed_tags=[key]), timeout=SECONDS)
    assert not get(system, run_id).tags
    for change in ({"set": {key: "1"}}, {"remove": [key]}):
        request = v1.ChangeExperimentTagsRequest(experiment_id=experiment_id, **change)
        system.tracking.ChangeExperimentTags(request, timeout=SECONDS)


def test_deleted_run_accepts_only_points_and_end(system: Up) -> None:
    run_id = start(system)
    digest = system.upload()
    delete = v1.DeleteRunRequest(run_id=run_id, reason="wrong data")
    position = system.tracking.DeleteRun(delete, timeout=SECONDS).position
    assert system.tracking.DeleteRun(delete, timeout=SECONDS).position == position
    refused: list[tuple[Any, Any]] = [
        (system.tracking.LogBatch, v1.LogBatchRequest(run_id=run_id, params={"a": "b"})),
        (system.tracking.LogBatch, v1.LogBatchRequest(run_id=run_id, tags={"a": "b"})),
        (system.tracking.LogArtifact, v1.LogArtifactRequest(run_id=run_id, digest=digest)),
        (system.tracking.RenameRun, v1.RenameRunRequest(run_id=run_id, new_name="new")),
        (system.tracking.DescribeRun, v1.DescribeRunRequest(run_id=run_id, description="new")),
        (system.tracking.ResumeRun, v1.ResumeRunRequest(run_id=run_id)),
        (system.tracking.LogLineage, v1.LogLineageRequest(run_id=run_id)),
    ]
    for method, request in refused:
        error = system.refused(method, request)
        assert (type(error), error.reason) == (PreconditionFailed, "RUN_DELETED")
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, series=[POINT]), timeout=SECONDS)
    finish(system, run_id)
    run = get(system, run_id)
    assert (run.deleted, run.metrics["loss"].count, run.status) == (True, 1, v1.RUN_STATUS_FINISHED)
    system.tracking.RestoreRun(v1.RestoreRunRequest(run_id=run_id), timeout=SECONDS)
    assert not get(system, run_id).deleted


def test_repeated_commands_return_first_responses(system: Up) -> None:
    tracking, run_id, again = system.tracking, start(system), new_id
    commands: list[tuple[Any, Message]] = [
        (tracking.LogBatch, v1.LogBatchRequest(run_id=run_id, tags={"a": "1"}, request_id=again())),
        (tracking.LogBatch, v1.LogBatchRequest(run_id=run_id, params={"a": "1"}, request_id=again())),
        (tracking.RenameRun, v1.RenameRunRequest(run_id=run_id, new_name="new", request_id=again())),
        (tracking.DescribeRun, v1.DescribeRunRequest(run_id=run_id, description="new", request_id=again())),
        (tracking.FinishRun, v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_KILLED, request_id=again())),
        (tracking.ResumeRun, v1.ResumeRunRequest(run_id=run_id, request_id=again())),
        (tracking.DeleteRun, v1.DeleteRunRequest(run_id=run_id, request_id=again())),
    ]
    responses = [method(request, timeout=SECONDS) for method, request in commands]
    heads = system.heads()
    assert [method(request, timeout=SECONDS) for method, request in commands] == responses
    assert system.heads() == heads
    restore = v1.RestoreRunRequest(run_id=run_id, request_id=new_id())
    restored = tracking.RestoreRun(restore, timeout=SECONDS)
    tracking.DeleteRun(v1.DeleteRunRequest(run_id=run_id), timeout=SECONDS)
    assert tracking.RestoreRun(restore, timeout=SECONDS) == restored
    assert get(system, run_id).deleted


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("ResumeRun", v1.ResumeRunRequest),
        ("LogLineage", v1.LogLineageRequest),
        ("RenameRun", v1.RenameRunRequest),
        ("DescribeRun", v1.DescribeRunRequest),
        ("DeleteRun", v1.DeleteRunRequest),
        ("RestoreRun", v1.RestoreRunRequest),
    ],
    ids=count(),
)
def test_unknown_run_is_rejected(system: Up, method: str, request_type: Any) -> None:
    error = system.refused(getattr(system.tracking, method), request_type(run_id=new_id()))
    assert (type(error), error.reason) == (NotFound, "RUN_NOT_FOUND")
    error = system.refused(getattr(system.tracking, method), request_type(run_id="../x"))
    assert (type(error), error.reason) == (InvalidRequest, "INVALID_RUN_ID")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"description": "x" * 20_001}, "INVALID_DESCRIPTION"),
        ({"source": v1.RunSource(git_commit="HEAD")}, "INVALID_SOURCE"),
        ({"source": v1.RunSource(git_url="https://me:secret@example.com/a.git")}, "INVALID_SOURCE"),
        ({"parent_run_id": "x"}, "INVALID_RUN_ID"),
        ({"parent_run_id": "%" * 2_000_000}, "INVALID_RUN_ID"),
        ({"tags": {"a,b": ""}}, "INVALID_KEY"),
    ],
    ids=count(),
)
def test_invalid_start_is_rejected(system: Up, fields: dict[str, Any], reason: str) -> None:
    request = v1.StartRunRequest(run_id=new_id(), experiment_id=system.new_experiment(), **fields)
    error = system.refused(system.tracking.StartRun, request)
    assert (type(error), error.reason) == (InvalidRequest, reason)
