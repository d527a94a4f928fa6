"""The state of a run that its rules depend on, folded from its events."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import assert_never

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import RecordedEvent
from rollforward import v1
from services.tracking import metrics_stream, run_stream
from services.tracking.deciders.labels import Labels, added
from services.tracking.deciders.size_limits import SizeBudget
from services.tracking.events import RunEvent, run_event


@dataclass(frozen=True, slots=True)
class RunState:
    """The state of a run that its rules depend on.

    Attributes:
        status: Its status; UNSPECIFIED before it was started.
        name, description: Its name and its description.
        heartbeat: Whether its job sends heartbeats.
        deleted: Whether it was deleted itself; its experiment does not count.
        params: Its parameters.
        artifacts: Its artifacts' digests, by path.
        budget: The size of what is shown of it.
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
        """Whether a missing heartbeat marks the run as lost."""
        return self.heartbeat and self.status == v1.RUN_STATUS_RUNNING and not self.deleted


def evolve(state: RunState, event: RecordedEvent) -> RunState:
    """Return the run after an event."""
    payload = run_event(event.data)
    after = _evolve(state, payload)
    budget = budget_after(state.budget, payload)
    return after if budget is state.budget else replace(after, budget=budget)


def _evolve(state: RunState, payload: RunEvent) -> RunState:  # noqa: C901, PLR0911, PLR0912 - a case for each event
    match payload:
        case v1.MetricsLogged() | v1.RunInputsLogged() | v1.RunOutputsLogged():
            return state
        case v1.RunLogged():
            return replace(state, params=added(state.params, payload.params)) if payload.params else state
        case v1.RunStarted():
            status = v1.RUN_STATUS_SCHEDULED if payload.scheduled else v1.RUN_STATUS_RUNNING
            return RunState(status, payload.name, payload.description, payload.heartbeat)
        case v1.RunFinished():
            return replace(state, status=payload.status)
        case v1.ArtifactLogged():
            return replace(state, artifacts=state.artifacts.insert(payload.path, payload.digest))
        case v1.RunRenamed():
            return replace(state, name=payload.to_name)
        case v1.RunDescribed():
            return replace(state, description=payload.description)
        case v1.RunResumed():
            return replace(state, status=v1.RUN_STATUS_RUNNING)
        case v1.RunLost():
            return replace(state, status=v1.RUN_STATUS_LOST)
        case v1.RunDeleted():
            return replace(state, deleted=True)
        case v1.RunRestored():
            return replace(state, deleted=False)
        case _:
            assert_never(payload)


def budget_after(budget: SizeBudget, event: RunEvent) -> SizeBudget:
    """Return the size of what a run shows after an event, without its metrics, its name and its description."""
    match event:
        case v1.RunStarted():
            return budget.put([(("source",), event.source.ByteSize())]).put_labels("tag", event.tags)
        case v1.RunLogged():
            return _show_labels(budget, event)
        case v1.ArtifactLogged():
            return _show_artifact(budget, event)
        case v1.RunInputsLogged():
            return _show_inputs(budget, event)
        case v1.RunOutputsLogged():
            return _show_outputs(budget, event)
        case _:
            return budget


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
    return budget.put(
        (("input", given.dataset.name, given.dataset.digest), given.ByteSize()) for given in payload.inputs
    )


def _show_outputs(budget: SizeBudget, payload: v1.RunOutputsLogged) -> SizeBudget:
    return budget.put((("output", output.model_id), output.ByteSize()) for output in payload.outputs)


def stream_of(event: Message) -> str:
    """Return the stream that an event of a run belongs to."""
    payload = run_event(event)
    if isinstance(payload, v1.MetricsLogged):
        return metrics_stream(payload.run_id)
    return run_stream(payload.run_id)
