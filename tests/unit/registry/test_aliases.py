"""The rules of aliases: moves, removals, policies, schedules and expiry, and why each is rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from eventstore.errors import Conflict, Kind
from eventstore.testing import given
from rollforward import v1
from services.registry.deciders.aliases import Expire, Fire, Move, Remove, ScheduleMove
from services.registry.deciders.models import DECIDER, refusal
from services.registry.deciders.policies import GateResult
from tests.unit.registry.streams import D1, D2, REQUEST, after, move, moved, remove, removed


class TestMoveAlias:
    def test_move_records_both_digests(self) -> None:
        after().when(move(1)).then(moved(0, 1))
        after(moved(0, 1)).when(move(2)).then(moved(1, 2))

    def test_move_to_current_version_changes_nothing(self) -> None:
        after(moved(0, 1)).when(move(1)).then()

    @pytest.mark.parametrize(("read", "log"), [(0, 7), (1, 7), (6, 7), (7, 8), (7, 1)])
    def test_expected_revision_of_other_epoch_is_conflict(self, read: int, log: int) -> None:
        for command in (move(2, expected=4), remove(expected=4)):
            command.request.epoch = read
            refused = after(moved(0, 1)).when(replace(command, epoch=log)).then_rejected("LOG_EPOCH_CHANGED")
            assert isinstance(refused, Conflict)
            assert (refused.metadata["log"], refused.metadata["epoch"]) == ("registry", str(log))

    @pytest.mark.parametrize(("read", "log"), [(0, 1), (1, 1), (7, 7)])
    def test_expected_revision_of_current_epoch_is_compared(self, read: int, log: int) -> None:
        for expected, events in ((4, [moved(1, 2)]), (5, None)):
            command = move(2, expected=expected)
            command.request.epoch = read
            decided = after(moved(0, 1)).when(replace(command, epoch=log))
            if events:
                decided.then(*events)
            else:
                decided.then_rejected("WRONG_REVISION")

    def test_move_without_expected_revision_needs_no_epoch(self) -> None:
        after(moved(0, 1)).when(replace(move(2), epoch=7)).then(moved(1, 2))

    def test_aliases_move_independently(self) -> None:
        after(moved(0, 1)).when(move(2, "candidate")).then(moved(0, 2, "candidate"))

    @pytest.mark.parametrize("alias", ["", "latest", "LATEST", "v1", "V22", "12", "a b", "a.b", "é", "a" * 256, "a\n"])
    def test_alias_that_reads_like_version_is_rejected(self, alias: str) -> None:
        after().when(move(1, alias)).then_rejected("INVALID_ALIAS")

    @pytest.mark.parametrize("version", [0, 3, 2**32 - 1])
    def test_move_to_unknown_version_is_rejected(self, version: int) -> None:
        refusal = after().when(move(version)).then_rejected("VERSION_NOT_FOUND")
        assert refusal.metadata == {"model": "fraud", "version": str(version)}

    def test_move_in_unknown_model_is_rejected(self) -> None:
        given(DECIDER).when(move(1)).then_rejected("MODEL_NOT_FOUND")

    def test_move_at_expected_revision_is_accepted(self) -> None:
        after(moved(0, 1)).when(move(2, expected=4)).then(moved(1, 2))
        after().when(move(2, expected=0)).then(moved(0, 2))

    @pytest.mark.parametrize("expected", [0, 3, 5, 2**64 - 1])
    @pytest.mark.parametrize("version", [1, 2])
    def test_move_at_other_revision_is_rejected_with_current_alias(self, expected: int, version: int) -> None:
        refusal = after(moved(0, 1)).when(move(version, expected=expected)).then_rejected("WRONG_REVISION")
        assert isinstance(refusal, Conflict)
        assert refusal.current == v1.Alias(model="fraud", alias="champion", version=1, digest=D1, revision=4)
        assert refusal.metadata["revision"] == "4"

    def test_removed_alias_counts_as_unset(self) -> None:
        gone = after(moved(0, 1), removed(1))
        gone.when(move(2, expected=0)).then(moved(0, 2))
        gone.when(move(2, expected=5)).then(moved(0, 2))
        refusal = gone.when(move(2, expected=4)).then_rejected("WRONG_REVISION")
        assert isinstance(refusal, Conflict)
        assert refusal.current == v1.Alias(model="fraud", alias="champion", revision=5)


class TestRemoveAlias:
    def test_alias_is_removed(self) -> None:
        after(moved(0, 2)).when(remove()).then(removed(2))
        after(moved(0, 2)).when(remove(expected=4)).then(removed(2))

    def test_removal_of_unset_alias_is_rejected(self) -> None:
        after().when(remove()).then_rejected("ALIAS_NOT_FOUND")
        after(moved(0, 1), removed(1)).when(remove()).then_rejected("ALIAS_NOT_FOUND")

    def test_removal_at_other_revision_is_rejected(self) -> None:
        after(moved(0, 1)).when(remove(expected=3)).then_rejected("WRONG_REVISION")
        after(moved(0, 1)).when(remove(expected=0)).then_rejected("WRONG_REVISION")

    def test_removal_in_unknown_model_is_rejected(self) -> None:
        given(DECIDER).when(remove()).then_rejected("MODEL_NOT_FOUND")

    def test_removal_of_alias_that_reads_like_version_is_rejected(self) -> None:
        after().when(remove(alias="v1")).then_rejected("INVALID_ALIAS")


class TestPolicies:
    """How policies bind moves."""

    PASSED = v1.GateEvidence(expression="a", passed=True, policy="p")
    FAILED = v1.GateEvidence(expression="b", detail="it is false", policy="q")

    def gated_move(self, *evidence: v1.GateEvidence, current: int = 1, reason: str = "better") -> Move:
        gate_result = GateResult(9, ("p",), evidence, candidate=2, current=current, champion=current)
        return Move(v1.MoveAliasRequest(model="fraud", alias="champion", version=2, reason=reason), gate_result)

    def test_event_records_evidence_of_gates(self) -> None:
        expected = moved(1, 2)
        expected.evidence.append(self.PASSED)
        expected.policy_revision = 9
        after(moved(0, 1)).when(self.gated_move(self.PASSED)).then(expected)

    def test_failed_gate_rejects_move_and_records_all_evidence(self) -> None:
        refused = v1.AliasMoveRefused(
            model="fraud",
            alias="champion",
            from_version=1,
            to_version=2,
            cause=REQUEST,
            evidence=[self.PASSED, self.FAILED],
            policy_revision=9,
        )
        after(moved(0, 1)).when(self.gated_move(self.PASSED, self.FAILED)).then(refused)
        error = refusal(refused)
        assert error is not None
        assert (error.kind, error.reason, error.detail) == (Kind.PRECONDITION, "GATE_FAILED", self.FAILED)

    def test_policy_may_require_reason(self) -> None:
        error = after(moved(0, 1)).when(self.gated_move(reason=" ")).then_rejected("REASON_REQUIRED")
        assert error.metadata == {"policy": "p"}
        command = Remove(v1.RemoveAliasRequest(model="fraud", alias="champion"), GateResult(9, ("p",)))
        after(moved(0, 1)).when(command).then_rejected("REASON_REQUIRED")

    def test_evidence_for_other_current_version_is_stale(self) -> None:
        after(moved(0, 1)).when(self.gated_move(self.PASSED, current=0)).then_rejected("EVIDENCE_STALE")

    def test_move_to_current_version_needs_no_gate(self) -> None:
        after(moved(0, 2)).when(self.gated_move(self.FAILED, reason="")).then()


class TestSchedules:
    ID = "0" * 32
    AT = Timestamp(seconds=100)
    SET = v1.AliasMoveScheduled(
        model="fraud", alias="champion", schedule_id=ID, to_version=2, to_digest=D2, at=AT, expected_revision=4
    )

    def test_move_is_scheduled(self) -> None:
        request = v1.ScheduleMoveRequest(model="fraud", alias="champion", version=2, at=self.AT, expected_revision=4)
        after(moved(0, 1)).when(ScheduleMove(request, self.ID)).then(self.SET)
        request.version = 3
        after(moved(0, 1)).when(ScheduleMove(request, self.ID)).then_rejected("VERSION_NOT_FOUND")
        request = v1.ScheduleMoveRequest(model="fraud", alias="champion", version=2)
        after(moved(0, 1)).when(ScheduleMove(request, self.ID)).then_rejected("INVALID_TIME")

    def test_scheduled_move_fires_once(self) -> None:
        made = moved(1, 2)
        made.cause, made.schedule_id = v1.ALIAS_CAUSE_SCHEDULE, self.ID
        after(moved(0, 1), self.SET).when(Fire("fraud", self.ID)).then(made)
        after(moved(0, 1), self.SET, made).when(Fire("fraud", self.ID)).then()

    def test_cancelled_schedule_does_not_fire(self) -> None:
        cancelled = v1.AliasScheduleCancelled(model="fraud", alias="champion", schedule_id=self.ID)
        request = v1.CancelScheduleRequest(model="fraud", schedule_id=self.ID)
        waiting = after(moved(0, 1), self.SET)
        waiting.when(request).then(cancelled)
        gone = after(moved(0, 1), self.SET, cancelled)
        gone.when(request).then_rejected("SCHEDULE_NOT_FOUND")
        gone.when(Fire("fraud", self.ID)).then()

    @pytest.mark.parametrize(
        ("between", "reason"),
        [
            ([moved(1, 2)], "WRONG_REVISION"),
            ([v1.VersionDeleted(model="fraud", version=2, digest=D2)], "VERSION_DELETED"),
        ],
    )
    def test_impossible_scheduled_move_records_refusal(self, between: Sequence[Message], reason: str) -> None:
        [payload] = after(moved(0, 1), self.SET, *between).when(Fire("fraud", self.ID)).events
        assert isinstance(payload, v1.AliasScheduleRefused)
        assert (payload.schedule_id, payload.refusal, payload.to_version) == (self.ID, reason, 2)

    def test_scheduled_move_that_fails_gate_records_evidence(self) -> None:
        gate_result = GateResult(9, (), (TestPolicies.FAILED,), candidate=2, current=1, champion=1)
        [payload] = after(moved(0, 1), self.SET).when(Fire("fraud", self.ID, gate_result)).events
        assert isinstance(payload, v1.AliasScheduleRefused)
        assert (payload.refusal, list(payload.evidence)) == ("GATE_FAILED", [TestPolicies.FAILED])

    def test_scheduled_move_to_current_version_is_refused(self) -> None:
        scheduled = v1.AliasMoveScheduled(
            model="fraud", alias="champion", schedule_id=self.ID, to_version=2, to_digest=D2
        )
        [payload] = after(moved(0, 2), scheduled).when(Fire("fraud", self.ID)).events
        assert isinstance(payload, v1.AliasScheduleRefused)
        assert payload.refusal == "ALREADY_THERE"


@pytest.mark.parametrize("expected", [2**63, 2**64 - 1])
def test_schedule_with_impossible_expected_revision_is_rejected(expected: int) -> None:
    request = v1.ScheduleMoveRequest(
        model="fraud", alias="champion", version=1, at=Timestamp(seconds=1), expected_revision=expected
    )
    after().when(ScheduleMove(request, "s")).then_rejected("INVALID_REVISION")
    request.expected_revision = 2**63 - 1
    assert after().when(ScheduleMove(request, "s")).events


class TestExpiry:
    def until(self, seconds: int, before: int = 0) -> v1.AliasMoved:
        payload = moved(before, 1)
        payload.expires_at.seconds = seconds
        return payload

    def test_assignment_expires(self) -> None:
        gone = removed(1, v1.ALIAS_CAUSE_EXPIRY)
        assigned = after(self.until(100))
        assigned.when(Expire("fraud", "champion", 4)).then(gone)
        after(self.until(100), gone).when(Expire("fraud", "champion", 4)).then()

    def test_expiry_leaves_later_assignment(self) -> None:
        after(self.until(100), moved(1, 2)).when(Expire("fraud", "champion", 4)).then()
        after(moved(0, 1)).when(Expire("fraud", "champion", 4)).then()

    def test_expiry_can_be_changed(self) -> None:
        request = v1.MoveAliasRequest(model="fraud", alias="champion", version=1, expires_at=Timestamp(seconds=200))
        after(self.until(100)).when(Move(request)).then(self.until(200, before=1))
        after(self.until(200)).when(Move(request)).then()

    def test_expiry_can_be_lifted(self) -> None:
        after(self.until(200)).when(move(1)).then(moved(1, 1))
        after(self.until(200), moved(1, 1)).when(move(1)).then()
        after(self.until(200), moved(1, 1)).when(Expire("fraud", "champion", 4)).then()
