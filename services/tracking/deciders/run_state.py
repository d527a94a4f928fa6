"""What deciding about a run takes: its state, folded from its events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import RecordedEvent
from rollforward import v1
from services.tracking import metrics_stream, run_stream
from services.tracking.deciders.labels import Labels, added
from services.tracking.deciders.size_limits import SizeBudget


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
    budget: SizeBudget = field(default_factory=SizeBudget)

    @property
    def watched_over(self) -> bool:
        """Whether silence means that its job died."""
        return self.heartbeat and self.status == v1.RUN_STATUS_RUNNING and not self.deleted


def evolve(state: RunState, event: RecordedEvent) -> RunState:
    """The run after an event."""
    after = _EVOLVE[type(event.data)](state, event.data)
    budget = shown(state.budget, event.data)
    return after if budget is state.budget else replace(after, budget=budget)


def _started(_: RunState, payload: v1.RunStarted) -> RunState:
    status = v1.RUN_STATUS_SCHEDULED if payload.scheduled else v1.RUN_STATUS_RUNNING
    return RunState(status, payload.name, payload.description, payload.heartbeat)


def _logged(state: RunState, payload: v1.RunLogged) -> RunState:
    return replace(state, params=added(state.params, payload.params)) if payload.params else state


_EVOLVE: Mapping[type[Message], Callable[[RunState, Any], RunState]] = {
    v1.RunStarted: _started,
    v1.RunRenamed: lambda state, payload: replace(state, name=payload.to_name),
    v1.RunDescribed: lambda state, payload: replace(state, description=payload.description),
    v1.RunLogged: _logged,
    v1.RunInputsLogged: lambda state, _: state,
    v1.RunOutputsLogged: lambda state, _: state,
    v1.MetricsLogged: lambda state, _: state,
    v1.ArtifactLogged: lambda state, payload: replace(
        state, artifacts=state.artifacts.insert(payload.path, payload.digest)
    ),
    v1.RunFinished: lambda state, payload: replace(state, status=payload.status),
    v1.RunResumed: lambda state, _: replace(state, status=v1.RUN_STATUS_RUNNING),
    v1.RunLost: lambda state, _: replace(state, status=v1.RUN_STATUS_LOST),
    v1.RunDeleted: lambda state, _: replace(state, deleted=True),
    v1.RunRestored: lambda state, _: replace(state, deleted=False),
}


def shown(budget: SizeBudget, event: Message) -> SizeBudget:
    """What is shown of a run after an event, but its metrics, its name and its description."""
    show = _SHOWN.get(type(event))
    return show(budget, event) if show else budget


def _show_labels(budget: SizeBudget, payload: v1.RunLogged) -> SizeBudget:
    for key in payload.removed_tags:
        budget = budget.drop(("tag", key))
    return budget.put_labels("param", payload.params).put_labels("tag", payload.tags)


def _show_artifact(budget: SizeBudget, payload: v1.ArtifactLogged) -> SizeBudget:
    view = v1.RunArtifact(
        path=payload.path, digest=payload.digest, size_bytes=payload.size_bytes, file_count=payload.file_count
    )
    return budget.put([(("artifact", payload.path), view.ByteSize())])


def _show_inputs(budget: SizeBudget, payload: v1.RunInputsLogged) -> SizeBudget:
    return budget.put((("input", one.dataset.name, one.dataset.digest), one.ByteSize()) for one in payload.inputs)


def _show_outputs(budget: SizeBudget, payload: v1.RunOutputsLogged) -> SizeBudget:
    return budget.put((("output", one.model_id), one.ByteSize()) for one in payload.outputs)


_SHOWN: Mapping[type[Message], Callable[[SizeBudget, Any], SizeBudget]] = {
    v1.RunStarted: lambda budget, payload: budget.put([(("source",), payload.source.ByteSize())]).put_labels(
        "tag", payload.tags
    ),
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
