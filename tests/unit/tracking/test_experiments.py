"""The rules of experiments."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.event import Metadata, RecordedEvent
from eventstore.testing import Given, given
from rollforward import v1
from services.tracking import EXPERIMENTS_STREAM
from services.tracking.deciders.experiments import EXPERIMENTS, decide, not_open

FRAUD = v1.ExperimentCreated(experiment_id="1", name="fraud", tags={"a": "1"})
IRIS = v1.ExperimentCreated(experiment_id="2", name="iris")
DELETED = v1.ExperimentDeleted(experiment_id="1")
RENAMED = v1.ExperimentRenamed(experiment_id="1", from_name="fraud", to_name="scam")


def create(name: str, **tags: str) -> v1.CreateExperimentRequest:
    """Return a request that creates an experiment."""
    return v1.CreateExperimentRequest(name=name, tags=tags)


def rename(name: str, of: str = "1") -> v1.RenameExperimentRequest:
    """Return a request that renames an experiment."""
    return v1.RenameExperimentRequest(experiment_id=of, new_name=name)


def retag(tags: dict[str, str], *removed: str, of: str = "1") -> v1.ChangeExperimentTagsRequest:
    """Return a request that changes tags."""
    return v1.ChangeExperimentTagsRequest(experiment_id=of, set=tags, remove=removed)


def delete(of: str = "1") -> v1.DeleteExperimentRequest:
    """Return a request that deletes an experiment."""
    return v1.DeleteExperimentRequest(experiment_id=of)


def restore(of: str = "1") -> v1.RestoreExperimentRequest:
    """Return a request that restores an experiment."""
    return v1.RestoreExperimentRequest(experiment_id=of)


class TestCreation:
    def test_ids_are_consecutive_numbers(self) -> None:
        given(EXPERIMENTS).when(create("fraud", a="1")).then(FRAUD)
        given(EXPERIMENTS, FRAUD).when(create("iris")).then(IRIS)
        third = v1.ExperimentCreated(experiment_id="3", name="fraud")
        given(EXPERIMENTS, FRAUD, IRIS, DELETED).when(create("fraud")).then(third)

    def test_existing_name_is_rejected(self) -> None:
        refusal = given(EXPERIMENTS, FRAUD).when(create("fraud")).then_rejected("EXPERIMENT_EXISTS")
        assert refusal.metadata == {"experiment": "fraud"}

    @pytest.mark.parametrize("before", [RENAMED, DELETED])
    def test_name_of_renamed_or_deleted_experiment_is_free(
        self, before: v1.ExperimentRenamed | v1.ExperimentDeleted
    ) -> None:
        other = v1.ExperimentCreated(experiment_id="2", name="fraud")
        given(EXPERIMENTS, FRAUD, before).when(create("fraud")).then(other)

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (create(""), "INVALID_NAME"),
            (create("x" * 501), "INVALID_NAME"),
            (create("a\nb"), "INVALID_NAME"),
            (v1.CreateExperimentRequest(name="a", tags={"": "x"}), "INVALID_KEY"),
            (v1.CreateExperimentRequest(name="a", tags={"a/../b": "x"}), "INVALID_KEY"),
            (create("a", k="x" * 20_001), "INVALID_VALUE"),
        ],
        ids=count(),
    )
    def test_invalid_field_is_rejected(self, command: v1.CreateExperimentRequest, reason: str) -> None:
        given(EXPERIMENTS).when(command).then_rejected(reason)


class TestRenaming:
    def test_rename_records_both_names(self) -> None:
        given(EXPERIMENTS, FRAUD).when(rename("scam")).then(RENAMED)

    def test_rename_to_current_name_changes_nothing(self) -> None:
        given(EXPERIMENTS, FRAUD).when(rename("fraud")).then()

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (rename("iris"), "EXPERIMENT_EXISTS"),
            (rename(""), "INVALID_NAME"),
            (rename("new", "3"), "EXPERIMENT_NOT_FOUND"),
            (rename("new", "01"), "EXPERIMENT_NOT_FOUND"),
        ],
        ids=count(),
    )
    def test_invalid_rename_is_rejected(self, command: v1.RenameExperimentRequest, reason: str) -> None:
        given(EXPERIMENTS, FRAUD, IRIS).when(command).then_rejected(reason)

    def test_experiment_may_take_former_name_of_other(self) -> None:
        taken = v1.ExperimentRenamed(experiment_id="2", from_name="iris", to_name="fraud")
        given(EXPERIMENTS, FRAUD, IRIS, RENAMED).when(rename("fraud", "2")).then(taken)


class TestTags:
    def test_changes_record_former_values(self) -> None:
        changes = [
            v1.TagChange(key="a", from_value="1"),
            v1.TagChange(key="b", to_value=""),
        ]
        changed = v1.ExperimentTagsChanged(experiment_id="1", changes=changes)
        given(EXPERIMENTS, FRAUD).when(retag({"b": ""}, "a", "unknown")).then(changed)
        given(EXPERIMENTS, FRAUD, changed).when(retag({"b": ""}, "a")).then()

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (retag({"b": "x"}, "b"), "INVALID_KEY"),
            (retag({"b\n": "x"}), "INVALID_KEY"),
            (retag({"b": "x" * 20_001}), "INVALID_VALUE"),
            (retag({"b": "x"}, of="7"), "EXPERIMENT_NOT_FOUND"),
        ],
        ids=count(),
    )
    def test_invalid_tags_are_rejected(self, command: v1.ChangeExperimentTagsRequest, reason: str) -> None:
        given(EXPERIMENTS, FRAUD).when(command).then_rejected(reason)


class TestDeletion:
    def test_experiment_is_deleted_and_restored(self) -> None:
        restored = v1.ExperimentRestored(experiment_id="1")
        given(EXPERIMENTS, FRAUD).when(delete()).then(DELETED)
        given(EXPERIMENTS, FRAUD, DELETED).when(delete()).then()
        given(EXPERIMENTS, FRAUD, DELETED).when(restore()).then(restored)
        given(EXPERIMENTS, FRAUD, DELETED, restored).when(restore()).then()
        given(EXPERIMENTS, FRAUD, DELETED, restored).when(create("fraud")).then_rejected("EXPERIMENT_EXISTS")

    def test_deleted_experiment_rejects_changes(self) -> None:
        gone = given(EXPERIMENTS, FRAUD, DELETED)
        for command in (rename("new"), retag({"a": "2"})):
            gone.when(command).then_rejected("EXPERIMENT_DELETED")

    def test_restore_is_rejected_if_name_was_taken(self) -> None:
        other = v1.ExperimentCreated(experiment_id="2", name="fraud")
        given(EXPERIMENTS, FRAUD, DELETED, other).when(restore()).then_rejected("EXPERIMENT_EXISTS")

    @pytest.mark.parametrize("command", [delete("2"), restore("2")])
    def test_unknown_experiment_is_rejected(self, command: object) -> None:
        given(EXPERIMENTS, FRAUD).when(command).then_rejected("EXPERIMENT_NOT_FOUND")


def test_only_existing_experiments_are_open() -> None:
    state = given(EXPERIMENTS, FRAUD, IRIS, DELETED).state
    rejections = [not_open(state, experiment_id) for experiment_id in ("1", "2", "3", "")]
    assert [rejection and rejection.reason for rejection in rejections] == [
        "EXPERIMENT_DELETED",
        None,
        "EXPERIMENT_NOT_FOUND",
        "EXPERIMENT_NOT_FOUND",
    ]


def test_all_experiments_share_one_stream() -> None:
    assert EXPERIMENTS.stream_of
    assert EXPERIMENTS.stream_of(FRAUD) == EXPERIMENTS_STREAM


def test_other_message_raises_type_error() -> None:
    with pytest.raises(TypeError):
        decide(v1.GetExperimentRequest(), EXPERIMENTS.initial)


ids, names = st.sampled_from("123"), st.sampled_from("abc")
commands = st.one_of(
    st.builds(create, names),
    st.builds(rename, names, ids),
    st.builds(retag, st.dictionaries(names, names, max_size=2), of=ids),
    st.builds(delete, ids),
    st.builds(restore, ids),
)


@for_all(st.lists(commands, max_size=20))
def test_any_commands_keep_names_unique(requests: list[object]) -> None:
    """The names in use are exactly those of the experiments that are not deleted."""
    state, position = EXPERIMENTS.initial, 0
    for command in requests:
        for payload in Given(EXPERIMENTS, state).when(command).events:
            position += 1
            state = EXPERIMENTS.evolve(state, RecordedEvent("", position, 0, "", payload, Metadata("a"), position))
        live = {key: experiment.name for key, experiment in state.by_id.items() if not experiment.deleted}
        assert {name: experiment_id for experiment_id, name in live.items()} == dict(state.names.items())
        assert len(live) == len(state.names)
