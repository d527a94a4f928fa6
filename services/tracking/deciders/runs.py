"""The rules of a run: what may happen to it, and what it may log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from eventstore import Decider, Kind, Rejected
from rollforward import v1
from services.artifacts.paths import check_paths
from services.series.columns import columns
from services.timestamps import nanoseconds
from services.tracking.deciders.labels import check_params, check_removed, check_tags, new_params
from services.tracking.deciders.lineage import check_dataset_named, check_inputs, check_outputs, check_source
from services.tracking.deciders.run_state import RunState, evolve, shown, stream_of
from services.tracking.deciders.size_limits import LARGEST_RUN
from services.validation import (
    LONGEST_DESCRIPTION,
    check_digest,
    check_id,
    check_key,
    check_logged_model_id,
    check_prose,
    check_text,
)

LONGEST_NAME = 500
ENDINGS = (v1.RUN_STATUS_FINISHED, v1.RUN_STATUS_FAILED, v1.RUN_STATUS_KILLED)


@dataclass(frozen=True, slots=True)
class Start:
    """A request to start a run, and why it cannot be done in any case."""

    request: v1.StartRunRequest
    rejection: Rejected | None = None


@dataclass(frozen=True, slots=True)
class LogArtifact:
    """A request to log an artifact, with what its manifest says, or why it cannot be done in any case.

    Attributes:
        request: What is asked for.
        size_bytes: All bytes of the artifact's files together.
        file_count: How many files it has.
        why_not: The refusal of an artifact that is not stored.
    """

    request: v1.LogArtifactRequest
    size_bytes: int = 0
    file_count: int = 0
    rejection: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Lose:
    """A run's job was silent for too long; it was last heard at a time, if that is known."""

    run_id: str
    last_heard: Timestamp | None = None


def decide(command: object, state: RunState) -> Sequence[Message]:
    """What a command makes happen."""
    rule = _RULES.get(type(command))
    if rule is None:
        raise TypeError(f"not a command of a run: {type(command).__name__}")
    events = rule(command, state)
    after = reduce(shown, events, state.budget)
    if after is not state.budget:
        after.check_growth(state.budget, LARGEST_RUN, "RUN_FULL", run_id=events[0].run_id)  # type: ignore[attr-defined]
    return events


def _start(command: Start, state: RunState) -> Sequence[Message]:
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
        raise Rejected(Kind.EXISTS, "RUN_EXISTS", f"run {request.run_id} exists", run_id=request.run_id)
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


def _log(command: v1.LogBatchRequest, state: RunState) -> Sequence[Message]:
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
    events: list[Message] = []
    if new or command.tags or removed:
        events.append(v1.RunLogged(run_id=command.run_id, params=new, tags=command.tags, removed_tags=removed))
    if command.series:
        events = [*_resumed(command.run_id, state), *events]
        events.append(v1.MetricsLogged(run_id=command.run_id, series=command.series))
    return events


def _check_series(series: v1.Series) -> None:
    check_key(series.key, "a metric's name")
    columns(series)
    if series.model_id:
        check_logged_model_id(series.model_id)
    if series.dataset_name or series.dataset_digest:
        check_dataset_named(series.dataset_name, series.dataset_digest)


def _resumed(run_id: str, state: RunState) -> list[Message]:
    return [v1.RunResumed(run_id=run_id)] if state.status == v1.RUN_STATUS_LOST else []


def _log_lineage(command: v1.LogLineageRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    check_inputs(command.inputs)
    check_outputs(command.outputs)
    _check_not_deleted(command.run_id, state)
    events: list[Message] = []
    if command.inputs:
        events.append(v1.RunInputsLogged(run_id=command.run_id, inputs=command.inputs))
    if command.outputs:
        events.append(v1.RunOutputsLogged(run_id=command.run_id, outputs=command.outputs))
    return events


def _log_artifact(command: LogArtifact, state: RunState) -> Sequence[Message]:
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


def _finish(command: v1.FinishRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    if command.status not in ENDINGS:
        words = "a run ends as FINISHED, FAILED or KILLED"
        raise Rejected(Kind.INVALID, "INVALID_STATUS", words, status=str(command.status))
    nanoseconds(command.end_time)
    if command.status == state.status:
        return []
    end_time = command.end_time if command.HasField("end_time") else None
    return [v1.RunFinished(run_id=command.run_id, status=command.status, end_time=end_time)]


def _resume(command: v1.ResumeRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    _check_not_deleted(command.run_id, state)
    return [] if state.status == v1.RUN_STATUS_RUNNING else [v1.RunResumed(run_id=command.run_id)]


def _attend(command: v1.AttendRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    _check_not_deleted(command.run_id, state)
    return _resumed(command.run_id, state)


def _lose(command: Lose, state: RunState) -> Sequence[Message]:
    return [v1.RunLost(run_id=command.run_id, last_heard=command.last_heard)] if state.watched_over else []


def _rename(command: v1.RenameRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    _check_name(command.new_name)
    _check_not_deleted(command.run_id, state)
    if command.new_name == state.name:
        return []
    return [v1.RunRenamed(run_id=command.run_id, from_name=state.name, to_name=command.new_name)]


def _describe(command: v1.DescribeRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    _check_description(command.description)
    _check_not_deleted(command.run_id, state)
    if command.description == state.description:
        return []
    return [v1.RunDescribed(run_id=command.run_id, description=command.description)]


def _delete(command: v1.DeleteRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    return [] if state.deleted else [v1.RunDeleted(run_id=command.run_id)]


def _restore(command: v1.RestoreRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    return [v1.RunRestored(run_id=command.run_id)] if state.deleted else []


def run_not_found(run_id: str) -> Rejected:
    """The refusal of an id that no run has."""
    return Rejected(Kind.NOT_FOUND, "RUN_NOT_FOUND", f"no run {run_id[:100]!r}", run_id=run_id[:100])


def _check_started(run_id: str, state: RunState) -> None:
    """Raises `Rejected` RUN_NOT_FOUND unless there is such a run."""
    if state.status == v1.RUN_STATUS_UNSPECIFIED:
        raise run_not_found(run_id)


def _check_not_deleted(run_id: str, state: RunState) -> None:
    if state.deleted:
        raise Rejected(Kind.PRECONDITION, "RUN_DELETED", f"run {run_id} is deleted", run_id=run_id)


def _check_name(name: str) -> None:
    check_text(name, "the run's name", LONGEST_NAME, "INVALID_NAME", shortest=0)


def _check_description(description: str) -> None:
    check_prose(description, "a description", LONGEST_DESCRIPTION, "INVALID_DESCRIPTION")


_RULES: Mapping[type, Callable[[Any, RunState], Sequence[Message]]] = {
    Start: _start,
    v1.LogBatchRequest: _log,
    v1.LogLineageRequest: _log_lineage,
    LogArtifact: _log_artifact,
    v1.FinishRunRequest: _finish,
    v1.ResumeRunRequest: _resume,
    v1.AttendRunRequest: _attend,
    Lose: _lose,
    v1.RenameRunRequest: _rename,
    v1.DescribeRunRequest: _describe,
    v1.DeleteRunRequest: _delete,
    v1.RestoreRunRequest: _restore,
}


RUNS: Decider[RunState] = Decider(RunState(), decide, evolve, stream_of)
