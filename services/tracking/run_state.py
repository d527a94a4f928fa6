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
from services.tracking.labels import Labels, added


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
    """

    status: v1.RunStatus.ValueType = v1.RUN_STATUS_UNSPECIFIED
    name: str = ""
    description: str = ""
    heartbeat: bool = False
    deleted: bool = False
    params: Labels = field(default_factory=HashTrieMap)
    artifacts: Labels = field(default_factory=HashTrieMap)

    @property
    def watched_over(self) -> bool:
        """Whether silence means that its job died."""
        return self.heartbeat and self.status == v1.RUN_STATUS_RUNNING and not self.deleted


def evolve(state: RunState, event: RecordedEvent) -> RunState:
    """The run after an event."""
    return _EVOLVE[type(event.data)](state, event.data)


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


def stream_of(event: Message) -> str:
    """The stream that an event of a run belongs to."""
    if isinstance(event, v1.MetricsLogged):
        return metrics_stream(event.run_id)
    return run_stream(event.run_id)  # type: ignore[attr-defined]
