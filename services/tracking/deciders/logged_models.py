"""The rules of a logged model: what may happen to it, and what it may log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TypeAlias, assert_never

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import Conflict, Decider, Kind, RecordedEvent, Rejected
from rollforward import v1
from services.tracking.deciders.labels import (
    Labels,
    added,
    changed,
    check_params,
    check_removed,
    check_tags,
    new_params,
    tag_changes,
)
from services.tracking.deciders.size_limits import LARGEST_LOGGED_MODEL, SizeBudget
from services.tracking.events import LoggedModelEvent, logged_model_event
from services.validation import check_digest, check_id, check_logged_model_id, check_text

MAX_NAME_LENGTH = 500
MAX_TYPE_LENGTH = 500
ENDINGS = (v1.LOGGED_MODEL_STATUS_READY, v1.LOGGED_MODEL_STATUS_FAILED)


@dataclass(frozen=True, slots=True)
class LoggedModelState:
    """The state of a logged model that its rules depend on.

    Attributes:
        status: Its status; UNSPECIFIED before it was created.
        deleted: Whether it was deleted itself; its experiment does not count.
        digest: Its files' digest; empty when none were logged.
        params, tags: Its labels.
        budget: The size of what is shown of it.
    """

    status: v1.LoggedModelStatus.ValueType = v1.LOGGED_MODEL_STATUS_UNSPECIFIED
    deleted: bool = False
    digest: str = ""
    params: Labels = field(default_factory=HashTrieMap)
    tags: Labels = field(default_factory=HashTrieMap)
    budget: SizeBudget = field(default_factory=SizeBudget)


@dataclass(frozen=True, slots=True)
class Create:
    """A request to create a logged model, and why it cannot be done in any case."""

    request: v1.CreateLoggedModelRequest
    rejection: Rejected | None = None


@dataclass(frozen=True, slots=True)
class LogFiles:
    """A request to log a model's files, with what their manifest says, or why it cannot be done in any case.

    Attributes:
        request: What is asked for.
        size_bytes: All bytes of the files together.
        file_count: How many files there are.
        rejection: The rejection of files that are not stored.
    """

    request: v1.LogLoggedModelArtifactRequest
    size_bytes: int = 0
    file_count: int = 0
    rejection: Rejected | None = None


LoggedModelRequest: TypeAlias = (
    v1.LogLoggedModelRequest
    | v1.FinalizeLoggedModelRequest
    | v1.DeleteLoggedModelRequest
    | v1.RestoreLoggedModelRequest
)
LoggedModelCommand: TypeAlias = LoggedModelRequest | Create | LogFiles


def decide(command: object, state: LoggedModelState) -> Sequence[Message]:
    """Return the events of a command.

    Raises:
        Rejected: The command breaks a rule.
        Conflict: ARTIFACT_CHANGED when other files are replaced than expected.
        TypeError: It is not a command of a logged model.
    """
    if not isinstance(command, LoggedModelCommand):
        raise TypeError(f"expected a command of a logged model, got {type(command).__name__}")
    events = _decide(command, state)
    after = reduce(_budget_after, events, state.budget)
    if after is not state.budget:
        after.check_growth(state.budget, LARGEST_LOGGED_MODEL, "LOGGED_MODEL_FULL", model_id=events[0].model_id)
    return events


def _decide(command: LoggedModelCommand, state: LoggedModelState) -> Sequence[LoggedModelEvent]:
    match command:
        case Create():
            return _create(command, state)
        case v1.LogLoggedModelRequest():
            return _log(command, state)
        case LogFiles():
            return _log_files(command, state)
        case v1.FinalizeLoggedModelRequest():
            return _finalize(command, state)
        case v1.DeleteLoggedModelRequest():
            return _delete(command, state)
        case v1.RestoreLoggedModelRequest():
            return _restore(command, state)
        case _:
            assert_never(command)


def _create(command: Create, state: LoggedModelState) -> Sequence[LoggedModelEvent]:
    request = command.request
    check_logged_model_id(request.model_id)
    _check_name(request.name)
    check_text(request.model_type, "model type", MAX_TYPE_LENGTH, "INVALID_NAME", min_length=0)
    if request.source_run_id:
        check_id(request.source_run_id, "INVALID_RUN_ID")
    check_params(request.params)
    check_tags(request.tags)
    if state.status != v1.LOGGED_MODEL_STATUS_UNSPECIFIED:
        message = f"logged model {request.model_id} already exists"
        raise Rejected(Kind.EXISTS, "LOGGED_MODEL_EXISTS", message, model_id=request.model_id)
    if command.rejection:
        raise command.rejection
    created = v1.LoggedModelCreated(
        model_id=request.model_id,
        experiment_id=request.experiment_id,
        name=request.name,
        model_type=request.model_type,
        source_run_id=request.source_run_id,
        params=request.params,
        tags=request.tags,
    )
    return [created]


def _check_name(name: str) -> None:
    check_text(name, "logged model name", MAX_NAME_LENGTH, "INVALID_NAME")
    if bad := sorted(set(name) & set("/:.%\"'")):
        message = f"invalid logged model name {name[:300]!r}: it must not contain {' '.join(bad)}"
        raise Rejected(Kind.INVALID, "INVALID_NAME", message, name=name[:300])


def _log(command: v1.LogLoggedModelRequest, state: LoggedModelState) -> Sequence[LoggedModelEvent]:
    check_params(command.params)
    check_tags(command.set_tags)
    check_removed(command.removed_tags, command.set_tags)
    _check_live(command.model_id, state)
    events: list[LoggedModelEvent] = []
    if new := new_params(command.params, state.params, model_id=command.model_id):
        events.append(v1.LoggedModelParamsLogged(model_id=command.model_id, params=new))
    if changes := tag_changes(state.tags, command.set_tags, command.removed_tags):
        events.append(v1.LoggedModelTagsChanged(model_id=command.model_id, changes=changes))
    return events


def _log_files(command: LogFiles, state: LoggedModelState) -> Sequence[LoggedModelEvent]:
    request = command.request
    check_digest(request.digest)
    _check_live(request.model_id, state)
    if command.rejection:
        raise command.rejection
    if request.digest == state.digest:
        return []
    if request.HasField("expected_digest") and request.expected_digest != state.digest:
        message = f"logged model {request.model_id} has other files than expected: {state.digest or 'none'}"
        raise Conflict("ARTIFACT_CHANGED", message, model_id=request.model_id, digest=state.digest)
    logged = v1.LoggedModelArtifactLogged(
        model_id=request.model_id,
        digest=request.digest,
        size_bytes=command.size_bytes,
        file_count=command.file_count,
    )
    return [logged]


def _finalize(command: v1.FinalizeLoggedModelRequest, state: LoggedModelState) -> Sequence[LoggedModelEvent]:
    _check_live(command.model_id, state)
    if command.status not in ENDINGS:
        message = "invalid status: expected READY or FAILED"
        raise Rejected(Kind.INVALID, "INVALID_STATUS", message, status=str(command.status))
    if command.status == state.status:
        return []
    return [v1.LoggedModelFinalized(model_id=command.model_id, status=command.status)]


def _delete(command: v1.DeleteLoggedModelRequest, state: LoggedModelState) -> Sequence[LoggedModelEvent]:
    _check_created(command.model_id, state)
    return [] if state.deleted else [v1.LoggedModelDeleted(model_id=command.model_id)]


def _restore(command: v1.RestoreLoggedModelRequest, state: LoggedModelState) -> Sequence[LoggedModelEvent]:
    _check_created(command.model_id, state)
    return [v1.LoggedModelRestored(model_id=command.model_id)] if state.deleted else []


def _check_created(model_id: str, state: LoggedModelState) -> None:
    if state.status == v1.LOGGED_MODEL_STATUS_UNSPECIFIED:
        message = f"no logged model has the id {model_id[:100]!r}"
        raise Rejected(Kind.NOT_FOUND, "LOGGED_MODEL_NOT_FOUND", message, model_id=model_id[:100])


def _check_live(model_id: str, state: LoggedModelState) -> None:
    _check_created(model_id, state)
    if state.deleted:
        message = f"logged model {model_id} is deleted"
        raise Rejected(Kind.PRECONDITION, "LOGGED_MODEL_DELETED", message, model_id=model_id)


def evolve(state: LoggedModelState, event: RecordedEvent) -> LoggedModelState:
    """Return the logged model after an event."""
    payload = logged_model_event(event.data)
    after = _evolve(state, payload)
    budget = _budget_after(state.budget, payload)
    return after if budget is state.budget else replace(after, budget=budget)


def _evolve(state: LoggedModelState, payload: LoggedModelEvent) -> LoggedModelState:  # noqa: PLR0911 - a case each
    match payload:
        case v1.LoggedModelCreated():
            return _created(payload)
        case v1.LoggedModelParamsLogged():
            return replace(state, params=added(state.params, payload.params))
        case v1.LoggedModelTagsChanged():
            return replace(state, tags=changed(state.tags, payload.changes))
        case v1.LoggedModelArtifactLogged():
            return replace(state, digest=payload.digest)
        case v1.LoggedModelFinalized():
            return replace(state, status=payload.status)
        case v1.LoggedModelDeleted():
            return replace(state, deleted=True)
        case v1.LoggedModelRestored():
            return replace(state, deleted=False)
        case _:
            assert_never(payload)


def _created(payload: v1.LoggedModelCreated) -> LoggedModelState:
    params, tags = added(HashTrieMap(), payload.params), added(HashTrieMap(), payload.tags)
    return LoggedModelState(v1.LOGGED_MODEL_STATUS_PENDING, params=params, tags=tags)


def _budget_after(budget: SizeBudget, event: LoggedModelEvent) -> SizeBudget:
    """Return the size of what a logged model shows after an event."""
    match event:
        case v1.LoggedModelCreated():
            return budget.put_labels("param", event.params).put_labels("tag", event.tags)
        case v1.LoggedModelParamsLogged():
            return budget.put_labels("param", event.params)
        case v1.LoggedModelTagsChanged():
            return budget.change_tags(event.changes)
        case _:
            return budget


LOGGED_MODELS: Decider[LoggedModelState] = Decider(LoggedModelState(), decide, evolve)
