"""Logged models on a real system: from creation to deletion, their labels, and rejections."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from google.protobuf.message import Message

from rollforward import v1
from rollforward.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed, RollforwardError
from tests.integration.up import ACTOR, SECONDS, Up, new_id

DIGEST = f"sha256:{'0' * 64}"


def create(system: Up, **fields: Any) -> str:
    """Create a logged model in its own experiment; return its id."""
    model_id = f"m-{new_id()}"
    fields = {"experiment_id": system.new_experiment(), "name": "forest"} | fields
    request = v1.CreateLoggedModelRequest(model_id=model_id, **fields)
    system.logged_models.CreateLoggedModel(request, metadata=ACTOR, timeout=SECONDS)
    return model_id


def get(system: Up, model_id: str) -> v1.LoggedModel:
    """Return a logged model."""
    request = v1.GetLoggedModelRequest(model_id=model_id)
    return system.logged_models.GetLoggedModel(request, timeout=SECONDS).model


@pytest.fixture
def model_id(system: Up) -> str:
    """Create a logged model with a parameter and a tag."""
    return create(system, params={"depth": "3"}, tags={"a": "1"})


def test_logged_model_from_creation_to_end(system: Up) -> None:
    run_id = system.new_run()
    experiment_id = system.tracking.GetRun(v1.GetRunRequest(run_id=run_id), timeout=SECONDS).run.experiment_id
    model_id = create(
        system, experiment_id=experiment_id, model_type="sklearn", source_run_id=run_id, params={"a": "1"}
    )
    digest = system.upload(b"1234567")
    files = v1.LogLoggedModelArtifactRequest(model_id=model_id, digest=digest)
    system.logged_models.LogLoggedModelArtifact(files, timeout=SECONDS)
    model = get(system, model_id)
    assert model.status == v1.LOGGED_MODEL_STATUS_PENDING
    assert (model.name, model.model_type, model.source_run_id, model.actor) == ("forest", "sklearn", run_id, "Zoë")
    assert (model.digest, model.size_bytes, model.file_count) == (digest, 7, 1)
    final = v1.FinalizeLoggedModelRequest(model_id=model_id, status=v1.LOGGED_MODEL_STATUS_READY)
    position = system.logged_models.FinalizeLoggedModel(final, timeout=SECONDS).position
    assert system.logged_models.FinalizeLoggedModel(final, timeout=SECONDS).position == position
    assert get(system, model_id).status == v1.LOGGED_MODEL_STATUS_READY


def test_labels_are_logged_and_removed(system: Up, model_id: str) -> None:
    batch = v1.LogLoggedModelRequest(
        model_id=model_id, params={"depth": "3", "n": "9"}, set_tags={"b": "2"}, removed_tags=["a"]
    )
    position = system.logged_models.LogLoggedModel(batch, timeout=SECONDS).position
    model = get(system, model_id)
    assert (dict(model.params), dict(model.tags)) == ({"depth": "3", "n": "9"}, {"b": "2"})
    assert system.logged_models.LogLoggedModel(batch, timeout=SECONDS).position == position


def test_deleted_model_rejects_changes_until_restored(system: Up, model_id: str) -> None:
    models = system.logged_models
    models.DeleteLoggedModel(v1.DeleteLoggedModelRequest(model_id=model_id, reason="bad"), timeout=SECONDS)
    assert get(system, model_id).deleted
    digest = system.upload()
    refused: list[tuple[Any, Any]] = [
        (models.LogLoggedModel, v1.LogLoggedModelRequest(model_id=model_id, params={"a": "b"})),
        (models.LogLoggedModelArtifact, v1.LogLoggedModelArtifactRequest(model_id=model_id, digest=digest)),
        (
            models.FinalizeLoggedModel,
            v1.FinalizeLoggedModelRequest(model_id=model_id, status=v1.LOGGED_MODEL_STATUS_READY),
        ),
    ]
    for method, request in refused:
        error = system.refused(method, request)
        assert (type(error), error.reason) == (PreconditionFailed, "LOGGED_MODEL_DELETED")
    models.RestoreLoggedModel(v1.RestoreLoggedModelRequest(model_id=model_id), timeout=SECONDS)
    assert not get(system, model_id).deleted


def test_model_is_deleted_and_restored_with_experiment(system: Up) -> None:
    experiment_id = system.new_experiment()
    model_id = create(system, experiment_id=experiment_id)
    system.tracking.DeleteExperiment(v1.DeleteExperimentRequest(experiment_id=experiment_id), timeout=SECONDS)
    assert get(system, model_id).deleted
    system.tracking.RestoreExperiment(v1.RestoreExperimentRequest(experiment_id=experiment_id), timeout=SECONDS)
    assert not get(system, model_id).deleted


def test_repeated_commands_return_first_responses(system: Up) -> None:
    models, model_id, digest = system.logged_models, f"m-{new_id()}", system.upload()
    ready = v1.LOGGED_MODEL_STATUS_READY
    create = v1.CreateLoggedModelRequest(
        model_id=model_id, experiment_id=system.new_experiment(), name="forest", request_id=new_id()
    )
    commands: list[tuple[Any, Message]] = [
        (models.CreateLoggedModel, create),
        (models.LogLoggedModel, v1.LogLoggedModelRequest(model_id=model_id, params={"a": "1"}, request_id=new_id())),
        (
            models.LogLoggedModelArtifact,
            v1.LogLoggedModelArtifactRequest(model_id=model_id, digest=digest, request_id=new_id()),
        ),
        (
            models.FinalizeLoggedModel,
            v1.FinalizeLoggedModelRequest(model_id=model_id, status=ready, request_id=new_id()),
        ),
        (models.DeleteLoggedModel, v1.DeleteLoggedModelRequest(model_id=model_id, request_id=new_id())),
    ]
    responses = [method(request, timeout=SECONDS) for method, request in commands]
    heads = system.heads()
    assert [method(request, timeout=SECONDS) for method, request in commands] == responses
    assert system.heads() == heads


def test_existing_model_is_rejected(system: Up, model_id: str) -> None:
    request = v1.CreateLoggedModelRequest(model_id=model_id, experiment_id=system.new_experiment(), name="forest")
    error = system.refused(system.logged_models.CreateLoggedModel, request)
    assert (type(error), error.reason) == (AlreadyExists, "LOGGED_MODEL_EXISTS")


@pytest.mark.parametrize(
    ("fields", "kind", "reason"),
    [
        ({"model_id": "m-1"}, InvalidRequest, "INVALID_MODEL_ID"),
        ({"name": "a.b"}, InvalidRequest, "INVALID_NAME"),
        ({"experiment_id": "0"}, NotFound, "EXPERIMENT_NOT_FOUND"),
        ({"source_run_id": "f" * 32}, NotFound, "RUN_NOT_FOUND"),
        ({"source_run_id": "x"}, InvalidRequest, "INVALID_RUN_ID"),
        ({"source_run_id": "%" * 2_000_000}, InvalidRequest, "INVALID_RUN_ID"),
        ({"params": {"": ""}}, InvalidRequest, "INVALID_KEY"),
        ({"tags": {"a": "x" * 8001}}, InvalidRequest, "INVALID_VALUE"),
    ],
    ids=count(),
)
def test_invalid_creation_is_rejected(
    system: Up, fields: dict[str, Any], kind: type[RollforwardError], reason: str
) -> None:
    whole = {"model_id": f"m-{new_id()}", "experiment_id": system.new_experiment(), "name": "forest"} | fields
    error = system.refused(system.logged_models.CreateLoggedModel, v1.CreateLoggedModelRequest(**whole))
    assert (type(error), error.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("method", "fields", "kind", "reason"),
    [
        ("LogLoggedModel", {"params": {"depth": "4"}}, PreconditionFailed, "PARAM_CHANGED"),
        ("LogLoggedModel", {"set_tags": {"a": ""}, "removed_tags": ["a"]}, InvalidRequest, "INVALID_KEY"),
        ("LogLoggedModelArtifact", {"digest": DIGEST}, NotFound, "ARTIFACT_NOT_FOUND"),
        ("LogLoggedModelArtifact", {"digest": "x"}, InvalidRequest, "INVALID_DIGEST"),
        ("FinalizeLoggedModel", {"status": 1}, InvalidRequest, "INVALID_STATUS"),
        ("GetLoggedModel", {"model_id": "m-" + "f" * 32}, NotFound, "LOGGED_MODEL_NOT_FOUND"),
        ("DeleteLoggedModel", {"model_id": "m-" + "f" * 32}, NotFound, "LOGGED_MODEL_NOT_FOUND"),
        ("RestoreLoggedModel", {"model_id": "f" * 32}, InvalidRequest, "INVALID_MODEL_ID"),
    ],
    ids=count(),
)
def test_invalid_request_is_rejected(
    system: Up, model_id: str, method: str, fields: dict[str, Any], kind: type[RollforwardError], reason: str
) -> None:
    request = getattr(v1, f"{method}Request")(**{"model_id": model_id} | fields)
    error = system.refused(getattr(system.logged_models, method), request)
    assert (type(error), error.reason) == (kind, reason)
