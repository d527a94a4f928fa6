"""The expected state of the registry, computed from the fold of its log and its events alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from eventstore.event import RecordedEvent
from rollforward import v1
from services.registry import origin_of
from services.registry.deciders.state import State

States = Mapping[str, State]
"""The models' states, by stream."""

ALIASES = ("champion", "candidate")


class Change(NamedTuple):
    """One change of an alias of a model, which is known by its origin."""

    origin: str
    alias: str
    from_version: int
    to_version: int
    position: int
    revision: int


class Restored(NamedTuple):
    """What a rollback changes: which version comes back, and the revision at which it was there."""

    model: str
    alias: str
    from_version: int
    to_version: int
    revision: int


def alias_changes(events: Iterable[RecordedEvent]) -> list[Change]:
    """Return every change of an alias, oldest first."""
    found = []
    for event in events:
        if isinstance(payload := event.data, (v1.AliasMoved, v1.AliasRemoved)):
            to = payload.to_version if isinstance(payload, v1.AliasMoved) else 0
            about = (origin_of(event.stream), payload.alias, payload.from_version, to)
            found.append(Change(*about, event.position, event.append_end))
    return found


def intervals(changes: Sequence[Change]) -> list[tuple[int, int]]:
    """Return the first and last position of each assignment of one alias, newest first; 0 while it lasts."""
    ends = [change.position for change in changes[1:]] + [0]
    spans = [(change.position, end) for change, end in zip(changes, ends, strict=True) if change.to_version]
    return spans[::-1]


def restored(
    events: Sequence[RecordedEvent], states: States, request: v1.RollbackRequest, to: int | None
) -> set[Restored]:
    """Return the outcome that a rollback must have, ignoring what may reject it."""
    found = set()
    for origin, alias, *_ in {change[:2]: change for change in alias_changes(events)}.values():
        name = states[f"model/{origin}"].name
        if not (fnmatchcase(name, request.models) and fnmatchcase(alias, request.aliases)):
            continue
        past = [change for change in alias_changes(events) if change[:2] == (origin, alias)]
        now = past[-1].to_version
        if to is None:
            back = [change for change in past if change.to_version not in (0, now)]
        else:
            back = [change for change in past if change.revision <= to]
        version = back[-1].to_version if back else now if to is None else 0
        if version != now:
            found.add(Restored(name, alias, now, version, back[-1].revision if version else 0))
    return found


def assigned(states: States, names: States) -> set[tuple[str, str, int, int, str]]:
    """Return the aliases set in some states, by what their models are called in others."""
    return {
        (names[stream].name, alias, one.version, one.revision, state.digest(one.version))
        for stream, state in states.items()
        for alias, one in state.aliases.items()
        if one.version
    }


def assigned_in(aliases: Iterable[v1.Alias]) -> set[tuple[str, str, int, int, str]]:
    """Return the same of a response."""
    return {(one.model, one.alias, one.version, one.revision, one.digest) for one in aliases}


def models(states: States) -> dict[str, tuple[object, ...]]:
    """Return the fields of models by name."""
    return {state.name: _model(state) for state in states.values() if state.name}


def _model(state: State) -> tuple[object, ...]:
    aliases = {(alias, one.version, one.revision) for alias, one in state.aliases.items() if one.version}
    tags = dict(state.tags.items())
    return state.description, tags, state.gate, state.deleted, len(state.versions), aliases


def models_in(shown: Iterable[v1.Model]) -> dict[str, tuple[object, ...]]:
    """Return the same of a response."""
    return {model.name: _model_in(model) for model in shown}


def _model_in(model: v1.Model) -> tuple[object, ...]:
    aliases = {(one.alias, one.version, one.revision) for one in model.aliases}
    deleted = model.HasField("deleted_at")
    return model.description, dict(model.tags), model.registration_gate, deleted, model.latest_version, aliases


def versions(states: States) -> dict[tuple[str, int], tuple[object, ...]]:
    """Return the fields of versions by model and number."""
    return {
        (state.name, number): (
            *(one.digest, one.description, dict(one.tags.items()), one.status, one.deleted, one.revision),
            state.names_of(number),
        )
        for state in states.values()
        for number, one in state.versions.items()
    }


def versions_in(shown: Iterable[v1.Version]) -> dict[tuple[str, int], tuple[object, ...]]:
    """Return the same of a response."""
    return {
        (one.model, one.version): (
            *(one.digest, one.description, dict(one.tags), one.status, one.HasField("deleted_at"), one.revision),
            sorted(one.aliases),
        )
        for one in shown
    }


def schedules(states: States) -> set[tuple[str, str, str, int, int | None]]:
    """Return the pending scheduled moves."""
    return {
        (key, state.name, one.alias, one.version, one.expected_revision)
        for state in states.values()
        for key, one in state.schedules.items()
    }


def schedules_in(shown: Iterable[v1.Schedule]) -> set[tuple[str, str, str, int, int | None]]:
    """Return the same of a response."""
    return {
        (
            *(one.schedule_id, one.model, one.alias, one.version),
            one.expected_revision if one.HasField("expected_revision") else None,
        )
        for one in shown
    }


def former_names(events: Iterable[RecordedEvent], states: States) -> dict[str, set[str]]:
    """Return the former names of models by name."""
    found: dict[str, set[str]] = {state.name: set() for state in states.values() if state.name}
    for event in events:
        if isinstance(event.data, v1.ModelRenamed):
            state = states[event.stream]
            found[state.name] |= {event.data.model, event.data.to_name} - {state.name}
    return found
