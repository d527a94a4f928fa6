"""The rules of experiments, which have one stream together: what may happen to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import Decider, Kind, RecordedEvent, Rejected
from rollforward import v1
from services.tracking import EXPERIMENTS_STREAM
from services.tracking.deciders.labels import Labels, added, changed, check_removed, check_tags, tag_changes
from services.tracking.deciders.size_limits import LARGEST_EXPERIMENT, SizeBudget
from services.validation import check_text

LONGEST_NAME = 500


@dataclass(frozen=True, slots=True)
class Experiment:
    """What deciding about an experiment takes."""

    name: str
    tags: Labels = field(default_factory=HashTrieMap)
    budget: SizeBudget = field(default_factory=SizeBudget)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Experiments:
    """All experiments by id, and the ids of those that are not deleted by name."""

    by_id: HashTrieMap[str, Experiment] = field(default_factory=HashTrieMap)
    names: HashTrieMap[str, str] = field(default_factory=HashTrieMap)


def decide(command: object, state: Experiments) -> Sequence[Message]:
    """What a command makes happen."""
    rule = _RULES.get(type(command))
    if rule is None:
        raise TypeError(f"not a command of experiments: {type(command).__name__}")
    return rule(command, state)


def not_open(state: Experiments, experiment_id: str) -> Rejected | None:
    """Why nothing can be added to an experiment: EXPERIMENT_NOT_FOUND or EXPERIMENT_DELETED; None when it can."""
    about = experiment_id[:100]
    found = state.by_id.get(experiment_id)
    if found is None:
        return Rejected(Kind.NOT_FOUND, "EXPERIMENT_NOT_FOUND", f"no experiment {about!r}", experiment=about)
    if found.deleted:
        words = f"experiment {found.name!r} is deleted"
        return Rejected(Kind.PRECONDITION, "EXPERIMENT_DELETED", words, experiment=about)
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
        raise Rejected(Kind.EXISTS, "EXPERIMENT_EXISTS", f"experiment {name!r} exists", experiment=name)


def _check_name(name: str) -> None:
    check_text(name, "the experiment's name", LONGEST_NAME, "INVALID_NAME")


def _check_growth(experiment_id: str, after: SizeBudget, before: SizeBudget) -> None:
    after.check_growth(before, LARGEST_EXPERIMENT, "EXPERIMENT_FULL", experiment=experiment_id)


def _create(command: v1.CreateExperimentRequest, state: Experiments) -> Sequence[Message]:
    _check_name(command.name)
    check_tags(command.tags)
    _check_free(state, command.name)
    number = str(len(state.by_id) + 1)
    _check_growth(number, SizeBudget().put_labels("tag", command.tags), SizeBudget())
    return [v1.ExperimentCreated(experiment_id=number, name=command.name, tags=command.tags)]


def _rename(command: v1.RenameExperimentRequest, state: Experiments) -> Sequence[Message]:
    _check_name(command.new_name)
    held = _open(state, command.experiment_id)
    if command.new_name == held.name:
        return []
    _check_free(state, command.new_name)
    of = command.experiment_id
    return [v1.ExperimentRenamed(experiment_id=of, from_name=held.name, to_name=command.new_name)]


def _change_tags(command: v1.ChangeExperimentTagsRequest, state: Experiments) -> Sequence[Message]:
    check_tags(command.set)
    check_removed(command.remove, command.set)
    held = _open(state, command.experiment_id)
    changes = tag_changes(held.tags, command.set, command.remove)
    if not changes:
        return []
    _check_growth(command.experiment_id, held.budget.change_tags(changes), held.budget)
    return [v1.ExperimentTagsChanged(experiment_id=command.experiment_id, changes=changes)]


def _delete(command: v1.DeleteExperimentRequest, state: Experiments) -> Sequence[Message]:
    held = _known(state, command.experiment_id)
    return [] if held.deleted else [v1.ExperimentDeleted(experiment_id=command.experiment_id)]


def _restore(command: v1.RestoreExperimentRequest, state: Experiments) -> Sequence[Message]:
    held = _known(state, command.experiment_id)
    if not held.deleted:
        return []
    _check_free(state, held.name)
    return [v1.ExperimentRestored(experiment_id=command.experiment_id)]


_RULES: Mapping[type, Callable[[Any, Experiments], Sequence[Message]]] = {
    v1.CreateExperimentRequest: _create,
    v1.RenameExperimentRequest: _rename,
    v1.ChangeExperimentTagsRequest: _change_tags,
    v1.DeleteExperimentRequest: _delete,
    v1.RestoreExperimentRequest: _restore,
}


def evolve(state: Experiments, event: RecordedEvent) -> Experiments:
    """The experiments after an event."""
    return _EVOLVE[type(event.data)](state, event.data)


def _created(state: Experiments, payload: v1.ExperimentCreated) -> Experiments:
    tags, budget = added(HashTrieMap(), payload.tags), SizeBudget().put_labels("tag", payload.tags)
    return _put(state, payload.experiment_id, Experiment(payload.name, tags, budget))


def _renamed(state: Experiments, payload: v1.ExperimentRenamed) -> Experiments:
    return _put(state, payload.experiment_id, replace(state.by_id[payload.experiment_id], name=payload.to_name))


def _retagged(state: Experiments, payload: v1.ExperimentTagsChanged) -> Experiments:
    held = state.by_id[payload.experiment_id]
    tags, budget = changed(held.tags, payload.changes), held.budget.change_tags(payload.changes)
    return _put(state, payload.experiment_id, replace(held, tags=tags, budget=budget))


def _deleted(state: Experiments, payload: v1.ExperimentDeleted) -> Experiments:
    return _put(state, payload.experiment_id, replace(state.by_id[payload.experiment_id], deleted=True))


def _restored(state: Experiments, payload: v1.ExperimentRestored) -> Experiments:
    return _put(state, payload.experiment_id, replace(state.by_id[payload.experiment_id], deleted=False))


def _put(state: Experiments, experiment_id: str, new: Experiment) -> Experiments:
    names = state.names
    if (old := state.by_id.get(experiment_id)) and not old.deleted:
        names = names.discard(old.name)
    if not new.deleted:
        names = names.insert(new.name, experiment_id)
    return Experiments(state.by_id.insert(experiment_id, new), names)


_EVOLVE: Mapping[type[Message], Callable[[Experiments, Any], Experiments]] = {
    v1.ExperimentCreated: _created,
    v1.ExperimentRenamed: _renamed,
    v1.ExperimentTagsChanged: _retagged,
    v1.ExperimentDeleted: _deleted,
    v1.ExperimentRestored: _restored,
}

EXPERIMENTS: Decider[Experiments] = Decider(Experiments(), decide, evolve, lambda _: EXPERIMENTS_STREAM)
