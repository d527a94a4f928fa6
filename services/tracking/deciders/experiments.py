"""The rules of experiments, which have one stream together: what may happen to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import Decider, Kind, RecordedEvent, Rejected
from rollforward import v1
from services.tracking import EXPERIMENTS_STREAM
from services.tracking.deciders.labels import Labels, added, changed, check_removed, check_tags, tag_changes
from services.tracking.deciders.size_limits import LARGEST_EXPERIMENT, SizeBudget
from services.tracking.events import experiment_event
from services.validation import check_text

MAX_NAME_LENGTH = 500
DEFAULT_ID = "0"
DEFAULT_NAME = "Default"
"""The experiment of runs whose MLflow client names none: the first of this name has the id 0, as MLflow's has."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """The state of an experiment that its rules depend on."""

    name: str
    tags: Labels = field(default_factory=HashTrieMap)
    budget: SizeBudget = field(default_factory=SizeBudget)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Experiments:
    """All experiments by id, and the ids of those that are not deleted by name."""

    by_id: HashTrieMap[str, Experiment] = field(default_factory=HashTrieMap)
    names: HashTrieMap[str, str] = field(default_factory=HashTrieMap)


ExperimentCommand: TypeAlias = (
    v1.CreateExperimentRequest
    | v1.RenameExperimentRequest
    | v1.ChangeExperimentTagsRequest
    | v1.DeleteExperimentRequest
    | v1.RestoreExperimentRequest
)


def decide(command: object, state: Experiments) -> Sequence[Message]:
    """Return the events of a command.

    Raises:
        Rejected: The command breaks a rule.
        TypeError: It is not a command of experiments.
    """
    if not isinstance(command, ExperimentCommand):
        raise TypeError(f"expected a command of experiments, got {type(command).__name__}")
    match command:
        case v1.CreateExperimentRequest():
            return _create(command, state)
        case v1.RenameExperimentRequest():
            return _rename(command, state)
        case v1.ChangeExperimentTagsRequest():
            return _change_tags(command, state)
        case v1.DeleteExperimentRequest():
            return _delete(command, state)
        case v1.RestoreExperimentRequest():
            return _restore(command, state)
        case _:
            assert_never(command)


def not_open(state: Experiments, experiment_id: str) -> Rejected | None:
    """Return the rejection of what would be added to an experiment, None when it is open.

    Its reason is EXPERIMENT_NOT_FOUND or EXPERIMENT_DELETED.
    """
    shown_id = experiment_id[:100]
    experiment = state.by_id.get(experiment_id)
    if experiment is None:
        return Rejected(
            Kind.NOT_FOUND, "EXPERIMENT_NOT_FOUND", f"no experiment has the id {shown_id!r}", experiment=shown_id
        )
    if experiment.deleted:
        message = f"experiment {experiment.name!r} is deleted"
        return Rejected(Kind.PRECONDITION, "EXPERIMENT_DELETED", message, experiment=shown_id)
    return None


def _open(state: Experiments, experiment_id: str) -> Experiment:
    if refusal := not_open(state, experiment_id):
        raise refusal
    return state.by_id[experiment_id]


def _known(state: Experiments, experiment_id: str) -> Experiment:
    if experiment_id not in state.by_id:
        _open(state, experiment_id)
    return state.by_id[experiment_id]


def _check_free(state: Experiments, name: str) -> None:
    if name in state.names:
        raise Rejected(Kind.EXISTS, "EXPERIMENT_EXISTS", f"experiment {name!r} already exists", experiment=name)


def _check_name(name: str) -> None:
    check_text(name, "experiment name", MAX_NAME_LENGTH, "INVALID_NAME")


def _check_growth(experiment_id: str, after: SizeBudget, before: SizeBudget) -> None:
    after.check_growth(before, LARGEST_EXPERIMENT, "EXPERIMENT_FULL", experiment=experiment_id)


def _create(command: v1.CreateExperimentRequest, state: Experiments) -> Sequence[Message]:
    _check_name(command.name)
    check_tags(command.tags)
    _check_free(state, command.name)
    number = DEFAULT_ID if command.name == DEFAULT_NAME and DEFAULT_ID not in state.by_id else _next_id(state)
    _check_growth(number, SizeBudget().put_labels("tag", command.tags), SizeBudget())
    return [v1.ExperimentCreated(experiment_id=number, name=command.name, tags=command.tags)]


def _next_id(state: Experiments) -> str:
    return str(len(state.by_id) + (DEFAULT_ID not in state.by_id))


def _rename(command: v1.RenameExperimentRequest, state: Experiments) -> Sequence[Message]:
    _check_name(command.new_name)
    experiment = _open(state, command.experiment_id)
    if command.new_name == experiment.name:
        return []
    _check_free(state, command.new_name)
    of = command.experiment_id
    return [v1.ExperimentRenamed(experiment_id=of, from_name=experiment.name, to_name=command.new_name)]


def _change_tags(command: v1.ChangeExperimentTagsRequest, state: Experiments) -> Sequence[Message]:
    check_tags(command.set)
    check_removed(command.remove, command.set)
    experiment = _open(state, command.experiment_id)
    changes = tag_changes(experiment.tags, command.set, command.remove)
    if not changes:
        return []
    _check_growth(command.experiment_id, experiment.budget.change_tags(changes), experiment.budget)
    return [v1.ExperimentTagsChanged(experiment_id=command.experiment_id, changes=changes)]


def _delete(command: v1.DeleteExperimentRequest, state: Experiments) -> Sequence[Message]:
    experiment = _known(state, command.experiment_id)
    return [] if experiment.deleted else [v1.ExperimentDeleted(experiment_id=command.experiment_id)]


def _restore(command: v1.RestoreExperimentRequest, state: Experiments) -> Sequence[Message]:
    experiment = _known(state, command.experiment_id)
    if not experiment.deleted:
        return []
    _check_free(state, experiment.name)
    return [v1.ExperimentRestored(experiment_id=command.experiment_id)]


def evolve(state: Experiments, event: RecordedEvent) -> Experiments:
    """Return the experiments after an event."""
    match payload := experiment_event(event.data):
        case v1.ExperimentCreated():
            return _created(state, payload)
        case v1.ExperimentRenamed():
            return _put(state, payload.experiment_id, replace(state.by_id[payload.experiment_id], name=payload.to_name))
        case v1.ExperimentTagsChanged():
            return _retagged(state, payload)
        case v1.ExperimentDeleted():
            return _put(state, payload.experiment_id, replace(state.by_id[payload.experiment_id], deleted=True))
        case v1.ExperimentRestored():
            return _put(state, payload.experiment_id, replace(state.by_id[payload.experiment_id], deleted=False))
        case _:
            assert_never(payload)


def _created(state: Experiments, payload: v1.ExperimentCreated) -> Experiments:
    tags, budget = added(HashTrieMap(), payload.tags), SizeBudget().put_labels("tag", payload.tags)
    return _put(state, payload.experiment_id, Experiment(payload.name, tags, budget))


def _retagged(state: Experiments, payload: v1.ExperimentTagsChanged) -> Experiments:
    experiment = state.by_id[payload.experiment_id]
    tags, budget = changed(experiment.tags, payload.changes), experiment.budget.change_tags(payload.changes)
    return _put(state, payload.experiment_id, replace(experiment, tags=tags, budget=budget))


def _put(state: Experiments, experiment_id: str, new: Experiment) -> Experiments:
    names = state.names
    if (old := state.by_id.get(experiment_id)) and not old.deleted:
        names = names.discard(old.name)
    if not new.deleted:
        names = names.insert(new.name, experiment_id)
    return Experiments(state.by_id.insert(experiment_id, new), names)


EXPERIMENTS: Decider[Experiments] = Decider(Experiments(), decide, evolve, lambda _: EXPERIMENTS_STREAM)
