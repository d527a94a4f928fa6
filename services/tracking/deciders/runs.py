"""The rules of a run: what may happen to it, and what it may log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import assert_never

from google.protobuf.message import Message

from eventstore import Decider, Kind, Rejected
from rollforward import v1
from services.artifacts.paths import check_paths
from services.series.columns import columns
from services.timestamps import nanoseconds
from services.tracking.deciders.labels import check_params, check_removed, check_tags, new_params
from services.tracking.deciders.lineage import check_dataset_named, check_inputs, check_outputs, check_source
from services.tracking.deciders.run_commands import LogArtifact, Lose, RunCommand, Start
from services.tracking.deciders.run_state import RunState, budget_after, evolve, stream_of
from services.tracking.deciders.size_limits import LARGEST_RUN
from services.tracking.events import RunEvent
from services.validation import (
    MAX_DESCRIPTION_LENGTH,
    check_digest,
    check_id,
    check_key,
    check_logged_model_id,
    check_prose,
    check_text,
)

MAX_NAME_LENGTH = 500
ENDINGS = (v1.RUN_STATUS_FINISHED, v1.RUN_STATUS_FAILED, v1.RUN_STATUS_KILLED)


def decide(command: object, state: RunState) -> Sequence[Message]:
    """Return the events of a command.

    Raises:
        Rejected: The command breaks a rule.
        TypeError: It is not a command of a run.
    """
    if not isinstance(command, RunCommand):
        raise TypeError(f"expected a command of a run, got {type(command).__name__}")
    events = _decide(command, state)
    after = reduce(budget_after, events, state.budget)
    if after is not state.budget:
        after.check_growth(state.budget, LARGEST_RUN, "RUN_FULL", run_id=events[0].run_id)
    return events


def _decide(command: RunCommand, state: RunState) -> Sequence[RunEvent]:  # noqa: C901, PLR0911, PLR0912 - a case each
    match command:
        case v1.LogBatchRequest():
            return _log(command, state)
        case Start():
            return _start(command, state)
        case v1.LogLineageRequest():
            return _log_lineage(command, state)
        case LogArtifact():
            return _log_artifact(command, state)
        case v1.FinishRunRequest():
            return _finish(command, state)
        case v1.ResumeRunRequest():
            return _resume(command, state)
        case v1.AttendRunRequest():
            return _attend(command, state)
        case Lose():
            return _lose(command, state)
        case v1.RenameRunRequest():
            return _rename(command, state)
        case v1.DescribeRunRequest():
            return _describe(command, state)
        case v1.DeleteRunRequest():
            return _delete(command, state)
        case v1.RestoreRunRequest():
            return _restore(command, state)
        case _:
            assert_never(command)


def _start(command: Start, state: RunState) -> Sequence[RunEvent]:
    request = command.request
    check_id(request.run_id, "INVALID_RUN_ID")
    _check_name(request.name)
    _check_description(request.description)
    nanoseconds(request.start_time)
    check_tags(request.tags)
    if request.parent_run_id:
        check_id(request.parent_run_id, "INVALID_RUN_ID")
    check_source(request.source)
    if state.status != v1.RUN_STATUS_UNSPECIFIED:
        raise Rejected(Kind.EXISTS, "RUN_EXISTS", f"run {request.run_id} already exists", run_id=request.run_id)
    if command.rejection:
        raise command.rejection
    started = v1.RunStarted(
        run_id=request.run_id,
        experiment_id=request.experiment_id,
        name=request.name,
        start_time=request.start_time if request.HasField("start_time") else None,
        tags=request.tags,
        description=request.description,
        parent_run_id=request.parent_run_id,
        source=request.source if request.HasField("source") else None,
        heartbeat=request.heartbeat,
        scheduled=request.scheduled,
    )
    return [started]


def _log(command: v1.LogBatchRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    check_params(command.params)
    check_tags(command.tags)
    check_removed(command.removed_tags, command.tags)
    for series in command.series:
        _check_series(series)
    if not command.series:  # what a job under way has measured is not lost with its run
        _check_not_deleted(command.run_id, state)
    new = new_params(command.params, state.params, run_id=command.run_id)
    removed = sorted(key for key in set(command.removed_tags) if ("tag", key) in state.budget.parts)
    events: list[RunEvent] = []
    if new or command.tags or removed:
        events.append(v1.RunLogged(run_id=command.run_id, params=new, tags=command.tags, removed_tags=removed))
    if command.series:
        events = [*_resumed(command.run_id, state), *events]
        events.append(v1.MetricsLogged(run_id=command.run_id, series=command.series))
    return events


def _check_series(series: v1.Series) -> None:
    check_key(series.key, "metric name")
    columns(series)
    if series.model_id:
        check_logged_model_id(series.model_id)
    if series.dataset_name or series.dataset_digest:
        check_dataset_named(series.dataset_name, series.dataset_digest)


def _resumed(run_id: str, state: RunState) -> list[RunEvent]:
    return [v1.RunResumed(run_id=run_id)] if state.status == v1.RUN_STATUS_LOST else []


def _log_lineage(command: v1.LogLineageRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    check_inputs(command.inputs)
    check_outputs(command.outputs)
    _check_not_deleted(command.run_id, state)
    events: list[RunEvent] = []
    if command.inputs:
        events.append(v1.RunInputsLogged(run_id=command.run_id, inputs=command.inputs))
    if command.outputs:
        events.append(v1.RunOutputsLogged(run_id=command.run_id, outputs=command.outputs))
    return events


def _log_artifact(command: LogArtifact, state: RunState) -> Sequence[RunEvent]:
    request = command.request
    _check_started(request.run_id, state)
    check_digest(request.digest)
    if request.path:
        check_paths([request.path])
    _check_not_deleted(request.run_id, state)
    if command.rejection:
        raise command.rejection
    if state.artifacts.get(request.path) == request.digest:
        return []
    logged = v1.ArtifactLogged(
        run_id=request.run_id,
        path=request.path,
        digest=request.digest,
        size_bytes=command.size_bytes,
        file_count=command.file_count,
    )
    return [logged]


def _finish(command: v1.FinishRunRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    if command.status not in ENDINGS:
        message = "invalid status: expected FINISHED, FAILED or KILLED"
        raise Rejected(Kind.INVALID, "INVALID_STATUS", message, status=str(command.status))
    nanoseconds(command.end_time)
    if command.status == state.status:
        return []
    end_time = command.end_time if command.HasField("end_time") else None
    return [v1.RunFinished(run_id=command.run_id, status=command.status, end_time=end_time)]


def _resume(command: v1.ResumeRunRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    _check_not_deleted(command.run_id, state)
    return [] if state.status == v1.RUN_STATUS_RUNNING else [v1.RunResumed(run_id=command.run_id)]


def _attend(command: v1.AttendRunRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    _check_not_deleted(command.run_id, state)
    return _resumed(command.run_id, state)


def _lose(command: Lose, state: RunState) -> Sequence[RunEvent]:
    return [v1.RunLost(run_id=command.run_id, last_heard=command.last_heartbeat)] if state.watched_over else []


def _rename(command: v1.RenameRunRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    _check_name(command.new_name)
    _check_not_deleted(command.run_id, state)
    if command.new_name == state.name:
        return []
    return [v1.RunRenamed(run_id=command.run_id, from_name=state.name, to_name=command.new_name)]


def _describe(command: v1.DescribeRunRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    _check_description(command.description)
    _check_not_deleted(command.run_id, state)
    if command.description == state.description:
        return []
    return [v1.RunDescribed(run_id=command.run_id, description=command.description)]


def _delete(command: v1.DeleteRunRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    return [] if state.deleted else [v1.RunDeleted(run_id=command.run_id)]


def _restore(command: v1.RestoreRunRequest, state: RunState) -> Sequence[RunEvent]:
    _check_started(command.run_id, state)
    return [v1.RunRestored(run_id=command.run_id)] if state.deleted else []


def run_not_found(run_id: str) -> Rejected:
    """Return the rejection of an id that no run has."""
    return Rejected(Kind.NOT_FOUND, "RUN_NOT_FOUND", f"no run has the id {run_id[:100]!r}", run_id=run_id[:100])


def _check_started(run_id: str, state: RunState) -> None:
    """Raise `Rejected` RUN_NOT_FOUND unless the run was started."""
    if state.status == v1.RUN_STATUS_UNSPECIFIED:
        raise run_not_found(run_id)


def _check_not_deleted(run_id: str, state: RunState) -> None:
    if state.deleted:
        raise Rejected(Kind.PRECONDITION, "RUN_DELETED", f"run {run_id} is deleted", run_id=run_id)


def _check_name(name: str) -> None:
    check_text(name, "run name", MAX_NAME_LENGTH, "INVALID_NAME", min_length=0)


def _check_description(description: str) -> None:
    check_prose(description, "description", MAX_DESCRIPTION_LENGTH, "INVALID_DESCRIPTION")


RUNS: Decider[RunState] = Decider(RunState(), decide, evolve, stream_of)
