"""The rules of models and versions: which events each command makes, and why it is rejected."""

from __future__ import annotations

from itertools import count

import pytest

from eventstore.errors import Conflict, Kind, Rejected
from eventstore.testing import given
from rollforward import v1
from services.registry.deciders.models import DECIDER, Register, refusal
from tests.unit.registry.streams import CREATED, D1, D2, after, move, moved, removed


class TestCreateModel:
    def test_model_is_created(self) -> None:
        command = v1.CreateModelRequest(name="fraud", description="Finds fraud.\nIn cards.\n", tags={"team": "risk"})
        created = v1.ModelCreated(model="fraud", description="Finds fraud.\nIn cards.\n", tags={"team": "risk"})
        given(DECIDER).when(command).then(created)

    def test_model_is_created_with_gate(self) -> None:
        gate = v1.RegistrationGateSet(model="fraud", to_expression="true")
        given(DECIDER).when(v1.CreateModelRequest(name="fraud", registration_gate="true")).then(CREATED, gate)

    def test_existing_model_is_rejected(self) -> None:
        refusal = given(DECIDER, CREATED).when(v1.CreateModelRequest(name="fraud")).then_rejected("MODEL_EXISTS")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.EXISTS
        assert refusal.metadata == {"model": "fraud"}

    def test_name_taken_by_renamed_model_is_rejected(self) -> None:
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
            (v1.CreateModelRequest(name="a", description="x" * 20_001), "INVALID_DESCRIPTION"),
            (v1.CreateModelRequest(name="a", tags={"": "x"}), "INVALID_TAG"),
            (v1.CreateModelRequest(name="a", tags={"k" * 251: "x"}), "INVALID_TAG"),
            (v1.CreateModelRequest(name="a", tags={"k": "x" * 8001}), "INVALID_TAG"),
        ],
        ids=count(),
    )
    def test_invalid_field_is_rejected(self, command: v1.CreateModelRequest, reason: str) -> None:
        refusal = given(DECIDER).when(command).then_rejected(reason)
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.INVALID

    def test_unicode_description_is_kept(self) -> None:
        text = "Für Zoë 👩‍💻\tmore\r\n"
        command = v1.CreateModelRequest(name="fraud", description=text, tags={"k": text})
        given(DECIDER).when(command).then(v1.ModelCreated(model="fraud", description=text, tags={"k": text}))


class TestGate:
    SET = v1.RegistrationGateSet(model="fraud", to_expression="a")

    def test_gate_is_set_changed_and_lifted(self) -> None:
        given(DECIDER, CREATED).when(v1.SetRegistrationGateRequest(model="fraud", expression="a")).then(self.SET)
        changed = v1.RegistrationGateSet(model="fraud", from_expression="a", to_expression="b")
        gated = given(DECIDER, CREATED, self.SET)
        gated.when(v1.SetRegistrationGateRequest(model="fraud", expression="b")).then(changed)
        lifted = v1.RegistrationGateSet(model="fraud", from_expression="a")
        gated.when(v1.SetRegistrationGateRequest(model="fraud")).then(lifted)

    def test_same_gate_changes_nothing(self) -> None:
        given(DECIDER, CREATED, self.SET).when(v1.SetRegistrationGateRequest(model="fraud", expression="a")).then()

    def test_gate_of_unknown_model_is_rejected(self) -> None:
        given(DECIDER).when(v1.SetRegistrationGateRequest(model="fraud")).then_rejected("MODEL_NOT_FOUND")


class TestRegister:
    def command(self, evidence: v1.GateEvidence | None = None, **fields: str) -> Register:
        return Register(v1.RegisterVersionRequest(model="fraud", **fields), D1, evidence)  # type: ignore[arg-type]

    def test_first_version_creates_model(self) -> None:
        given(DECIDER).when(self.command(run_id="r", artifact_path="model")).then(
            CREATED,
            v1.VersionRegistered(model="fraud", version=1, digest=D1, run_id="r", artifact_path="model"),
        )

    def test_version_numbers_increase(self) -> None:
        after().when(self.command()).then(v1.VersionRegistered(model="fraud", version=3, digest=D1))

    def test_passed_gate_records_evidence(self) -> None:
        evidence = v1.GateEvidence(expression="a", passed=True, tracking_position=7)
        registered = v1.VersionRegistered(model="fraud", version=1, digest=D1, evidence=evidence)
        given(DECIDER, CREATED, TestGate.SET).when(self.command(evidence)).then(registered)

    def test_failed_gate_rejects_version_and_records_evidence(self) -> None:
        evidence = v1.GateEvidence(expression="a", run=v1.GateRun(run_id="r", metrics={"acc": 0.5}), detail="False")
        refused = v1.VersionRefused(model="fraud", digest=D1, evidence=[evidence])
        given(DECIDER, CREATED, TestGate.SET).when(self.command(evidence)).then(refused)
        error = refusal(refused)
        assert error is not None
        assert (error.kind, error.reason, error.detail) == (Kind.PRECONDITION, "GATE_FAILED", evidence)

    @pytest.mark.parametrize("evidence", [None, v1.GateEvidence(expression="b", passed=True)])
    def test_evidence_of_other_gate_is_rejected(self, evidence: v1.GateEvidence | None) -> None:
        given(DECIDER, CREATED, TestGate.SET).when(self.command(evidence)).then_rejected("GATE_CHANGED")

    def test_evidence_of_lifted_gate_is_rejected(self) -> None:
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
    def test_invalid_field_is_rejected(self, command: Register, reason: str) -> None:
        given(DECIDER).when(command).then_rejected(reason)


class TestVersions:
    def test_version_is_deleted_and_restored(self) -> None:
        deleted = v1.VersionDeleted(model="fraud", version=1, digest=D1)
        after().when(v1.DeleteVersionRequest(model="fraud", version=1)).then(deleted)
        gone = after(deleted)
        gone.when(v1.DeleteVersionRequest(model="fraud", version=1)).then()
        gone.when(move(1)).then_rejected("VERSION_DELETED")
        restored = v1.VersionRestored(model="fraud", version=1, digest=D1)
        gone.when(v1.RestoreVersionRequest(model="fraud", version=1)).then(restored)
        after(deleted, restored).when(move(1)).then(moved(0, 1))

    def test_version_with_alias_is_not_deleted(self) -> None:
        error = (
            after(moved(0, 1)).when(v1.DeleteVersionRequest(model="fraud", version=1)).then_rejected("VERSION_IN_USE")
        )
        assert error.metadata["aliases"] == "champion"

    def test_number_of_deleted_version_is_not_reused(self) -> None:
        gone = after(v1.VersionDeleted(model="fraud", version=2, digest=D2))
        gone.when(Register(v1.RegisterVersionRequest(model="fraud"), D1)).then(
            v1.VersionRegistered(model="fraud", version=3, digest=D1)
        )

    def test_alias_does_not_move_to_version_that_is_not_ready(self) -> None:
        request = v1.SetVersionStatusRequest(model="fraud", version=1, status=v1.VERSION_STATUS_FAILED)
        failed = v1.VersionStatusChanged(
            model="fraud", version=1, from_status=v1.VERSION_STATUS_READY, to_status=v1.VERSION_STATUS_FAILED
        )
        after().when(request).then(failed)
        after(failed).when(request).then()
        error = after(failed).when(move(1)).then_rejected("VERSION_NOT_READY")
        assert error.metadata["status"] == "FAILED"
        after().when(v1.SetVersionStatusRequest(model="fraud", version=1)).then_rejected("INVALID_STATUS")

    def test_description_and_tags_change(self) -> None:
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
        request = v1.ChangeTagsRequest(model="fraud", version=1, set={"team": "ops"}, remove=["stage", "none"])
        after(tagged).when(request).then(
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

    def test_removed_tags_free_size_budget(self) -> None:
        many = {f"{number:03}": "v" * 4_997 for number in range(199)}
        full = [v1.TagChange(key=key, to_value=value) for key, value in many.items()]
        tagged = after(v1.ModelTagsChanged(model="fraud", changes=full))
        budget = 1_000_000 - 199 * 5_000
        tagged.when(v1.ChangeTagsRequest(model="fraud", set={"k": "v" * (budget - 1)})).then(
            v1.ModelTagsChanged(model="fraud", changes=[v1.TagChange(key="k", to_value="v" * (budget - 1))])
        )
        more = v1.ChangeTagsRequest(model="fraud", set={"k": "é" * (budget // 2)})
        tagged.when(more).then_rejected("INVALID_TAG")
        more.remove.append("000")
        changes = [v1.TagChange(key="000", from_value=many["000"]), v1.TagChange(key="k", to_value="é" * (budget // 2))]
        tagged.when(more).then(v1.ModelTagsChanged(model="fraud", changes=changes))


class TestModels:
    def test_model_is_deleted_and_restored(self) -> None:
        delete, restore = v1.DeleteModelRequest(model="fraud"), v1.RestoreModelRequest(model="fraud")
        after().when(delete).then(v1.ModelDeleted(model="fraud"))
        gone = after(v1.ModelDeleted(model="fraud"))
        gone.when(delete).then()
        gone.when(restore).then(v1.ModelRestored(model="fraud"))
        gone.when(move(1)).then_rejected("MODEL_DELETED")
        gone.when(Register(v1.RegisterVersionRequest(model="fraud"), D1)).then_rejected("MODEL_DELETED")
        after().when(restore).then()

    def test_model_with_aliases_is_not_deleted(self) -> None:
        error = after(moved(0, 1)).when(v1.DeleteModelRequest(model="fraud")).then_rejected("MODEL_IN_USE")
        assert error.metadata["aliases"] == "champion"
        after(moved(0, 1), removed(1)).when(v1.DeleteModelRequest(model="fraud")).then(v1.ModelDeleted(model="fraud"))

    def test_former_name_is_rejected_with_current_name(self) -> None:
        renamed = after(v1.ModelRenamed(model="fraud", to_name="fraud-2"))
        for command in [move(1), v1.DeleteModelRequest(model="fraud"), v1.CreateModelRequest(name="fraud")]:
            error = renamed.when(command).then_rejected("MODEL_RENAMED")
            assert error.metadata["renamed_to"] == "fraud-2"
        renamed.when(v1.CreateModelRequest(name="fraud-2")).then_rejected("MODEL_EXISTS")
