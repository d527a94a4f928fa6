"""The rules of a model's stream, one by one: what each command makes happen, and why it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.errors import Conflict, Kind, Rejected
from eventstore.event import Metadata, RecordedEvent
from eventstore.testing import Given, given
from rollforward import v1
from services.registry.aliases import Expire, Fire, Move, Remove, ScheduleMove
from services.registry.decider import DECIDER, Register, decide, refusal
from services.registry.policies import Judgement
from services.registry.state import State, evolve

CREATED = v1.ModelCreated(model="fraud")
D1, D2, D3 = (f"sha256:{digit * 64}" for digit in "123")
REQUEST = v1.ALIAS_CAUSE_REQUEST
TWO_VERSIONS = (
    CREATED,
    v1.VersionRegistered(model="fraud", version=1, digest=D1),
    v1.VersionRegistered(model="fraud", version=2, digest=D2),
)


def moved(before: int, after: int, alias: str = "champion") -> v1.AliasMoved:
    """The champion moved."""
    return v1.AliasMoved(
        model="fraud",
        alias=alias,
        from_version=before,
        to_version=after,
        from_digest={0: "", 1: D1, 2: D2}[before],
        to_digest={1: D1, 2: D2}[after],
        cause=REQUEST,
    )


def removed(before: int, cause: v1.AliasCause.ValueType = REQUEST) -> v1.AliasRemoved:
    """The champion was removed."""
    return v1.AliasRemoved(
        model="fraud", alias="champion", from_version=before, from_digest={1: D1, 2: D2}[before], cause=cause
    )


def after(*events: Message) -> Given[State]:
    """Two versions at positions 2 and 3, then these events, from position 4 on."""
    return given(DECIDER, *TWO_VERSIONS, *events)


def move(version: int, alias: str = "champion", expected: int | None = None) -> Move:
    """Asks for a move."""
    return Move(v1.MoveAliasRequest(model="fraud", alias=alias, version=version, expected_revision=expected))


def remove(expected: int | None = None, alias: str = "champion") -> Remove:
    """Asks for a removal."""
    return Remove(v1.RemoveAliasRequest(model="fraud", alias=alias, expected_revision=expected))


class TestCreateModel:
    def test_a_model_comes_into_being(self) -> None:
        command = v1.CreateModelRequest(name="fraud", description="Finds fraud.\nIn cards.\n", tags={"team": "risk"})
        created = v1.ModelCreated(model="fraud", description="Finds fraud.\nIn cards.\n", tags={"team": "risk"})
        given(DECIDER).when(command).then(created)

    def test_with_its_gate(self) -> None:
        gate = v1.RegistrationGateSet(model="fraud", to_expression="true")
        given(DECIDER).when(v1.CreateModelRequest(name="fraud", registration_gate="true")).then(CREATED, gate)

    def test_only_once(self) -> None:
        refusal = given(DECIDER, CREATED).when(v1.CreateModelRequest(name="fraud")).then_rejected("MODEL_EXISTS")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.EXISTS
        assert refusal.metadata == {"model": "fraud"}

    def test_not_in_the_stream_of_a_name_that_another_was_given(self) -> None:
        taken = v1.ModelNameTaken(name="fraud", origin="other")
        refusal = given(DECIDER, taken).when(v1.CreateModelRequest(name="fraud")).then_rejected("NAME_TAKEN")
        assert isinstance(refusal, Conflict)
        register = Register(v1.RegisterVersionRequest(model="fraud"), D1)
        given(DECIDER, taken).when(register).then_rejected("NAME_TAKEN")

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (v1.CreateModelRequest(name=""), "INVALID_NAME"),
            (v1.CreateModelRequest(name="a/b"), "INVALID_NAME"),
            (v1.CreateModelRequest(name="a@b"), "INVALID_NAME"),
            (v1.CreateModelRequest(name="a", description="\x1b[31m"), "INVALID_DESCRIPTION"),
            (v1.CreateModelRequest(name="a", description="x" * 5001), "INVALID_DESCRIPTION"),
            (v1.CreateModelRequest(name="a", tags={"": "x"}), "INVALID_TAG"),
            (v1.CreateModelRequest(name="a", tags={"k" * 251: "x"}), "INVALID_TAG"),
            (v1.CreateModelRequest(name="a", tags={"k": "x" * 5001}), "INVALID_TAG"),
        ],
        ids=count(),
    )
    def test_well_named_only(self, command: v1.CreateModelRequest, reason: str) -> None:
        refusal = given(DECIDER).when(command).then_rejected(reason)
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.INVALID

    def test_people_write_in_their_own_words(self) -> None:
        words = "Für Zoë 👩‍💻\tmore\r\n"
        command = v1.CreateModelRequest(name="fraud", description=words, tags={"k": words})
        given(DECIDER).when(command).then(v1.ModelCreated(model="fraud", description=words, tags={"k": words}))


class TestGate:
    SET = v1.RegistrationGateSet(model="fraud", to_expression="a")

    def test_is_set_changed_and_lifted(self) -> None:
        given(DECIDER, CREATED).when(v1.SetRegistrationGateRequest(model="fraud", expression="a")).then(self.SET)
        changed = v1.RegistrationGateSet(model="fraud", from_expression="a", to_expression="b")
        gated = given(DECIDER, CREATED, self.SET)
        gated.when(v1.SetRegistrationGateRequest(model="fraud", expression="b")).then(changed)
        lifted = v1.RegistrationGateSet(model="fraud", from_expression="a")
        gated.when(v1.SetRegistrationGateRequest(model="fraud")).then(lifted)

    def test_as_it_is_already_nothing_happens(self) -> None:
        given(DECIDER, CREATED, self.SET).when(v1.SetRegistrationGateRequest(model="fraud", expression="a")).then()

    def test_of_an_unknown_model(self) -> None:
        given(DECIDER).when(v1.SetRegistrationGateRequest(model="fraud")).then_rejected("MODEL_NOT_FOUND")


class TestRegister:
    def command(self, evidence: v1.GateEvidence | None = None, **fields: str) -> Register:
        return Register(v1.RegisterVersionRequest(model="fraud", **fields), D1, evidence)  # type: ignore[arg-type]

    def test_the_first_version_brings_the_model(self) -> None:
        given(DECIDER).when(self.command(run_id="r", artifact_path="model")).then(
            CREATED,
            v1.VersionRegistered(model="fraud", version=1, digest=D1, run_id="r", artifact_path="model"),
        )

    def test_numbers_count_up(self) -> None:
        after().when(self.command()).then(v1.VersionRegistered(model="fraud", version=3, digest=D1))

    def test_a_gate_that_holds_leaves_its_evidence(self) -> None:
        evidence = v1.GateEvidence(expression="a", passed=True, tracking_position=7)
        registered = v1.VersionRegistered(model="fraud", version=1, digest=D1, evidence=evidence)
        given(DECIDER, CREATED, TestGate.SET).when(self.command(evidence)).then(registered)

    def test_a_gate_that_does_not_hold_refuses_and_says_what_it_saw(self) -> None:
        evidence = v1.GateEvidence(expression="a", run=v1.GateRun(run_id="r", metrics={"acc": 0.5}), detail="False")
        refused = v1.VersionRefused(model="fraud", digest=D1, evidence=[evidence])
        given(DECIDER, CREATED, TestGate.SET).when(self.command(evidence)).then(refused)
        error = refusal(refused)
        assert error is not None
        assert (error.kind, error.reason, error.detail) == (Kind.PRECONDITION, "GATE_FAILED", evidence)

    @pytest.mark.parametrize("evidence", [None, v1.GateEvidence(expression="b", passed=True)])
    def test_evidence_of_another_gate_does_not_count(self, evidence: v1.GateEvidence | None) -> None:
        given(DECIDER, CREATED, TestGate.SET).when(self.command(evidence)).then_rejected("GATE_CHANGED")

    def test_evidence_of_a_gate_that_was_lifted_does_not_count(self) -> None:
        evidence = v1.GateEvidence(expression="a", passed=True)
        given(DECIDER, CREATED).when(self.command(evidence)).then_rejected("GATE_CHANGED")

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (Register(v1.RegisterVersionRequest(model=" x"), D1), "INVALID_NAME"),
            (Register(v1.RegisterVersionRequest(model="x"), "sha256:12"), "INVALID_DIGEST"),
            (Register(v1.RegisterVersionRequest(model="x"), D1.upper()), "INVALID_DIGEST"),
            (Register(v1.RegisterVersionRequest(model="x", description="\0"), D1), "INVALID_DESCRIPTION"),
            (Register(v1.RegisterVersionRequest(model="x", tags={"\n": ""}), D1), "INVALID_TAG"),
            (Register(v1.RegisterVersionRequest(model="x", artifact_path="a" * 1025), D1), "INVALID_PATH"),
            (Register(v1.RegisterVersionRequest(model="x", artifact_path="a\nb"), D1), "INVALID_PATH"),
        ],
        ids=count(),
    )
    def test_well_formed_only(self, command: Register, reason: str) -> None:
        given(DECIDER).when(command).then_rejected(reason)


class TestMoveAlias:
    def test_to_a_version_with_both_digests(self) -> None:
        after().when(move(1)).then(moved(0, 1))
        after(moved(0, 1)).when(move(2)).then(moved(1, 2))

    def test_to_where_it_is_nothing_happens(self) -> None:
        after(moved(0, 1)).when(move(1)).then()

    def test_each_alias_on_its_own(self) -> None:
        after(moved(0, 1)).when(move(2, "candidate")).then(moved(0, 2, "candidate"))

    @pytest.mark.parametrize("alias", ["", "latest", "LATEST", "v1", "V22", "12", "a b", "a.b", "é", "a" * 256, "a\n"])
    def test_an_alias_must_not_read_like_a_version(self, alias: str) -> None:
        after().when(move(1, alias)).then_rejected("INVALID_ALIAS")

    @pytest.mark.parametrize("version", [0, 3, 2**32 - 1])
    def test_to_a_version_that_there_is_not(self, version: int) -> None:
        refusal = after().when(move(version)).then_rejected("VERSION_NOT_FOUND")
        assert refusal.metadata == {"model": "fraud", "version": str(version)}

    def test_of_an_unknown_model(self) -> None:
        given(DECIDER).when(move(1)).then_rejected("MODEL_NOT_FOUND")

    def test_at_the_revision_that_was_seen(self) -> None:
        after(moved(0, 1)).when(move(2, expected=4)).then(moved(1, 2))
        after().when(move(2, expected=0)).then(moved(0, 2))

    @pytest.mark.parametrize("expected", [0, 3, 5, 2**64 - 1])
    @pytest.mark.parametrize("version", [1, 2])
    def test_at_another_revision_the_current_state_is_told(self, expected: int, version: int) -> None:
        refusal = after(moved(0, 1)).when(move(version, expected=expected)).then_rejected("WRONG_REVISION")
        assert isinstance(refusal, Conflict)
        assert refusal.current == v1.Alias(model="fraud", alias="champion", version=1, digest=D1, revision=4)
        assert refusal.metadata["revision"] == "4"

    def test_a_removed_alias_is_not_set(self) -> None:
        gone = after(moved(0, 1), removed(1))
        gone.when(move(2, expected=0)).then(moved(0, 2))
        gone.when(move(2, expected=5)).then(moved(0, 2))
        refusal = gone.when(move(2, expected=4)).then_rejected("WRONG_REVISION")
        assert isinstance(refusal, Conflict)
        assert refusal.current == v1.Alias(model="fraud", alias="champion", revision=5)


class TestRemoveAlias:
    def test_takes_it_away(self) -> None:
        after(moved(0, 2)).when(remove()).then(removed(2))
        after(moved(0, 2)).when(remove(expected=4)).then(removed(2))

    def test_that_is_not_set(self) -> None:
        after().when(remove()).then_rejected("ALIAS_NOT_FOUND")
        after(moved(0, 1), removed(1)).when(remove()).then_rejected("ALIAS_NOT_FOUND")

    def test_at_another_revision(self) -> None:
        after(moved(0, 1)).when(remove(expected=3)).then_rejected("WRONG_REVISION")
        after(moved(0, 1)).when(remove(expected=0)).then_rejected("WRONG_REVISION")

    def test_of_an_unknown_model(self) -> None:
        given(DECIDER).when(remove()).then_rejected("MODEL_NOT_FOUND")

    def test_that_reads_like_a_version(self) -> None:
        after().when(remove(alias="v1")).then_rejected("INVALID_ALIAS")


class TestPolicies:
    """What is said of a move by the policies that bind it."""

    PASSED = v1.GateEvidence(expression="a", passed=True, policy="p")
    FAILED = v1.GateEvidence(expression="b", detail="it is false", policy="q")

    def asked(self, *evidence: v1.GateEvidence, current: int = 1, reason: str = "better") -> Move:
        judgement = Judgement(9, ("p",), evidence, candidate=2, current=current, champion=current)
        return Move(v1.MoveAliasRequest(model="fraud", alias="champion", version=2, reason=reason), judgement)

    def test_what_gates_saw_stands_in_the_event(self) -> None:
        expected = moved(1, 2)
        expected.evidence.append(self.PASSED)
        expected.policy_revision = 9
        after(moved(0, 1)).when(self.asked(self.PASSED)).then(expected)

    def test_one_gate_that_does_not_hold_refuses_and_leaves_all_evidence(self) -> None:
        refused = v1.AliasMoveRefused(
            model="fraud",
            alias="champion",
            from_version=1,
            to_version=2,
            cause=REQUEST,
            evidence=[self.PASSED, self.FAILED],
            policy_revision=9,
        )
        after(moved(0, 1)).when(self.asked(self.PASSED, self.FAILED)).then(refused)
        error = refusal(refused)
        assert error is not None
        assert (error.kind, error.reason, error.detail) == (Kind.PRECONDITION, "GATE_FAILED", self.FAILED)

    def test_a_reason_is_asked_for(self) -> None:
        error = after(moved(0, 1)).when(self.asked(reason=" ")).then_rejected("REASON_REQUIRED")
        assert error.metadata == {"policy": "p"}
        command = Remove(v1.RemoveAliasRequest(model="fraud", alias="champion"), Judgement(9, ("p",)))
        after(moved(0, 1)).when(command).then_rejected("REASON_REQUIRED")

    def test_evidence_of_another_holder_does_not_count(self) -> None:
        after(moved(0, 1)).when(self.asked(self.PASSED, current=0)).then_rejected("EVIDENCE_STALE")

    def test_nothing_is_asked_of_a_move_to_where_it_is(self) -> None:
        after(moved(0, 2)).when(self.asked(self.FAILED, reason="")).then()


class TestVersions:
    def test_are_deleted_and_restored(self) -> None:
        deleted = v1.VersionDeleted(model="fraud", version=1, digest=D1)
        after().when(v1.DeleteVersionRequest(model="fraud", version=1)).then(deleted)
        gone = after(deleted)
        gone.when(v1.DeleteVersionRequest(model="fraud", version=1)).then()
        gone.when(move(1)).then_rejected("VERSION_DELETED")
        restored = v1.VersionRestored(model="fraud", version=1, digest=D1)
        gone.when(v1.RestoreVersionRequest(model="fraud", version=1)).then(restored)
        after(deleted, restored).when(move(1)).then(moved(0, 1))

    def test_that_an_alias_names_are_not_deleted(self) -> None:
        error = (
            after(moved(0, 1)).when(v1.DeleteVersionRequest(model="fraud", version=1)).then_rejected("VERSION_IN_USE")
        )
        assert error.metadata["aliases"] == "champion"

    def test_a_deleted_number_is_not_given_again(self) -> None:
        gone = after(v1.VersionDeleted(model="fraud", version=2, digest=D2))
        gone.when(Register(v1.RegisterVersionRequest(model="fraud"), D1)).then(
            v1.VersionRegistered(model="fraud", version=3, digest=D1)
        )

    def test_have_a_status_that_aliases_heed(self) -> None:
        ask = v1.SetVersionStatusRequest(model="fraud", version=1, status=v1.VERSION_STATUS_FAILED)
        failed = v1.VersionStatusChanged(
            model="fraud", version=1, from_status=v1.VERSION_STATUS_READY, to_status=v1.VERSION_STATUS_FAILED
        )
        after().when(ask).then(failed)
        after(failed).when(ask).then()
        error = after(failed).when(move(1)).then_rejected("VERSION_NOT_READY")
        assert error.metadata["status"] == "FAILED"
        after().when(v1.SetVersionStatusRequest(model="fraud", version=1)).then_rejected("INVALID_STATUS")

    def test_words_and_tags(self) -> None:
        describe = v1.SetDescriptionRequest(model="fraud", version=1, description="the first")
        described = v1.VersionDescribed(model="fraud", version=1, to_description="the first")
        after().when(describe).then(described)
        after(described).when(describe).then()
        tags = {"team": "risk", "stage": "old"}
        tagged = v1.VersionTagsChanged(
            model="fraud",
            version=1,
            changes=[v1.TagChange(key="stage", to_value="old"), v1.TagChange(key="team", to_value="risk")],
        )
        after().when(v1.ChangeTagsRequest(model="fraud", version=1, set=tags)).then(tagged)
        ask = v1.ChangeTagsRequest(model="fraud", version=1, set={"team": "ops"}, remove=["stage", "none"])
        after(tagged).when(ask).then(
            v1.VersionTagsChanged(
                model="fraud",
                version=1,
                changes=[
                    v1.TagChange(key="stage", from_value="old"),
                    v1.TagChange(key="team", from_value="risk", to_value="ops"),
                ],
            )
        )
        after(tagged).when(v1.ChangeTagsRequest(model="fraud", version=1, set={"team": "risk"})).then()
        both = v1.ChangeTagsRequest(model="fraud", set={"a": ""}, remove=["a"])
        after().when(both).then_rejected("INVALID_TAG")

    def test_have_room_for_so_many_tags_and_then_for_others(self) -> None:
        many = {f"{number:03}": "v" * 4_997 for number in range(199)}
        full = [v1.TagChange(key=key, to_value=value) for key, value in many.items()]
        tagged = after(v1.ModelTagsChanged(model="fraud", changes=full))
        room = 1_000_000 - 199 * 5_000
        tagged.when(v1.ChangeTagsRequest(model="fraud", set={"k": "v" * (room - 1)})).then(
            v1.ModelTagsChanged(model="fraud", changes=[v1.TagChange(key="k", to_value="v" * (room - 1))])
        )
        more = v1.ChangeTagsRequest(model="fraud", set={"k": "é" * (room // 2)})
        tagged.when(more).then_rejected("INVALID_TAG")
        more.remove.append("000")
        changes = [v1.TagChange(key="000", from_value=many["000"]), v1.TagChange(key="k", to_value="é" * (room // 2))]
        tagged.when(more).then(v1.ModelTagsChanged(model="fraud", changes=changes))


class TestModels:
    def test_are_deleted_and_restored(self) -> None:
        delete, restore = v1.DeleteModelRequest(model="fraud"), v1.RestoreModelRequest(model="fraud")
        after().when(delete).then(v1.ModelDeleted(model="fraud"))
        gone = after(v1.ModelDeleted(model="fraud"))
        gone.when(delete).then()
        gone.when(restore).then(v1.ModelRestored(model="fraud"))
        gone.when(move(1)).then_rejected("MODEL_DELETED")
        gone.when(Register(v1.RegisterVersionRequest(model="fraud"), D1)).then_rejected("MODEL_DELETED")
        after().when(restore).then()

    def test_with_aliases_are_not_deleted(self) -> None:
        error = after(moved(0, 1)).when(v1.DeleteModelRequest(model="fraud")).then_rejected("MODEL_IN_USE")
        assert error.metadata["aliases"] == "champion"
        after(moved(0, 1), removed(1)).when(v1.DeleteModelRequest(model="fraud")).then(v1.ModelDeleted(model="fraud"))

    def test_the_name_before_is_refused_with_the_one_now(self) -> None:
        renamed = after(v1.ModelRenamed(model="fraud", to_name="fraud-2"))
        for command in [move(1), v1.DeleteModelRequest(model="fraud"), v1.CreateModelRequest(name="fraud")]:
            error = renamed.when(command).then_rejected("MODEL_RENAMED")
            assert error.metadata["renamed_to"] == "fraud-2"
        renamed.when(v1.CreateModelRequest(name="fraud-2")).then_rejected("MODEL_EXISTS")


class TestSchedules:
    ID = "0" * 32
    AT = Timestamp(seconds=100)
    SET = v1.AliasMoveScheduled(
        model="fraud", alias="champion", schedule_id=ID, to_version=2, to_digest=D2, at=AT, expected_revision=4
    )

    def test_a_move_to_come(self) -> None:
        ask = v1.ScheduleMoveRequest(model="fraud", alias="champion", version=2, at=self.AT, expected_revision=4)
        after(moved(0, 1)).when(ScheduleMove(ask, self.ID)).then(self.SET)
        ask.version = 3
        after(moved(0, 1)).when(ScheduleMove(ask, self.ID)).then_rejected("VERSION_NOT_FOUND")
        ask = v1.ScheduleMoveRequest(model="fraud", alias="champion", version=2)
        after(moved(0, 1)).when(ScheduleMove(ask, self.ID)).then_rejected("INVALID_TIME")

    def test_is_made_once(self) -> None:
        made = moved(1, 2)
        made.cause, made.schedule_id = v1.ALIAS_CAUSE_SCHEDULE, self.ID
        after(moved(0, 1), self.SET).when(Fire("fraud", self.ID)).then(made)
        after(moved(0, 1), self.SET, made).when(Fire("fraud", self.ID)).then()

    def test_is_called_off(self) -> None:
        cancelled = v1.AliasScheduleCancelled(model="fraud", alias="champion", schedule_id=self.ID)
        ask = v1.CancelScheduleRequest(model="fraud", schedule_id=self.ID)
        waiting = after(moved(0, 1), self.SET)
        waiting.when(ask).then(cancelled)
        gone = after(moved(0, 1), self.SET, cancelled)
        gone.when(ask).then_rejected("SCHEDULE_NOT_FOUND")
        gone.when(Fire("fraud", self.ID)).then()

    @pytest.mark.parametrize(
        ("between", "reason"),
        [
            ([moved(1, 2)], "WRONG_REVISION"),
            ([v1.VersionDeleted(model="fraud", version=2, digest=D2)], "VERSION_DELETED"),
        ],
    )
    def test_that_cannot_be_made_leaves_an_event(self, between: Sequence[Message], reason: str) -> None:
        [fact] = after(moved(0, 1), self.SET, *between).when(Fire("fraud", self.ID)).events
        assert isinstance(fact, v1.AliasScheduleRefused)
        assert (fact.schedule_id, fact.refusal, fact.to_version) == (self.ID, reason, 2)

    def test_that_a_gate_refuses_leaves_the_evidence(self) -> None:
        judgement = Judgement(9, (), (TestPolicies.FAILED,), candidate=2, current=1, champion=1)
        [fact] = after(moved(0, 1), self.SET).when(Fire("fraud", self.ID, judgement)).events
        assert isinstance(fact, v1.AliasScheduleRefused)
        assert (fact.refusal, list(fact.evidence)) == ("GATE_FAILED", [TestPolicies.FAILED])

    def test_to_where_it_is_by_then(self) -> None:
        ever = v1.AliasMoveScheduled(model="fraud", alias="champion", schedule_id=self.ID, to_version=2, to_digest=D2)
        [fact] = after(moved(0, 2), ever).when(Fire("fraud", self.ID)).events
        assert isinstance(fact, v1.AliasScheduleRefused)
        assert fact.refusal == "ALREADY_THERE"


@pytest.mark.parametrize("expected", [2**63, 2**64 - 1])
def test_no_schedule_expects_what_no_revision_is(expected: int) -> None:
    request = v1.ScheduleMoveRequest(
        model="fraud", alias="champion", version=1, at=Timestamp(seconds=1), expected_revision=expected
    )
    after().when(ScheduleMove(request, "s")).then_rejected("INVALID_REVISION")
    request.expected_revision = 2**63 - 1
    assert after().when(ScheduleMove(request, "s")).events


class TestExpiry:
    def until(self, seconds: int, before: int = 0) -> v1.AliasMoved:
        fact = moved(before, 1)
        fact.expires_at.seconds = seconds
        return fact

    def test_an_assignment_ends(self) -> None:
        gone = removed(1, v1.ALIAS_CAUSE_EXPIRY)
        held = after(self.until(100))
        held.when(Expire("fraud", "champion", 4)).then(gone)
        after(self.until(100), gone).when(Expire("fraud", "champion", 4)).then()

    def test_but_not_another_one(self) -> None:
        after(self.until(100), moved(1, 2)).when(Expire("fraud", "champion", 4)).then()
        after(moved(0, 1)).when(Expire("fraud", "champion", 4)).then()

    def test_its_time_can_be_changed(self) -> None:
        ask = v1.MoveAliasRequest(model="fraud", alias="champion", version=1, expires_at=Timestamp(seconds=200))
        after(self.until(100)).when(Move(ask)).then(self.until(200, before=1))
        after(self.until(200)).when(Move(ask)).then()

    def test_it_can_be_lifted(self) -> None:
        after(self.until(200)).when(move(1)).then(moved(1, 1))
        after(self.until(200), moved(1, 1)).when(move(1)).then()
        after(self.until(200), moved(1, 1)).when(Expire("fraud", "champion", 4)).then()


def test_only_commands_are_decided() -> None:
    with pytest.raises(TypeError):
        decide(v1.GetModelRequest(name="fraud"), State())


commands = st.one_of(
    st.builds(v1.CreateModelRequest, name=st.sampled_from(["fraud", "", "a/b"])),
    st.builds(v1.SetRegistrationGateRequest, model=st.just("fraud"), expression=st.sampled_from(["", "true"])),
    st.builds(
        Register,
        st.builds(v1.RegisterVersionRequest, model=st.just("fraud")),
        st.sampled_from([D1, D2, D3, "x"]),
        st.sampled_from([None, v1.GateEvidence(expression="true", passed=True), v1.GateEvidence(expression="true")]),
    ),
    st.builds(
        move,
        st.integers(0, 4),
        st.sampled_from(["champion", "candidate", "v1"]),
        st.one_of(st.none(), st.integers(0, 12)),
    ),
    st.builds(remove, st.one_of(st.none(), st.integers(0, 12))),
    st.builds(v1.DeleteVersionRequest, model=st.just("fraud"), version=st.integers(0, 3)),
    st.builds(v1.RestoreVersionRequest, model=st.just("fraud"), version=st.integers(0, 3)),
    st.builds(v1.DeleteModelRequest, model=st.just("fraud")),
    st.builds(v1.RestoreModelRequest, model=st.just("fraud")),
)


@for_all(st.lists(commands, max_size=25))
def test_whatever_is_asked_the_stream_stays_sound(asked: list[object]) -> None:
    """Deciding is pure, versions are numbered densely and never anew, and no alias names one that there is not."""
    state, position = State(), 0
    numbers: list[int] = []
    held: dict[str, int] = {}
    for command in asked:
        for fact in Given(DECIDER, state).when(command).events:
            position += 1
            state = evolve(state, RecordedEvent("model/fraud", position, position, "", fact, Metadata("a"), position))
            if isinstance(fact, v1.VersionRegistered):
                numbers.append(fact.version)
            if isinstance(fact, v1.AliasMoved):
                assert fact.to_version in numbers
                assert fact.from_version == held.get(fact.alias, 0) != fact.to_version
                held[fact.alias] = fact.to_version
            if isinstance(fact, v1.AliasRemoved):
                assert fact.from_version == held.pop(fact.alias)
    assert numbers == list(range(1, len(numbers) + 1))
    assert {name: one.version for name, one in state.aliases.items() if one.version} == held
