"""The rules of logged models."""

from __future__ import annotations

from itertools import count

import pytest
from google.protobuf.message import Message

from eventstore.errors import Kind, Rejected
from eventstore.testing import given
from rollforward import v1
from services.tracking.deciders.logged_models import LOGGED_MODELS, Create, LogFiles, decide

MODEL = "m-" + "0" * 31 + "a"
D1, D2 = (f"sha256:{digit * 64}" for digit in "12")
CREATED = v1.LoggedModelCreated(model_id=MODEL, experiment_id="1", name="forest", params={"depth": "3"})
READY, FAILED = v1.LOGGED_MODEL_STATUS_READY, v1.LOGGED_MODEL_STATUS_FAILED
DELETED = v1.LoggedModelDeleted(model_id=MODEL)


def create(**fields: object) -> Create:
    """Return a command that creates a logged model."""
    return Create(v1.CreateLoggedModelRequest(**{"model_id": MODEL, "experiment_id": "1", "name": "forest"} | fields))  # type: ignore[arg-type]


def log(params: dict[str, str] | None = None, tags: dict[str, str] | None = None, *removed: str) -> Message:
    """Return a request that logs parameters and tags."""
    return v1.LogLoggedModelRequest(model_id=MODEL, params=params, set_tags=tags, removed_tags=removed)


def files(digest: str = D1) -> LogFiles:
    """Return a command that logs files."""
    return LogFiles(v1.LogLoggedModelArtifactRequest(model_id=MODEL, digest=digest), 10, 2)


def finalize(status: v1.LoggedModelStatus.ValueType = READY) -> v1.FinalizeLoggedModelRequest:
    """Return a request that finalizes the model."""
    return v1.FinalizeLoggedModelRequest(model_id=MODEL, status=status)


def logged(digest: str = D1) -> v1.LoggedModelArtifactLogged:
    """Return the event of logged files."""
    return v1.LoggedModelArtifactLogged(model_id=MODEL, digest=digest, size_bytes=10, file_count=2)


class TestCreation:
    def test_event_records_all_fields(self) -> None:
        fields = {"model_type": "sklearn", "source_run_id": "a" * 32, "params": {"a": "1"}, "tags": {"b": "2"}}
        created = v1.LoggedModelCreated(model_id=MODEL, experiment_id="1", name="forest", **fields)  # type: ignore[arg-type]
        given(LOGGED_MODELS).when(create(**fields)).then(created)

    def test_existing_model_is_rejected(self) -> None:
        refusal = given(LOGGED_MODELS, CREATED).when(create()).then_rejected("LOGGED_MODEL_EXISTS")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.EXISTS

    def test_unknown_experiment_is_rejected(self) -> None:
        rejection = Rejected(Kind.NOT_FOUND, "EXPERIMENT_NOT_FOUND", "no such experiment")
        given(LOGGED_MODELS).when(Create(create().request, rejection)).then_rejected("EXPERIMENT_NOT_FOUND")

    @pytest.mark.parametrize("name", ["", "a/b", "a:b", "a.b", "a%b", 'a"b', "a'b", "a\nb", "x" * 501])
    def test_invalid_name_is_rejected(self, name: str) -> None:
        given(LOGGED_MODELS).when(create(name=name)).then_rejected("INVALID_NAME")

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"model_id": MODEL[2:]}, "INVALID_MODEL_ID"),
            ({"model_id": MODEL.upper()}, "INVALID_MODEL_ID"),
            ({"source_run_id": "x"}, "INVALID_RUN_ID"),
            ({"model_type": "\a"}, "INVALID_NAME"),
            ({"params": {"": "x"}}, "INVALID_KEY"),
            ({"params": {"k": "x" * 6001}}, "INVALID_VALUE"),
            ({"tags": {"k": "x" * 8001}}, "INVALID_VALUE"),
            ({"tags": {"../k": "x"}}, "INVALID_KEY"),
        ],
        ids=count(),
    )
    def test_invalid_field_is_rejected(self, fields: dict[str, object], reason: str) -> None:
        given(LOGGED_MODELS).when(create(**fields)).then_rejected(reason)


class TestLabels:
    def test_parameter_does_not_change(self) -> None:
        model = given(LOGGED_MODELS, CREATED)
        model.when(log({"depth": "3"})).then()
        model.when(log({"depth": "3", "n": "1"})).then(v1.LoggedModelParamsLogged(model_id=MODEL, params={"n": "1"}))
        assert model.when(log({"depth": "4"})).then_rejected("PARAM_CHANGED").metadata["key"] == "depth"

    def test_tags_are_set_and_removed(self) -> None:
        change = v1.TagChange(key="a", to_value="1")
        changed = v1.LoggedModelTagsChanged(model_id=MODEL, changes=[change])
        given(LOGGED_MODELS, CREATED).when(log({}, {"a": "1"}, "b")).then(changed)
        removed = v1.LoggedModelTagsChanged(model_id=MODEL, changes=[v1.TagChange(key="a", from_value="1")])
        given(LOGGED_MODELS, CREATED, changed).when(log({}, {}, "a")).then(removed)
        given(LOGGED_MODELS, CREATED, changed, removed).when(log({}, {}, "a")).then()

    def test_parameters_and_tags_are_two_events(self) -> None:
        given(LOGGED_MODELS, CREATED).when(log({"n": "1"}, {"a": "1"})).then(
            v1.LoggedModelParamsLogged(model_id=MODEL, params={"n": "1"}),
            v1.LoggedModelTagsChanged(model_id=MODEL, changes=[v1.TagChange(key="a", to_value="1")]),
        )

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (log({"k": "x" * 6001}), "INVALID_VALUE"),
            (log({}, {"k": "x" * 8001}), "INVALID_VALUE"),
            (log({}, {"/k": "x"}), "INVALID_KEY"),
            (log({}, {"k": "x"}, "k"), "INVALID_KEY"),
        ],
        ids=count(),
    )
    def test_invalid_label_is_rejected(self, command: Message, reason: str) -> None:
        given(LOGGED_MODELS, CREATED).when(command).then_rejected(reason)


class TestFiles:
    def test_new_files_replace_old_ones(self) -> None:
        given(LOGGED_MODELS, CREATED).when(files()).then(logged())
        given(LOGGED_MODELS, CREATED, logged()).when(files()).then()
        given(LOGGED_MODELS, CREATED, logged()).when(files(D2)).then(logged(D2))

    def test_invalid_digest_is_rejected(self) -> None:
        given(LOGGED_MODELS, CREATED).when(files("md5:1")).then_rejected("INVALID_DIGEST")


class TestEnd:
    @pytest.mark.parametrize("status", [READY, FAILED])
    def test_model_is_finalized(self, status: v1.LoggedModelStatus.ValueType) -> None:
        final = v1.LoggedModelFinalized(model_id=MODEL, status=status)
        given(LOGGED_MODELS, CREATED).when(finalize(status)).then(final)
        given(LOGGED_MODELS, CREATED, final).when(finalize(status)).then()

    @pytest.mark.parametrize("status", [0, 1, 99])
    def test_invalid_final_status_is_rejected(self, status: v1.LoggedModelStatus.ValueType) -> None:
        given(LOGGED_MODELS, CREATED).when(finalize(status)).then_rejected("INVALID_STATUS")

    def test_model_is_deleted_and_restored(self) -> None:
        restored = v1.LoggedModelRestored(model_id=MODEL)
        delete, restore = v1.DeleteLoggedModelRequest(model_id=MODEL), v1.RestoreLoggedModelRequest(model_id=MODEL)
        given(LOGGED_MODELS, CREATED).when(restore).then()
        given(LOGGED_MODELS, CREATED).when(delete).then(DELETED)
        given(LOGGED_MODELS, CREATED, DELETED).when(delete).then()
        given(LOGGED_MODELS, CREATED, DELETED).when(restore).then(restored)
        given(LOGGED_MODELS, CREATED, DELETED, restored).when(files()).then(logged())

    @pytest.mark.parametrize("command", [log({"a": "1"}), files(), finalize()], ids=count())
    def test_deleted_model_rejects_changes(self, command: object) -> None:
        given(LOGGED_MODELS, CREATED, DELETED).when(command).then_rejected("LOGGED_MODEL_DELETED")


@pytest.mark.parametrize(
    "command",
    [
        log({"a": "1"}),
        files(),
        finalize(),
        v1.DeleteLoggedModelRequest(model_id=MODEL),
        v1.RestoreLoggedModelRequest(model_id=MODEL),
    ],
    ids=count(),
)
def test_unknown_model_is_rejected(command: object) -> None:
    given(LOGGED_MODELS).when(command).then_rejected("LOGGED_MODEL_NOT_FOUND")


def test_other_message_raises_type_error() -> None:
    with pytest.raises(TypeError):
        decide(v1.GetLoggedModelRequest(model_id=MODEL), LOGGED_MODELS.initial)
