"""The rules of a model's aliases: moves, removals, schedules, expiry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from eventstore import FIRST_EPOCH, Conflict, Kind, Rejected, check_epoch
from rollforward import v1
from services.registry.deciders.policies import GateResult
from services.registry.deciders.preconditions import (
    UNBOUND,
    alias_not_found,
    check_model,
    check_reason,
    check_revision,
    check_usable,
    gate_failed,
)
from services.registry.deciders.state import Assignment, Schedule, State
from services.timestamps import nanoseconds
from services.validation import check_alias

MAX_REVISION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Move:
    """A request to move an alias, with the result of its policies and the time of the request (ns since 1970).

    `epoch` is that of the log.
    """

    request: v1.MoveAliasRequest
    gate_result: GateResult = UNBOUND
    now: int = 0
    epoch: int = FIRST_EPOCH


@dataclass(frozen=True, slots=True)
class Remove:
    """A request to remove an alias, with the result of its policies and the log's epoch."""

    request: v1.RemoveAliasRequest
    gate_result: GateResult = UNBOUND
    epoch: int = FIRST_EPOCH


@dataclass(frozen=True, slots=True)
class ScheduleMove:
    """A request to schedule a move: the schedule's id, the log's epoch and the time of the request (ns since 1970)."""

    request: v1.ScheduleMoveRequest
    schedule_id: str
    gate_result: GateResult = UNBOUND
    epoch: int = FIRST_EPOCH
    now: int = 0


@dataclass(frozen=True, slots=True)
class Fire:
    """The command to make a scheduled move that is due; `rejection` is set if it is impossible."""

    model: str
    schedule_id: str
    gate_result: GateResult = UNBOUND
    rejection: Rejected | None = None


@dataclass(frozen=True, slots=True)
class Expire:
    """The command to end the assignment of a revision, which has expired."""

    model: str
    alias: str
    revision: int


AliasCommand: TypeAlias = Move | Remove | ScheduleMove | v1.CancelScheduleRequest | Fire | Expire


def move(command: Move, state: State) -> Sequence[v1.AliasMoved | v1.AliasMoveRefused]:
    """Return the events of a move: a move, a gate's refusal, or none if the alias is already so."""
    request = command.request
    check_alias(request.alias)
    check_model(request.model, state)
    check_usable(request.model, request.version, state)
    expected = _expected(request, command.epoch)
    current = check_revision(request.model, request.alias, expected, state)
    expires_at = _expiry(command)
    if (current.version, current.expires_at) == (request.version, expires_at):
        return []
    check_reason(request.reason, command.gate_result)
    check_fresh(command.gate_result, request.alias, request.version, state)
    moved = v1.AliasMoved(
        model=request.model,
        alias=request.alias,
        from_version=current.version,
        to_version=request.version,
        from_digest=state.digest(current.version),
        to_digest=state.digest(request.version),
        cause=v1.ALIAS_CAUSE_REQUEST,
        evidence=command.gate_result.evidence,
        policy_revision=command.gate_result.policy_revision,
        expires_at=request.expires_at if request.HasField("expires_at") else None,
    )
    return [moved if passed(command.gate_result) else refused(moved)]


def _expected(request: v1.MoveAliasRequest | v1.RemoveAliasRequest | v1.ScheduleMoveRequest, epoch: int) -> int | None:
    """Return the revision that a request expects, None for any; `Conflict` when it was read in another epoch."""
    if not request.HasField("expected_revision"):
        return None
    check_epoch("registry", request.epoch, epoch)
    return request.expected_revision


def _expiry(command: Move) -> int | None:
    if not command.request.HasField("expires_at"):
        return None
    expires_at = nanoseconds(command.request.expires_at)
    if expires_at <= command.now:
        raise _past("expires_at", command.request.expires_at)
    return expires_at


def _past(field: str, time: Timestamp) -> Rejected:
    text = time.ToJsonString()
    fault = f"{field} is in the past: {text}. Expected a time in the future, by the clock of the service"
    return Rejected(Kind.INVALID, "INVALID_TIME", fault, field=field, time=text)


def passed(gate_result: GateResult) -> bool:
    """Return whether all gates passed."""
    return all(evidence.passed for evidence in gate_result.evidence)


def refused(moved: v1.AliasMoved) -> v1.AliasMoveRefused:
    """Return the event that records a move that a gate refused."""
    return v1.AliasMoveRefused(
        model=moved.model,
        alias=moved.alias,
        from_version=moved.from_version,
        to_version=moved.to_version,
        cause=moved.cause,
        evidence=moved.evidence,
        policy_revision=moved.policy_revision,
    )


def check_fresh(gate_result: GateResult, alias: str, version: int, state: State) -> None:
    """Raise `Conflict` EVIDENCE_STALE if gates evaluated other versions than the current ones."""
    seen = (gate_result.candidate, gate_result.current, gate_result.champion)
    if gate_result.evidence and seen != (version, state.alias(alias).version, state.alias("champion").version):
        raise Conflict("EVIDENCE_STALE", "an alias was moved while its gates were evaluated. Retry", alias=alias)


def _remove(command: Remove, state: State) -> Sequence[Message]:
    request = command.request
    check_alias(request.alias)
    check_model(request.model, state)
    current = check_revision(request.model, request.alias, _expected(request, command.epoch), state)
    if not current.version:
        raise alias_not_found(request.model, request.alias)
    check_reason(request.reason, command.gate_result)
    gone = removed(request.model, request.alias, current, state, v1.ALIAS_CAUSE_REQUEST)
    gone.policy_revision = command.gate_result.policy_revision
    return [gone]


def removed(
    model: str, alias: str, current: Assignment, state: State, cause: v1.AliasCause.ValueType
) -> v1.AliasRemoved:
    """Return the removal of an alias that is set."""
    digest = state.digest(current.version)
    return v1.AliasRemoved(model=model, alias=alias, from_version=current.version, from_digest=digest, cause=cause)


def _schedule(command: ScheduleMove, state: State) -> Sequence[Message]:
    request = command.request
    check_alias(request.alias)
    check_model(request.model, state)
    check_usable(request.model, request.version, state)
    if not request.HasField("at"):
        raise Rejected(Kind.INVALID, "INVALID_TIME", "at is missing: expected a time in the future")
    if nanoseconds(request.at) <= command.now:
        raise _past("at", request.at)
    if request.expected_revision > MAX_REVISION:
        raise Rejected(Kind.INVALID, "INVALID_REVISION", f"invalid expected_revision: expected at most {MAX_REVISION}")
    expected = _expected(request, command.epoch)
    check_reason(request.reason, command.gate_result)
    return [
        v1.AliasMoveScheduled(
            model=request.model,
            alias=request.alias,
            schedule_id=command.schedule_id,
            to_version=request.version,
            to_digest=state.digest(request.version),
            at=request.at,
            expected_revision=expected,
        )
    ]


def _cancel(command: v1.CancelScheduleRequest, state: State) -> Sequence[Message]:
    check_model(command.model, state)
    schedule = state.schedules.get(command.schedule_id)
    if schedule is None:
        message = f"model {command.model!r} has no pending schedule {command.schedule_id!r}"
        about: dict[str, Any] = {"model": command.model, "schedule_id": command.schedule_id[:100]}
        raise Rejected(Kind.NOT_FOUND, "SCHEDULE_NOT_FOUND", message, **about)
    cancelled = v1.AliasScheduleCancelled(model=command.model, alias=schedule.alias, schedule_id=command.schedule_id)
    return [cancelled]


def _fire(command: Fire, state: State) -> Sequence[Message]:
    schedule = state.schedules.get(command.schedule_id)
    if schedule is None:  # it was made, cancelled or refused already
        return []
    request = v1.MoveAliasRequest(
        model=state.name,
        alias=schedule.alias,
        version=schedule.version,
        expected_revision=schedule.expected_revision,
        reason=schedule.reason,
    )
    try:
        made = _made_at_its_time(command, request, state)
    except Rejected as refusal:
        return [_not_moved(command, schedule, state, refusal.reason, refusal.message)]
    except Conflict as conflict:
        if conflict.reason == "EVIDENCE_STALE":
            raise
        return [_not_moved(command, schedule, state, conflict.reason, str(conflict))]
    for payload in made:
        if isinstance(payload, v1.AliasMoveRefused):
            failed = gate_failed(payload.evidence)
            return [_not_moved(command, schedule, state, failed.reason, failed.message)]
        payload.cause, payload.schedule_id = v1.ALIAS_CAUSE_SCHEDULE, command.schedule_id
    if not made:
        message = f"{state.name}@{schedule.alias} already names version {schedule.version}"
        return [_not_moved(command, schedule, state, "ALREADY_THERE", message)]
    return made


def _made_at_its_time(
    command: Fire, request: v1.MoveAliasRequest, state: State
) -> Sequence[v1.AliasMoved | v1.AliasMoveRefused]:
    if command.rejection:
        raise command.rejection
    return move(Move(request, command.gate_result), state)


def _not_moved(command: Fire, schedule: Schedule, state: State, reason: str, message: str) -> v1.AliasScheduleRefused:
    return v1.AliasScheduleRefused(
        model=state.name,
        alias=schedule.alias,
        schedule_id=command.schedule_id,
        to_version=schedule.version,
        refusal=reason,
        detail=message,
        evidence=command.gate_result.evidence,
        policy_revision=command.gate_result.policy_revision,
    )


def _expire(command: Expire, state: State) -> Sequence[Message]:
    current = state.alias(command.alias)
    if current.revision != command.revision or current.expires_at is None:  # it was changed before
        return []
    return [removed(state.name, command.alias, current, state, v1.ALIAS_CAUSE_EXPIRY)]


def decide(command: AliasCommand, state: State) -> Sequence[Message]:
    """Return the events of a command. Raises `Rejected` or `Conflict`."""
    match command:
        case Move():
            return move(command, state)
        case Remove():
            return _remove(command, state)
        case ScheduleMove():
            return _schedule(command, state)
        case v1.CancelScheduleRequest():
            return _cancel(command, state)
        case Fire():
            return _fire(command, state)
        case Expire():
            return _expire(command, state)
        case _:
            assert_never(command)
