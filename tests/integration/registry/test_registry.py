"""The registry service on a real system: the response of every call, and its rejections."""

from __future__ import annotations

import time

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rollforward import v1
from rollforward.errors import (
    InvalidRequest,
    NotFound,
    PreconditionFailed,
)
from services.series.columns import Points, pack
from tests.integration.up import ACTOR, SECONDS, Up, new_id

NO_DIGEST = f"sha256:{'0' * 64}"


def resolve(system: Up, model: str, at: v1.AsOf | None = None, alias: str = "champion") -> v1.ResolveAliasResponse:
    """Resolve an alias."""
    request = v1.ResolveAliasRequest(model=model, alias=alias, at=at)
    return system.registry.ResolveAlias(request, timeout=SECONDS)


def roll_back(system: Up, model: str, to: v1.AsOf | None = None) -> v1.RollbackResponse:
    """Roll the champion back."""
    request = v1.RollbackRequest(models=model, aliases="champion", as_of=to, reason="worse")
    return system.registry.Rollback(request, metadata=ACTOR, timeout=SECONDS)


def restored(response: v1.RollbackResponse) -> tuple[int, int]:
    """Return the restored version and revision of a rollback of one alias."""
    (change,) = response.changes
    return change.to_version, change.restored_revision


def measured_run(system: Up, **metrics: float) -> str:
    """Start a run with these metrics and an artifact."""
    run_id = system.new_run()
    once = np.array([1])
    series = [pack(key, Points(once, once, np.array([value]))) for key, value in metrics.items()]
    system.tracking.LogBatch(v1.LogBatchRequest(run_id=run_id, params={"depth": "3"}, series=series), timeout=SECONDS)
    artifact = v1.LogArtifactRequest(run_id=run_id, path="model", digest=system.upload())
    system.tracking.LogArtifact(artifact, timeout=SECONDS)
    return run_id


def headers_at_head(system: Up, log: str = "tracking") -> tuple[tuple[str, str], ...]:
    """Return the headers of a read that waits for the head of a log."""
    return (("rollforward-min-position", f"{log}={system.heads()[log]}"),)


class TestModels:
    def test_model_is_created_read_and_listed(self, system: Up) -> None:
        name = f"a {new_id()}"
        request = v1.CreateModelRequest(name=name, description="Finds fraud.", tags={"team": "risk"}, reason="new")
        created = system.registry.CreateModel(request, metadata=ACTOR, timeout=SECONDS)
        assert created.position == created.model.revision == system.heads()["registry"]
        assert (created.model.actor, created.model.description, created.model.latest_version) == (
            "Zoë", "Finds fraud.", 0,
        )  # fmt: skip
        assert dict(created.model.tags) == {"team": "risk"}
        assert abs(created.model.created_at.seconds - time.time()) < 60
        found = system.registry.GetModel(v1.GetModelRequest(name=name), timeout=SECONDS)
        assert found.model == created.model
        names = [model.name for model in self.list_all(system, 2)]
        assert name in names
        assert names == sorted(set(names))

    def list_all(self, system: Up, page_size: int) -> list[v1.Model]:
        models: list[v1.Model] = []
        token = ""
        while True:
            request = v1.ListModelsRequest(page_size=page_size, page_token=token)
            page = system.registry.ListModels(request, timeout=SECONDS)
            assert len(page.models) <= page_size
            models += page.models
            token = page.next_page_token
            if not token:
                return models

    def test_gate_is_set_and_lifted(self, system: Up, model: str) -> None:
        for expression in ("run.metrics.acc > 0.5", ""):
            request = v1.SetRegistrationGateRequest(model=model, expression=expression)
            done = system.registry.SetRegistrationGate(request, timeout=SECONDS)
            assert done.position == system.heads()["registry"]
            found = system.registry.GetModel(v1.GetModelRequest(name=model), timeout=SECONDS).model
            assert (found.registration_gate, found.revision) == (expression, done.position)


class TestVersions:
    def test_version_is_registered_from_files(self, system: Up) -> None:
        name, digest = f"model-{new_id()}", system.upload()
        request = v1.RegisterVersionRequest(model=name, digest=digest, description="first", tags={"a": "b"})
        first = system.registry.RegisterVersion(request, metadata=ACTOR, timeout=SECONDS)
        assert (first.version.version, first.version.digest, first.version.actor) == (1, digest, "Zoë")
        assert (first.version.description, dict(first.version.tags)) == ("first", {"a": "b"})
        assert first.position == first.version.revision == system.heads()["registry"]
        second = system.registry.RegisterVersion(request, timeout=SECONDS)
        assert second.version.version == 2
        system.move(name, 1)
        listed = system.registry.ListVersions(v1.ListVersionsRequest(model=name), timeout=SECONDS).versions
        assert [version.version for version in listed] == [2, 1]
        assert [list(version.aliases) for version in listed] == [[], ["champion"]]
        found = system.registry.GetVersion(v1.GetVersionRequest(model=name, version=1), timeout=SECONDS)
        assert found.version == listed[1]

    def test_version_is_registered_from_run_through_gate(self, system: Up) -> None:
        name = f"model-{new_id()}"
        request = v1.CreateModelRequest(name=name, registration_gate="run.metrics.acc > 0.9")
        system.registry.CreateModel(request, timeout=SECONDS)
        run_id = measured_run(system, acc=0.95)
        done = system.registry.RegisterVersion(
            v1.RegisterVersionRequest(model=name, run_id=run_id, artifact_path="model"),
            metadata=headers_at_head(system),
            timeout=SECONDS,
        ).version
        assert (done.version, done.run_id, done.artifact_path) == (1, run_id, "model")
        assert done.evidence.passed
        assert done.evidence.run == v1.GateRun(run_id=run_id, metrics={"acc": 0.95})
        assert 0 < done.evidence.tracking_position <= system.heads()["tracking"]

    @pytest.mark.parametrize("accuracy", [0.5, float("nan"), None])
    def test_gate_refuses_version_with_evidence(self, system: Up, accuracy: float | None) -> None:
        name = f"model-{new_id()}"
        request = v1.CreateModelRequest(name=name, registration_gate="!(run.metrics.acc <= 0.9)")
        system.registry.CreateModel(request, timeout=SECONDS)
        run_id = measured_run(system) if accuracy is None else measured_run(system, acc=accuracy)
        registration = v1.RegisterVersionRequest(model=name, run_id=run_id, artifact_path="model")
        error = system.refused(system.registry.RegisterVersion, registration, headers_at_head(system), recorded=1)
        assert isinstance(error, PreconditionFailed)
        assert error.reason == "GATE_FAILED"
        assert error.metadata["run_id"] == run_id
        assert error.evidence is not None
        assert not error.evidence.passed
        assert ("acc" in error.evidence.run.metrics) == (accuracy is not None)

    def test_gate_refuses_run_with_large_evidence(self, system: Up) -> None:
        name = f"model-{new_id()}"
        gate = "run.metrics.acc > 0.9 && '" + "é" * 1500 + "' != ''"
        system.registry.CreateModel(v1.CreateModelRequest(name=name, registration_gate=gate), timeout=SECONDS)
        run_id = measured_run(system, acc=0.1)
        batch = v1.LogBatchRequest(run_id=run_id, params={f"param-{number}": "é" * 300 for number in range(100)})
        system.tracking.LogBatch(batch, timeout=SECONDS)
        registration = v1.RegisterVersionRequest(model=name, run_id=run_id, artifact_path="model")
        error = system.refused(system.registry.RegisterVersion, registration, headers_at_head(system), recorded=1)
        assert isinstance(error, PreconditionFailed)
        assert error.reason == "GATE_FAILED"

    def test_gate_refuses_version_without_run(self, system: Up, model: str) -> None:
        gate = v1.SetRegistrationGateRequest(model=model, expression="true")
        system.registry.SetRegistrationGate(gate, timeout=SECONDS)
        registration = v1.RegisterVersionRequest(model=model, digest=system.upload())
        assert system.refused(system.registry.RegisterVersion, registration, recorded=1).reason == "GATE_FAILED"

    def test_response_equals_later_read(self, system: Up, model: str) -> None:
        def read(number: int) -> v1.Version:
            request = v1.GetVersionRequest(model=model, version=number)
            return system.registry.GetVersion(
                request, metadata=headers_at_head(system, "registry"), timeout=SECONDS
            ).version

        gate = v1.SetRegistrationGateRequest(model=model, expression="run.metrics.accuracy > 0.5")
        system.registry.SetRegistrationGate(gate, timeout=SECONDS)
        request = v1.RegisterVersionRequest(
            model=model,
            run_id=measured_run(system, accuracy=0.9),
            artifact_path="model",
            description="The best.",
            tags={"team": "risk"},
            request_id=new_id(),
        )
        headers = (*ACTOR, *headers_at_head(system))
        made = system.registry.RegisterVersion(request, metadata=headers, timeout=SECONDS)
        assert made.version.evidence.passed
        assert made.version == read(made.version.version)
        copy = v1.CopyVersionRequest(model=model, version=made.version.version, to_model=f"copy-{new_id()}")
        copied = system.registry.CopyVersion(copy, metadata=headers, timeout=SECONDS).version
        again = v1.GetVersionRequest(model=copied.model, version=copied.version)
        assert (
            copied
            == system.registry.GetVersion(again, metadata=headers_at_head(system, "registry"), timeout=SECONDS).version
        )
        change = v1.ChangeTagsRequest(model=model, version=made.version.version, set={"team": "fraud"})
        system.registry.ChangeTags(change, timeout=SECONDS)
        headers = (*ACTOR, *headers_at_head(system, "registry"))
        repeated = system.registry.RegisterVersion(request, metadata=headers, timeout=SECONDS)
        assert repeated.position == made.position
        assert repeated.version.tags == {"team": "fraud"}
        assert repeated.version == read(made.version.version)

    def test_digest_must_match_artifact_of_run(self, system: Up) -> None:
        run_id = measured_run(system)
        registration = v1.RegisterVersionRequest(
            model=new_id(), run_id=run_id, artifact_path="model", digest=system.upload(b"other")
        )
        error = system.refused(system.registry.RegisterVersion, registration, headers_at_head(system))
        assert (type(error), error.reason) == (InvalidRequest, "INVALID_DIGEST")
        registration = v1.RegisterVersionRequest(model=new_id(), run_id=run_id, artifact_path="elsewhere")
        error = system.refused(system.registry.RegisterVersion, registration, headers_at_head(system))
        assert (type(error), error.reason) == (NotFound, "ARTIFACT_NOT_FOUND")


class TestAliases:
    def test_alias_is_moved_resolved_and_removed(self, system: Up, model: str) -> None:
        moved = system.move(model, 1)
        assert moved.moved
        assert moved.position == moved.alias.revision == system.heads()["registry"]
        alias = moved.alias
        assert (alias.model, alias.alias, alias.version, alias.actor, alias.reason, alias.cause) == (
            model, "champion", 1, "Zoë", "because", v1.ALIAS_CAUSE_REQUEST,
        )  # fmt: skip
        now = resolve(system, model)
        assert (now.alias, now.position) == (alias, moved.position)
        assert now.time == alias.moved_at
        again = system.move(model, 1)
        assert (again.moved, again.alias, again.position) == (False, alias, moved.position)
        gone = v1.RemoveAliasRequest(model=model, alias="champion", expected_revision=alias.revision)
        assert system.registry.RemoveAlias(gone, timeout=SECONDS).position == moved.position + 1
        request_of_alias = v1.ResolveAliasRequest(model=model, alias="champion")
        assert system.refused(system.registry.ResolveAlias, request_of_alias).reason == "ALIAS_NOT_FOUND"

    def test_alias_is_resolved_as_of_position_and_time(self, system: Up, model: str) -> None:
        moves = [system.move(model, version).alias for version in (1, 2, 1)]
        for alias in moves:
            by_position = resolve(system, model, v1.AsOf(position=alias.revision))
            by_time = resolve(system, model, v1.AsOf(time=alias.moved_at))
            assert by_position.alias == by_time.alias == alias
            assert by_position.position == by_time.position == alias.revision
        before = v1.AsOf(position=moves[0].revision - 1)
        for at in (before, v1.AsOf(position=0), v1.AsOf(time=Timestamp(seconds=1))):
            request_of_alias = v1.ResolveAliasRequest(model=model, alias="champion", at=at)
            assert system.refused(system.registry.ResolveAlias, request_of_alias).reason == "ALIAS_NOT_FOUND"
        assert resolve(system, model, v1.AsOf(time=Timestamp(seconds=2**33))).alias == moves[2]

    def test_alias_has_history(self, system: Up, model: str) -> None:
        request_id = new_id()
        revisions = [system.move(model, version).alias.revision for version in (1, 2)]
        request = v1.RollbackRequest(models=model, aliases="champion", reason="worse", request_id=request_id)
        revisions.append(system.registry.Rollback(request, metadata=ACTOR, timeout=SECONDS).revision)
        system.move(model, 2, "candidate")
        removal = v1.RemoveAliasRequest(model=model, alias="champion")
        revisions.append(system.registry.RemoveAlias(removal, timeout=SECONDS).position)
        changes: list[v1.AliasChange] = []
        token = ""
        for _ in range(2):
            request_of_alias = v1.ListAliasHistoryRequest(model=model, alias="champion", page_size=2, page_token=token)
            page = system.registry.ListAliasHistory(request_of_alias, timeout=SECONDS)
            changes += page.changes
            token = page.next_page_token
        assert token == ""
        assert [change.revision for change in changes] == revisions[::-1]
        assert [(change.from_version, change.to_version) for change in changes] == [(1, 0), (2, 1), (1, 2), (0, 1)]
        rollback = changes[1]
        assert (rollback.cause, rollback.restored_revision) == (v1.ALIAS_CAUSE_ROLLBACK, revisions[0])
        assert (rollback.actor, rollback.reason, rollback.request_id) == ("Zoë", "worse", request_id)
        assert len({change.event_id for change in changes}) == 4
        all_aliases = v1.ListAliasHistoryRequest(model=model)
        assert len(system.registry.ListAliasHistory(all_aliases, timeout=SECONDS).changes) == 5

    def test_alias_is_rolled_back(self, system: Up, model: str) -> None:
        first, second = (system.move(model, version).alias for version in (1, 2))
        assert restored(roll_back(system, model)) == (1, first.revision)
        assert resolve(system, model).alias.cause == v1.ALIAS_CAUSE_ROLLBACK
        assert restored(roll_back(system, model)) == (2, second.revision)
        to_time = roll_back(system, model, v1.AsOf(time=first.moved_at))
        assert restored(to_time) == (1, first.revision)
        stays = roll_back(system, model, v1.AsOf(position=first.revision))
        assert (list(stays.changes), stays.revision, system.heads()["registry"]) == ([], 0, to_time.revision)
        removed = roll_back(system, model, v1.AsOf(position=first.revision - 1))
        assert restored(removed) == (0, 0)
        assert removed.revision == system.heads()["registry"]
        assert restored(roll_back(system, model)) == (1, to_time.revision)
