"""Scheduled moves and expiring assignments: each happens once, also across a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import from_rpc_error
from tests.integration.up import ACTOR, SECONDS, Client, Up, up
from tests.timeouts import in_time

pytestmark = pytest.mark.busy

T = TypeVar("T")


def seconds_from_now(seconds: float) -> Timestamp:
    """Return the time so many seconds from now."""
    result = Timestamp()
    result.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return result


def schedule(system: Client, model: str, version: int, seconds: float, expected: int | None = None) -> v1.Schedule:
    """Schedule a move of the champion."""
    request = v1.ScheduleMoveRequest(
        model=model,
        alias="champion",
        version=version,
        at=seconds_from_now(seconds),
        expected_revision=expected,
        reason="at night",
    )
    return system.registry.ScheduleMove(request, metadata=ACTOR, timeout=SECONDS).schedule


def eventually(poll: Callable[[], T], holds: Callable[[T], bool]) -> T:
    """Poll until a condition holds, and return the result."""
    deadline = time.monotonic() + SECONDS
    while not holds(result := poll()):
        assert time.monotonic() < deadline, result
        time.sleep(0.02)
    return result


def changes(system: Client, model: str, alias: str = "champion") -> list[v1.AliasChange]:
    """Return an alias's changes, oldest first."""
    request = v1.ListAliasHistoryRequest(model=model, alias=alias)
    return list(reversed(system.registry.ListAliasHistory(request, timeout=SECONDS).changes))


def events(system: Client, model: str, kind: str) -> list[v1.RecordedEvent]:
    """Return the events of a type in a model's stream."""
    request = v1.ListEventsRequest(log="registry", stream=f"model/{model}", type=kind)
    return list(system.audit.ListEvents(request, timeout=SECONDS).events)


def pending_schedules(system: Client, model: str) -> list[v1.Schedule]:
    """Return the model's pending schedules."""
    return list(system.registry.ListSchedules(v1.ListSchedulesRequest(model=model), timeout=SECONDS).schedules)


def unless_too_late(call: Callable[[], T], reason: str) -> T | None:
    """Return the response of a call; None if it is rejected because its time has passed."""
    try:
        return call()
    except grpc.RpcError as error:
        if from_rpc_error(error).reason != reason:
            raise
        return None


def schedule_soon(system: Client, model: str, version: int, expected: int | None = None) -> v1.Schedule:
    """Schedule a move of the champion as soon as this machine can."""
    return in_time(
        lambda seconds: unless_too_late(lambda: schedule(system, model, version, seconds, expected), "INVALID_TIME")
    )


def move_until(system: Client, model: str, seconds: float) -> v1.MoveAliasResponse | None:
    """Move the champion to version 1 for so many seconds; return None if they have passed before."""
    request = v1.MoveAliasRequest(model=model, alias="champion", version=1, expires_at=seconds_from_now(seconds))
    return unless_too_late(lambda: system.registry.MoveAlias(request, timeout=SECONDS), "INVALID_TIME")


def test_scheduled_move_is_made_at_its_time(system: Up) -> None:
    def attempt(seconds: float) -> tuple[str, v1.Schedule] | None:
        model = system.new_model()
        system.move(model, 1)
        made = unless_too_late(lambda: schedule(system, model, 2, seconds), "INVALID_TIME")
        return (model, made) if made and pending_schedules(system, model) == [made] else None

    model, made = in_time(attempt)
    assert (made.actor, made.reason, made.version) == ("Zoë", "at night", 2)
    last = eventually(lambda: changes(system, model), lambda found: len(found) == 2)[-1]
    assert last.time.ToNanoseconds() >= made.at.ToNanoseconds()
    assert (last.to_version, last.cause, last.schedule_id) == (2, v1.ALIAS_CAUSE_SCHEDULE, made.schedule_id)
    assert (last.actor, last.reason) == ("Zoë", "at night")
    assert pending_schedules(system, model) == []


def test_cancelled_schedule_is_not_made(system: Up) -> None:
    def attempt(seconds: float) -> tuple[v1.CancelScheduleRequest, v1.Schedule] | None:
        model = system.new_model()
        system.move(model, 1)
        made = schedule(system, model, 2, seconds)
        witness = schedule(system, system.new_model(), 1, seconds)  # it is due later
        cancellation = v1.CancelScheduleRequest(model=model, schedule_id=made.schedule_id, reason="not tonight")
        answer = unless_too_late(
            lambda: system.registry.CancelSchedule(cancellation, timeout=SECONDS), "SCHEDULE_NOT_FOUND"
        )
        return (cancellation, witness) if answer else None

    cancellation, witness = in_time(attempt)
    model = cancellation.model
    assert pending_schedules(system, model) == []
    eventually(lambda: changes(system, witness.model), bool)
    assert len(changes(system, model)) == 1
    assert system.refused(system.registry.CancelSchedule, cancellation).reason == "SCHEDULE_NOT_FOUND"


def test_impossible_scheduled_move_records_refusal(system: Up, model: str) -> None:
    revision = system.move(model, 1).alias.revision
    schedule_soon(system, model, 2, expected=revision - 1)
    [refused] = eventually(lambda: events(system, model, "AliasScheduleRefused"), bool)
    payload = v1.AliasScheduleRefused()
    refused.data.Unpack(payload)
    assert (payload.refusal, payload.to_version) == ("WRONG_REVISION", 2)
    assert len(changes(system, model)) == 1


def test_scheduled_move_with_too_large_evidence_is_refused(system: Up) -> None:
    model, other, digest = system.new_model(0), system.new_model(), system.upload()
    for _ in range(2):
        tags = {f"t{number}": "v" * 5_000 for number in range(190)}
        version = v1.RegisterVersionRequest(model=model, digest=digest, tags=tags)
        system.registry.RegisterVersion(version, timeout=SECONDS)
    system.move(model, 1)
    gate = "candidate.tags.all(key, key in current.tags)"
    policy = v1.Policy(name=model, models=model, aliases="champion", gate=gate)
    system.policies.SetPolicy(v1.SetPolicyRequest(policy=policy), timeout=SECONDS)
    made = schedule_soon(system, model, 2)
    schedule_soon(system, other, 2)
    eventually(lambda: changes(system, other), bool)
    [refused] = eventually(lambda: events(system, model, "AliasScheduleRefused"), bool)
    payload = v1.AliasScheduleRefused()
    refused.data.Unpack(payload)
    assert (payload.refusal, payload.schedule_id) == ("MESSAGE_TOO_LARGE", made.schedule_id)
    assert pending_schedules(system, model) == []


def test_assignment_expires(system: Up, model: str) -> None:
    assert in_time(lambda seconds: move_until(system, model, seconds)).alias.HasField("expires_at")
    last = eventually(lambda: changes(system, model), lambda found: len(found) == 2)[-1]
    assert (last.to_version, last.cause) == (0, v1.ALIAS_CAUSE_EXPIRY)


def test_changed_assignment_does_not_expire(system: Up) -> None:
    def attempt(seconds: float) -> tuple[str, v1.Schedule] | None:
        model = system.new_model()
        moved = move_until(system, model, seconds)
        witness = schedule(system, system.new_model(), 1, seconds)  # it is due later
        system.move(model, 2)
        in_time_too = [change.to_version for change in changes(system, model)] == [1, 2]
        return (model, witness) if moved and in_time_too else None

    model, witness = in_time(attempt)
    eventually(lambda: changes(system, witness.model), bool)
    assert [change.to_version for change in changes(system, model)] == [1, 2]


@pytest.mark.parametrize("seconds", [-10.0, 0.0])
def test_expiry_in_past_is_rejected(system: Up, model: str, seconds: float) -> None:
    request = v1.MoveAliasRequest(model=model, alias="champion", version=1, expires_at=seconds_from_now(seconds))
    assert system.refused(system.registry.MoveAlias, request).reason == "INVALID_TIME"


def test_schedule_due_during_downtime_is_made_once_at_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with up(data) as system:
        model = system.new_model()
        ending = v1.MoveAliasRequest(model=model, alias="canary", version=1, expires_at=seconds_from_now(1.0))
        system.registry.MoveAlias(ending, timeout=SECONDS)
        made = schedule(system, model, 2, 1.0)
        system.program.kill()
    eventually(time.time_ns, lambda now: now > made.at.ToNanoseconds())
    for _ in range(2):
        with up(data) as system:
            [change] = eventually(lambda: changes(system, model), bool)
            assert (change.to_version, change.schedule_id) == (2, made.schedule_id)
            canary = eventually(lambda: changes(system, model, "canary"), lambda found: len(found) == 2)
            assert canary[1].cause == v1.ALIAS_CAUSE_EXPIRY
