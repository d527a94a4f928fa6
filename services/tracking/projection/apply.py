"""The rows of tracking: what each event of the log means for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from google.protobuf.message import Message

from eventstore import RecordedEvent
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

Payload = Any
"""An event of the type that its writer is for."""


class TrackingProjection:
    """Computes the rows of tracking."""

    name = "tracking"
    version = 3
    tables = tables

    def __init__(self) -> None:
        self._memories: WeakKeyDictionary[sa.Engine, Memory] = WeakKeyDictionary()
        self._finding = threading.Lock()

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Writes what events mean."""
        memory = self._memory(connection, events[0].position)
        batch = Batch(connection, memory, events)
        for event in events:
            _WRITERS[type(event.data)](batch, event, event.data)
        batch.write()
        memory.position = events[-1].position

    def _memory(self, connection: sa.Connection, position: int) -> Memory:
        """What is known of these rows without asking them, if they stand where the event before `position` left them.

        Each generation has an engine of its own. What a transaction did that was rolled back, or another process, is
        found by the position: the rows at a position are always the same.
        """
        with self._finding:
            memory = self._memories.get(connection.engine)
            if memory is None or memory.position + 1 != position:
                memory = self._memories[connection.engine] = Memory()
        memory.leave()
        return memory


def _create_experiment(batch: Batch, event: RecordedEvent, payload: v1.ExperimentCreated) -> None:
    number = int(payload.experiment_id)
    row = {
        "name": payload.name,
        "created_at": event.time,
        "updated_at": event.time,
        "actor": event.metadata.actor,
        "deleted": False,
    }
    batch.pending.put(experiments, (number,), row)
    _label(batch, experiment_tags, number, payload.tags)


def _of_experiment(values: Callable[[Payload], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's experiment."""

    def write(batch: Batch, event: RecordedEvent, payload: Payload) -> None:
        changed = {"updated_at": event.time, **values(payload)}
        batch.pending.change(experiments, (int(payload.experiment_id),), changed)

    return write


_touch_experiment = _of_experiment(lambda _: {})


def _change_experiment_tags(batch: Batch, event: RecordedEvent, payload: v1.ExperimentTagsChanged) -> None:
    _change_labels(batch, experiment_tags, int(payload.experiment_id), payload.changes)
    _touch_experiment(batch, event, payload)


def _start(batch: Batch, event: RecordedEvent, payload: v1.RunStarted) -> None:
    experiment = int(payload.experiment_id)
    row = {
        "run_id": payload.run_id,
        "experiment": experiment,
        "name": payload.name,
        "status": v1.RUN_STATUS_SCHEDULED if payload.scheduled else v1.RUN_STATUS_RUNNING,
        "start_time": nanoseconds(payload.start_time) if payload.HasField("start_time") else event.time,
        "end_time": None,
        "actor": event.metadata.actor,
        "description": payload.description,
        "parent_run_id": payload.parent_run_id,
        "heartbeat": payload.heartbeat,
        "last_heard": None,
        "deleted": False,
        "source": payload.source.SerializeToString(deterministic=True),
    }
    batch.add_run(payload.run_id, event.position, experiment)
    batch.pending.put(runs, (event.position,), row)
    _label(batch, tags, event.position, payload.tags)


def _of_run(values: Callable[[RecordedEvent, Payload], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's run."""

    def write(batch: Batch, event: RecordedEvent, payload: Payload) -> None:
        if number := batch.run(payload.run_id):
            batch.pending.change(runs, (number,), values(event, payload))

    return write


def _finished(event: RecordedEvent, payload: v1.RunFinished) -> Mapping[str, object]:
    end_time = nanoseconds(payload.end_time) if payload.HasField("end_time") else event.time
    return {"status": payload.status, "end_time": end_time, "last_heard": None}


def _resumed(_event: RecordedEvent, _payload: v1.RunResumed) -> Mapping[str, object]:
    return {"status": v1.RUN_STATUS_RUNNING, "end_time": None, "last_heard": None}


def _lost(_event: RecordedEvent, payload: v1.RunLost) -> Mapping[str, object]:
    return {"status": v1.RUN_STATUS_LOST, "last_heard": nanoseconds(payload.last_heard)}


def _log(batch: Batch, _event: RecordedEvent, payload: v1.RunLogged) -> None:
    if number := batch.run(payload.run_id):
        _label(batch, params, number, payload.params)
        for key in payload.removed_tags:
            batch.pending.remove(tags, (number, key))
        _label(batch, tags, number, payload.tags)


def _log_inputs(batch: Batch, _event: RecordedEvent, payload: v1.RunInputsLogged) -> None:
    if number := batch.run(payload.run_id):
        for one in payload.inputs:
            row = {"context": one.tags.get("context", ""), "input": one.SerializeToString(deterministic=True)}
            batch.pending.put(inputs, (number, one.dataset.name, one.dataset.digest), row)


def _log_outputs(batch: Batch, _event: RecordedEvent, payload: v1.RunOutputsLogged) -> None:
    if number := batch.run(payload.run_id):
        for one in payload.outputs:
            batch.pending.put(outputs, (number, one.model_id), {"step": one.step})


def _log_artifact(batch: Batch, _event: RecordedEvent, payload: v1.ArtifactLogged) -> None:
    if number := batch.run(payload.run_id):
        row = {"digest": payload.digest, "size_bytes": payload.size_bytes, "file_count": payload.file_count}
        batch.pending.put(artifacts, (number, payload.path), row)


def _create_model(batch: Batch, event: RecordedEvent, payload: v1.LoggedModelCreated) -> None:
    row = {
        "model_id": payload.model_id,
        "experiment": int(payload.experiment_id),
        "name": payload.name,
        "model_type": payload.model_type,
        "source_run_id": payload.source_run_id,
        "status": v1.LOGGED_MODEL_STATUS_PENDING,
        "digest": "",
        "size_bytes": 0,
        "file_count": 0,
        "created_at": event.time,
        "updated_at": event.time,
        "actor": event.metadata.actor,
        "deleted": False,
    }
    batch.add_model(payload.model_id, event.position)
    batch.pending.put(models, (event.position,), row)
    _label(batch, model_params, event.position, payload.params)
    _label(batch, model_tags, event.position, payload.tags)


def _of_model(values: Callable[[Payload], Mapping[str, object]]) -> Writer:
    """Writes some columns of the event's logged model."""

    def write(batch: Batch, event: RecordedEvent, payload: Payload) -> None:
        if number := batch.model(payload.model_id):
            batch.pending.change(models, (number,), {"updated_at": event.time, **values(payload)})

    return write


_touch_model = _of_model(lambda _: {})


def _stored(payload: v1.LoggedModelArtifactLogged) -> Mapping[str, object]:
    return {"digest": payload.digest, "size_bytes": payload.size_bytes, "file_count": payload.file_count}


def _log_model_params(batch: Batch, event: RecordedEvent, payload: v1.LoggedModelParamsLogged) -> None:
    if number := batch.model(payload.model_id):
        _label(batch, model_params, number, payload.params)
        _touch_model(batch, event, payload)


def _change_model_tags(batch: Batch, event: RecordedEvent, payload: v1.LoggedModelTagsChanged) -> None:
    if number := batch.model(payload.model_id):
        _change_labels(batch, model_tags, number, payload.changes)
        _touch_model(batch, event, payload)


def _label(batch: Batch, table: sa.Table, owner: int, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        batch.pending.put(table, (owner, key), {"value": value, "head": value[:HEAD_CHARACTERS]})


def _change_labels(batch: Batch, table: sa.Table, owner: int, changes: Iterable[v1.TagChange]) -> None:
    for change in changes:
        batch.pending.remove(table, (owner, change.key))
        if change.HasField("to_value"):
            _label(batch, table, owner, {change.key: change.to_value})


Writer = Callable[[Batch, RecordedEvent, Payload], None]

_WRITERS: Mapping[type[Message], Writer] = {
    v1.ExperimentCreated: _create_experiment,
    v1.ExperimentRenamed: _of_experiment(lambda payload: {"name": payload.to_name}),
    v1.ExperimentTagsChanged: _change_experiment_tags,
    v1.ExperimentDeleted: _of_experiment(lambda _: {"deleted": True}),
    v1.ExperimentRestored: _of_experiment(lambda _: {"deleted": False}),
    v1.RunStarted: _start,
    v1.RunRenamed: _of_run(lambda _, payload: {"name": payload.to_name}),
    v1.RunDescribed: _of_run(lambda _, payload: {"description": payload.description}),
    v1.RunLogged: _log,
    v1.RunInputsLogged: _log_inputs,
    v1.RunOutputsLogged: _log_outputs,
    v1.MetricsLogged: lambda batch, event, payload: batch.add_points(event.position, payload),
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
    v1.LoggedModelFinalized: _of_model(lambda payload: {"status": payload.status}),
    v1.LoggedModelDeleted: _of_model(lambda _: {"deleted": True}),
    v1.LoggedModelRestored: _of_model(lambda _: {"deleted": False}),
    v1.LogEpochBegan: lambda *_: None,
}
