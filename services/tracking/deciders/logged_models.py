"""The rules of a logged model: what may happen to it, and what it may log."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import Decider, Kind, RecordedEvent, Rejected
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
from services.validation import check_digest, check_id, check_logged_model_id, check_text

LONGEST_NAME = 500
LONGEST_TYPE = 500
ENDINGS = (v1.LOGGED_MODEL_STATUS_READY, v1.LOGGED_MODEL_STATUS_FAILED)


@dataclass(frozen=True, slots=True)
class LoggedModelState:
    """What deciding about a logged model takes.

    Attributes:
        status: Where it stands; UNSPECIFIED before it was created.
        deleted: Whether it was deleted itself; its experiment does not count.
        digest: Its files' digest; empty when none were logged.
        params, tags: Its labels.
        room: What is shown of it.
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
        why_not: The refusal of files that are not stored.
    """

    request: v1.LogLoggedModelArtifactRequest
    size_bytes: int = 0
    file_count: int = 0
    rejection: Rejected | None = None


def decide(command: object, state: LoggedModelState) -> Sequence[Message]:
    """What a command makes happen."""
    rule = _RULES.get(type(command))
    if rule is None:
        raise TypeError(f"not a command of a logged model: {type(command).__name__}")
    events = rule(command, state)
    after = reduce(_shown, events, state.budget)
    if after is not state.budget:
        after.check_growth(state.budget, LARGEST_LOGGED_MODEL, "LOGGED_MODEL_FULL", model_id=events[0].model_id)  # type: ignore[attr-defined]
    return events


def _create(command: Create, state: LoggedModelState) -> Sequence[Message]:
    request = command.request
    check_logged_model_id(request.model_id)
    _check_name(request.name)
    check_text(request.model_type, "a model's type", LONGEST_TYPE, "INVALID_NAME", shortest=0)
    if request.source_run_id:
        check_id(request.source_run_id, "INVALID_RUN_ID")
    check_params(request.params)
    check_tags(request.tags)
    if state.status != v1.LOGGED_MODEL_STATUS_UNSPECIFIED:
        words = f"logged model {request.model_id} exists"
        raise Rejected(Kind.EXISTS, "LOGGED_MODEL_EXISTS", words, model_id=request.model_id)
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
    check_text(name, "a logged model's name", LONGEST_NAME, "INVALID_NAME")
    if bad := sorted(set(name) & set("/:.%\"'")):
        words = f"a logged model's name cannot have {' '.join(bad)}: {name[:300]!r}"
        raise Rejected(Kind.INVALID, "INVALID_NAME", words, name=name[:300])


def _log(command: v1.LogLoggedModelRequest, state: LoggedModelState) -> Sequence[Message]:
    check_params(command.params)
    check_tags(command.set_tags)
    check_removed(command.removed_tags, command.set_tags)
    _check_live(command.model_id, state)
    events: list[Message] = []
    if new := new_params(command.params, state.params, model_id=command.model_id):
        events.append(v1.LoggedModelParamsLogged(model_id=command.model_id, params=new))
    if changes := tag_changes(state.tags, command.set_tags, command.removed_tags):
        events.append(v1.LoggedModelTagsChanged(model_id=command.model_id, changes=changes))
    return events


def _log_files(command: LogFiles, state: LoggedModelState) -> Sequence[Message]:
    request = command.request
    check_digest(request.digest)
    _check_live(request.model_id, state)
    if command.rejection:
        raise command.rejection
    if request.digest == state.digest:
        return []
    logged = v1.LoggedModelArtifactLogged(
        model_id=request.model_id,
        digest=request.digest,
        size_bytes=command.size_bytes,
        file_count=command.file_count,
    )
    return [logged]


def _finalize(command: v1.FinalizeLoggedModelRequest, state: LoggedModelState) -> Sequence[Message]:
    _check_live(command.model_id, state)
    if command.status not in ENDINGS:
        words = "a logged model becomes READY or FAILED"
        raise Rejected(Kind.INVALID, "INVALID_STATUS", words, status=str(command.status))
    if command.status == state.status:
        return []
    return [v1.LoggedModelFinalized(model_id=command.model_id, status=command.status)]


def _delete(command: v1.DeleteLoggedModelRequest, state: LoggedModelState) -> Sequence[Message]:
    _check_created(command.model_id, state)
    return [] if state.deleted else [v1.LoggedModelDeleted(model_id=command.model_id)]


def _restore(command: v1.RestoreLoggedModelRequest, state: LoggedModelState) -> Sequence[Message]:
    _check_created(command.model_id, state)
    return [v1.LoggedModelRestored(model_id=command.model_id)] if state.deleted else []


def _check_created(model_id: str, state: LoggedModelState) -> None:
    if state.status == v1.LOGGED_MODEL_STATUS_UNSPECIFIED:
        words = f"no logged model {model_id[:100]!r}"
        raise Rejected(Kind.NOT_FOUND, "LOGGED_MODEL_NOT_FOUND", words, model_id=model_id[:100])


def _check_live(model_id: str, state: LoggedModelState) -> None:
    _check_created(model_id, state)
    if state.deleted:
        words = f"logged model {model_id} is deleted"
        raise Rejected(Kind.PRECONDITION, "LOGGED_MODEL_DELETED", words, model_id=model_id)


_RULES: Mapping[type, Callable[[Any, LoggedModelState], Sequence[Message]]] = {
    Create: _create,
    v1.LogLoggedModelRequest: _log,
    LogFiles: _log_files,
    v1.FinalizeLoggedModelRequest: _finalize,
    v1.DeleteLoggedModelRequest: _delete,
    v1.RestoreLoggedModelRequest: _restore,
}


def evolve(state: LoggedModelState, event: RecordedEvent) -> LoggedModelState:
    """The logged model after an event."""
    after = _EVOLVE[type(event.data)](state, event.data)
    budget = _shown(state.budget, event.data)
    return after if budget is state.budget else replace(after, budget=budget)


def _created(_: LoggedModelState, payload: v1.LoggedModelCreated) -> LoggedModelState:
    params, tags = added(HashTrieMap(), payload.params), added(HashTrieMap(), payload.tags)
    return LoggedModelState(v1.LOGGED_MODEL_STATUS_PENDING, params=params, tags=tags)


def _shown(budget: SizeBudget, event: Message) -> SizeBudget:
    """What is shown of a logged model after an event."""
    match event:
        case v1.LoggedModelCreated():
            return budget.put_labels("param", event.params).put_labels("tag", event.tags)
        case v1.LoggedModelParamsLogged():
            return budget.put_labels("param", event.params)
        case v1.LoggedModelTagsChanged():
            return budget.change_tags(event.changes)
        case _:
            return budget


_EVOLVE: Mapping[type[Message], Callable[[LoggedModelState, Any], LoggedModelState]] = {
    v1.LoggedModelCreated: _created,
    v1.LoggedModelParamsLogged: lambda state, payload: replace(state, params=added(state.params, payload.params)),
    v1.LoggedModelTagsChanged: lambda state, payload: replace(state, tags=changed(state.tags, payload.changes)),
    v1.LoggedModelArtifactLogged: lambda state, payload: replace(state, digest=payload.digest),
    v1.LoggedModelFinalized: lambda state, payload: replace(state, status=payload.status),
    v1.LoggedModelDeleted: lambda state, _: replace(state, deleted=True),
    v1.LoggedModelRestored: lambda state, _: replace(state, deleted=False),
}

LOGGED_MODELS: Decider[LoggedModelState] = Decider(LoggedModelState(), decide, evolve)
