"""What deciding about a run takes: its state, folded from its events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore.event import RecordedEvent
from rollforward import v1
from services.tracking import metrics_stream, run_stream
from services.tracking.deciders.labels import Labels, added
from services.tracking.deciders.size_limits import Room


@dataclass(frozen=True, slots=True)
class RunState:
    """What deciding about a run takes.

    Attributes:
        status: Where it stands; UNSPECIFIED before it was started.
        name, description: What it is called, and what is said of it.
        heartbeat: Whether its job stays in touch.
        deleted: Whether it was deleted itself; its experiment does not count.
        params: Its parameters.
        artifacts: Its artifacts' digests, by path.
        room: What is shown of it.
    """

    status: v1.RunStatus.ValueType = v1.RUN_STATUS_UNSPECIFIED
    name: str = ""
    description: str = ""
    heartbeat: bool = False
    deleted: bool = False
    params: Labels = field(default_factory=HashTrieMap)
    artifacts: Labels = field(default_factory=HashTrieMap)
    room: Room = field(default_factory=Room)

    @property
    def watched_over(self) -> bool:
        """Whether silence means that its job died."""
        return self.heartbeat and self.status == v1.RUN_STATUS_RUNNING and not self.deleted


def evolve(state: RunState, event: RecordedEvent) -> RunState:
    """The run after an event."""
    after = _EVOLVE[type(event.data)](state, event.data)
    room = shown(state.room, event.data)
    return after if room is state.room else replace(after, room=room)


def _started(_: RunState, fact: v1.RunStarted) -> RunState:
    status = v1.RUN_STATUS_SCHEDULED if fact.scheduled else v1.RUN_STATUS_RUNNING
    return RunState(status, fact.name, fact.description, fact.heartbeat)


def _logged(state: RunState, fact: v1.RunLogged) -> RunState:
    return replace(state, params=added(state.params, fact.params)) if fact.params else state


_EVOLVE: Mapping[type[Message], Callable[[RunState, Any], RunState]] = {
    v1.RunStarted: _started,
    v1.RunRenamed: lambda state, fact: replace(state, name=fact.to_name),
    v1.RunDescribed: lambda state, fact: replace(state, description=fact.description),
    v1.RunLogged: _logged,
    v1.RunInputsLogged: lambda state, _: state,
    v1.RunOutputsLogged: lambda state, _: state,
    v1.MetricsLogged: lambda state, _: state,
    v1.ArtifactLogged: lambda state, fact: replace(state, artifacts=state.artifacts.insert(fact.path, fact.digest)),
    v1.RunFinished: lambda state, fact: replace(state, status=fact.status),
    v1.RunResumed: lambda state, _: replace(state, status=v1.RUN_STATUS_RUNNING),
    v1.RunLost: lambda state, _: replace(state, status=v1.RUN_STATUS_LOST),
    v1.RunDeleted: lambda state, _: replace(state, deleted=True),
    v1.RunRestored: lambda state, _: replace(state, deleted=False),
}


def shown(room: Room, event: Message) -> Room:
    """What is shown of a run after an event, but its metrics, its name and its description."""
    show = _SHOWN.get(type(event))
    return show(room, event) if show else room


def _show_labels(room: Room, fact: v1.RunLogged) -> Room:
    for key in fact.removed_tags:
        room = room.drop(("tag", key))
    return room.put_labels("param", fact.params).put_labels("tag", fact.tags)


def _show_artifact(room: Room, fact: v1.ArtifactLogged) -> Room:
    view = v1.RunArtifact(path=fact.path, digest=fact.digest, size_bytes=fact.size_bytes, file_count=fact.file_count)
    return room.put([(("artifact", fact.path), view.ByteSize())])


def _show_inputs(room: Room, fact: v1.RunInputsLogged) -> Room:
    return room.put((("input", one.dataset.name, one.dataset.digest), one.ByteSize()) for one in fact.inputs)


def _show_outputs(room: Room, fact: v1.RunOutputsLogged) -> Room:
    return room.put((("output", one.model_id), one.ByteSize()) for one in fact.outputs)


_SHOWN: Mapping[type[Message], Callable[[Room, Any], Room]] = {
    v1.RunStarted: lambda room, fact: room.put([(("source",), fact.source.ByteSize())]).put_labels("tag", fact.tags),
    v1.RunLogged: _show_labels,
    v1.ArtifactLogged: _show_artifact,
    v1.RunInputsLogged: _show_inputs,
    v1.RunOutputsLogged: _show_outputs,
}


def stream_of(event: Message) -> str:
    """The stream that an event of a run belongs to."""
    if isinstance(event, v1.MetricsLogged):
        return metrics_stream(event.run_id)
    return run_stream(event.run_id)  # type: ignore[attr-defined]
