"""The rows of tracking: what each event of the log means for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore.event import RecordedEvent
from rollforward import v1
from services.timestamps import nanoseconds
from services.tracking.projection.batch import Batch, Memory
from services.tracking.projection.tables import (
    HEAD_CHARACTERS,
    artifacts,
    experiment_tags,
    experiments,
    inputs,
    model_params,
    model_tags,
    models,
    outputs,
    params,
    runs,
    tables,
    tags,
)

Fact = Any
"""An event of the type that its writer is for."""


class TrackingProjection:
    """Computes the rows of tracking."""

    name = "tracking"
    version = 3
    tables = tables

    def __init__(self) -> None:
        self._memories: WeakKeyDictionary[sa.Engine, Memory] = WeakKeyDictionary()
        self._finding = threading.Lock()

    def apply(self, rows: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Writes what events mean."""
        memory = self._memory(rows, events[0].position)
        batch = Batch(rows, memory, events)
        for event in events:
            _WRITERS[type(event.data)](batch, event, event.data)
        batch.write()
        memory.position = events[-1].position

    def _memory(self, rows: sa.Connection, position: int) -> Memory:
        """What is known of these rows without asking them, if they stand where the event before `position` left them.

        Each generation has an engine of its own. What a transaction did that was rolled back, or another process, is
        found by the position: the rows at a position are always the same.
        """
        with self._finding:
            memory = self._memories.get(rows.engine)
            if memory is None or memory.position + 1 != position:
                memory = self._memories[rows.engine] = Memory()
        memory.leave()
        return memory


def _create_experiment(batch: Batch, event: RecordedEvent, fact: v1.ExperimentCreated) -> None:
    number = int(fact.experiment_id)
    row = {
        "name": fact.name,
        "created_at": event.time,
        "updated_at": event.time,
        "actor": event.metadata.actor,
        "deleted": False,
    }
    batch.pending.put(experiments, (number,), row)
    _label(batch, experiment_tags, number, fact.tags)


def _of_experiment(values: Callable[[Fact], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's experiment."""

    def write(batch: Batch, event: RecordedEvent, fact: Fact) -> None:
        changed = {"updated_at": event.time, **values(fact)}
        batch.pending.change(experiments, (int(fact.experiment_id),), changed)

    return write


_touch_experiment = _of_experiment(lambda _: {})


def _change_experiment_tags(batch: Batch, event: RecordedEvent, fact: v1.ExperimentTagsChanged) -> None:
    _change_labels(batch, experiment_tags, int(fact.experiment_id), fact.changes)
    _touch_experiment(batch, event, fact)


def _start(batch: Batch, event: RecordedEvent, fact: v1.RunStarted) -> None:
    experiment = int(fact.experiment_id)
    row = {
        "run_id": fact.run_id,
        "experiment": experiment,
        "name": fact.name,
        "status": v1.RUN_STATUS_SCHEDULED if fact.scheduled else v1.RUN_STATUS_RUNNING,
        "start_time": nanoseconds(fact.start_time) if fact.HasField("start_time") else event.time,
        "end_time": None,
        "actor": event.metadata.actor,
        "description": fact.description,
        "parent_run_id": fact.parent_run_id,
        "heartbeat": fact.heartbeat,
        "last_heard": None,
        "deleted": False,
        "source": fact.source.SerializeToString(deterministic=True),
    }
    batch.add_run(fact.run_id, event.position, experiment)
    batch.pending.put(runs, (event.position,), row)
    _label(batch, tags, event.position, fact.tags)


def _of_run(values: Callable[[RecordedEvent, Fact], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's run."""

    def write(batch: Batch, event: RecordedEvent, fact: Fact) -> None:
        if number := batch.run(fact.run_id):
            batch.pending.change(runs, (number,), values(event, fact))

    return write


def _finished(event: RecordedEvent, fact: v1.RunFinished) -> Mapping[str, object]:
    end_time = nanoseconds(fact.end_time) if fact.HasField("end_time") else event.time
    return {"status": fact.status, "end_time": end_time, "last_heard": None}


def _resumed(_event: RecordedEvent, _fact: v1.RunResumed) -> Mapping[str, object]:
    return {"status": v1.RUN_STATUS_RUNNING, "end_time": None, "last_heard": None}


def _lost(_event: RecordedEvent, fact: v1.RunLost) -> Mapping[str, object]:
    return {"status": v1.RUN_STATUS_LOST, "last_heard": nanoseconds(fact.last_heard)}


def _log(batch: Batch, _event: RecordedEvent, fact: v1.RunLogged) -> None:
    if number := batch.run(fact.run_id):
        _label(batch, params, number, fact.params)
        for key in fact.removed_tags:
            batch.pending.remove(tags, (number, key))
        _label(batch, tags, number, fact.tags)


def _log_inputs(batch: Batch, _event: RecordedEvent, fact: v1.RunInputsLogged) -> None:
    if number := batch.run(fact.run_id):
        for one in fact.inputs:
            row = {"context": one.tags.get("context", ""), "input": one.SerializeToString(deterministic=True)}
            batch.pending.put(inputs, (number, one.dataset.name, one.dataset.digest), row)


def _log_outputs(batch: Batch, _event: RecordedEvent, fact: v1.RunOutputsLogged) -> None:
    if number := batch.run(fact.run_id):
        for one in fact.outputs:
            batch.pending.put(outputs, (number, one.model_id), {"step": one.step})


def _log_artifact(batch: Batch, _event: RecordedEvent, fact: v1.ArtifactLogged) -> None:
    if number := batch.run(fact.run_id):
        row = {"digest": fact.digest, "size_bytes": fact.size_bytes, "file_count": fact.file_count}
        batch.pending.put(artifacts, (number, fact.path), row)


def _create_model(batch: Batch, event: RecordedEvent, fact: v1.LoggedModelCreated) -> None:
    row = {
        "model_id": fact.model_id,
        "experiment": int(fact.experiment_id),
        "name": fact.name,
        "model_type": fact.model_type,
        "source_run_id": fact.source_run_id,
        "status": v1.LOGGED_MODEL_STATUS_PENDING,
        "digest": "",
        "size_bytes": 0,
        "file_count": 0,
        "created_at": event.time,
        "updated_at": event.time,
        "actor": event.metadata.actor,
        "deleted": False,
    }
    batch.add_model(fact.model_id, event.position)
    batch.pending.put(models, (event.position,), row)
    _label(batch, model_params, event.position, fact.params)
    _label(batch, model_tags, event.position, fact.tags)


def _of_model(values: Callable[[Fact], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's logged model."""

    def write(batch: Batch, event: RecordedEvent, fact: Fact) -> None:
        if number := batch.model(fact.model_id):
            batch.pending.change(models, (number,), {"updated_at": event.time, **values(fact)})

    return write


_touch_model = _of_model(lambda _: {})


def _stored(fact: v1.LoggedModelArtifactLogged) -> Mapping[str, object]:
    return {"digest": fact.digest, "size_bytes": fact.size_bytes, "file_count": fact.file_count}


def _log_model_params(batch: Batch, event: RecordedEvent, fact: v1.LoggedModelParamsLogged) -> None:
    if number := batch.model(fact.model_id):
        _label(batch, model_params, number, fact.params)
        _touch_model(batch, event, fact)


def _change_model_tags(batch: Batch, event: RecordedEvent, fact: v1.LoggedModelTagsChanged) -> None:
    if number := batch.model(fact.model_id):
        _change_labels(batch, model_tags, number, fact.changes)
        _touch_model(batch, event, fact)


def _label(batch: Batch, table: sa.Table, owner: int, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        batch.pending.put(table, (owner, key), {"value": value, "head": value[:HEAD_CHARACTERS]})


def _change_labels(batch: Batch, table: sa.Table, owner: int, changes: Iterable[v1.TagChange]) -> None:
    for change in changes:
        batch.pending.remove(table, (owner, change.key))
        if change.HasField("to_value"):
            _label(batch, table, owner, {change.key: change.to_value})


Writer = Callable[[Batch, RecordedEvent, Fact], None]

_WRITERS: Mapping[type[Message], Writer] = {
    v1.ExperimentCreated: _create_experiment,
    v1.ExperimentRenamed: _of_experiment(lambda fact: {"name": fact.to_name}),
    v1.ExperimentTagsChanged: _change_experiment_tags,
    v1.ExperimentDeleted: _of_experiment(lambda _: {"deleted": True}),
    v1.ExperimentRestored: _of_experiment(lambda _: {"deleted": False}),
    v1.RunStarted: _start,
    v1.RunRenamed: _of_run(lambda _, fact: {"name": fact.to_name}),
    v1.RunDescribed: _of_run(lambda _, fact: {"description": fact.description}),
    v1.RunLogged: _log,
    v1.RunInputsLogged: _log_inputs,
    v1.RunOutputsLogged: _log_outputs,
    v1.MetricsLogged: lambda batch, event, fact: batch.add_points(event.position, fact),
    v1.ArtifactLogged: _log_artifact,
    v1.RunFinished: _of_run(_finished),
    v1.RunResumed: _of_run(_resumed),
    v1.RunLost: _of_run(_lost),
    v1.RunDeleted: _of_run(lambda *_: {"deleted": True}),
    v1.RunRestored: _of_run(lambda *_: {"deleted": False}),
    v1.LoggedModelCreated: _create_model,
    v1.LoggedModelParamsLogged: _log_model_params,
    v1.LoggedModelTagsChanged: _change_model_tags,
    v1.LoggedModelArtifactLogged: _of_model(_stored),
    v1.LoggedModelFinalized: _of_model(lambda fact: {"status": fact.status}),
    v1.LoggedModelDeleted: _of_model(lambda _: {"deleted": True}),
    v1.LoggedModelRestored: _of_model(lambda _: {"deleted": False}),
    v1.LogEpochBegan: lambda *_: None,
}
