"""The rules of a model's stream, one by one: what each command makes happen, and why it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.errors import Conflict, Kind, Rejected
from eventstore.event import Metadata, RecordedEvent
from eventstore.testing import Given, given
from rollforward import v1
from services.registry.decider import DECIDER, Assignment, Command, Register, Rollback, State, decide, evolve

CREATED = v1.ModelCreated(model="fraud")
D1, D2, D3 = (f"sha256:{digit * 64}" for digit in "123")
REQUEST, ROLLBACK = v1.ALIAS_CAUSE_REQUEST, v1.ALIAS_CAUSE_ROLLBACK
TWO_VERSIONS = (
    CREATED,
    v1.VersionRegistered(model="fraud", version=1, digest=D1),
    v1.VersionRegistered(model="fraud", version=2, digest=D2),
)


def moved(before: int, after: int, alias: str = "champion", restores: int = 0) -> v1.AliasMoved:
    """The champion moved; a rollback when it restores a revision."""
    return v1.AliasMoved(
        model="fraud",
        alias=alias,
        from_version=before,
        to_version=after,
        from_digest={0: "", 1: D1, 2: D2}[before],
        to_digest={1: D1, 2: D2}[after],
        cause=ROLLBACK if restores else REQUEST,
        restored_revision=restores,
    )


def removed(before: int, cause: v1.AliasCause.ValueType = REQUEST) -> v1.AliasRemoved:
    """The champion was removed."""
    return v1.AliasRemoved(
        model="fraud", alias="champion", from_version=before, from_digest={1: D1, 2: D2}[before], cause=cause
    )


def after(*events: Message) -> Given[State]:
    """Two versions at positions 2 and 3, then these events, from position 4 on."""
    return given(DECIDER, *TWO_VERSIONS, *events)


def move(version: int, alias: str = "champion", expected: int | None = None) -> v1.MoveAliasRequest:
    """Asks for a move."""
    return v1.MoveAliasRequest(model="fraud", alias=alias, version=version, expected_revision=expected)


def remove(expected: int | None = None, alias: str = "champion") -> v1.RemoveAliasRequest:
    """Asks for a removal."""
    return v1.RemoveAliasRequest(model="fraud", alias=alias, expected_revision=expected)


def roll_back(past: Assignment | None = None, expected: int | None = None) -> Rollback:
    """Asks for a rollback."""
    return Rollback(v1.RollbackAliasRequest(model="fraud", alias="champion", expected_revision=expected), past)


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
        refusal = given(DECIDER, CREATED, TestGate.SET).when(self.command(evidence)).then_rejected("GATE_FAILED")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.PRECONDITION
        assert refusal.detail == evidence

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


class TestRollback:
    def test_to_the_previous_holder(self) -> None:
        after(moved(0, 1), moved(1, 2)).when(roll_back()).then(moved(2, 1, restores=4))

    def test_of_a_rollback_goes_forward_again(self) -> None:
        rolled_back = after(moved(0, 1), moved(1, 2), moved(2, 1, restores=4))
        rolled_back.when(roll_back()).then(moved(1, 2, restores=5))

    def test_of_a_removed_alias_sets_it_again(self) -> None:
        after(moved(0, 1), removed(1)).when(roll_back()).then(moved(0, 1, restores=4))

    def test_goes_past_a_removal_to_the_holder_before_it(self) -> None:
        after(moved(0, 1), removed(1), moved(0, 2)).when(roll_back()).then(moved(2, 1, restores=4))

    def test_to_a_point_in_the_past(self) -> None:
        past = after(moved(0, 1)).state.alias("champion")
        after(moved(0, 1), moved(1, 2), removed(2)).when(roll_back(past)).then(moved(0, 1, restores=4))

    def test_to_before_the_alias_existed_removes_it(self) -> None:
        never = after().state.alias("champion")
        after(moved(0, 1)).when(roll_back(never)).then(removed(1, ROLLBACK))

    def test_to_a_time_when_it_was_removed_removes_it(self) -> None:
        gone = after(moved(0, 1), removed(1)).state.alias("champion")
        after(moved(0, 1), removed(1), moved(0, 2)).when(roll_back(gone)).then(removed(2, ROLLBACK))

    def test_to_where_it_is_nothing_happens(self) -> None:
        now = after(moved(0, 1)).state.alias("champion")
        after(moved(0, 1)).when(roll_back(now)).then()
        after(moved(0, 1), removed(1)).when(roll_back(Assignment())).then()

    @pytest.mark.parametrize("events", [[moved(0, 1)], [moved(0, 1), removed(1), moved(0, 1)]])
    def test_without_another_version_in_its_past(self, events: Sequence[Message]) -> None:
        refusal = after(*events).when(roll_back()).then_rejected("NOTHING_TO_RESTORE")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.PRECONDITION

    def test_of_an_alias_that_was_never_set(self) -> None:
        after().when(roll_back()).then_rejected("ALIAS_NOT_FOUND")
        after().when(roll_back(Assignment(1, 4))).then_rejected("ALIAS_NOT_FOUND")

    def test_of_an_unknown_model(self) -> None:
        given(DECIDER).when(roll_back()).then_rejected("MODEL_NOT_FOUND")

    def test_of_what_reads_like_a_version(self) -> None:
        after().when(Rollback(v1.RollbackAliasRequest(model="fraud", alias="7"))).then_rejected("INVALID_ALIAS")

    def test_at_the_revision_that_was_seen(self) -> None:
        both = after(moved(0, 1), moved(1, 2))
        both.when(roll_back(expected=5)).then(moved(2, 1, restores=4))
        both.when(roll_back(expected=4)).then_rejected("WRONG_REVISION")


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
    st.builds(roll_back, st.sampled_from([None, Assignment()]), st.one_of(st.none(), st.integers(0, 12))),
)


@for_all(st.lists(commands, max_size=25))
def test_whatever_is_asked_the_stream_stays_sound(asked: list[Command]) -> None:
    """Deciding is pure, versions are numbered densely and never anew, and no alias names one that there is not."""
    state, position = State(), 0
    numbers: list[int] = []
    held: dict[str, int] = {}
    for command in asked:
        for fact in Given(DECIDER, state).when(command).events:
            position += 1
            state = evolve(state, RecordedEvent("model/fraud", position, position, "", fact, Metadata("a")))
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
