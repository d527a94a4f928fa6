"""The rows of tracking: what each event of the log means for them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from eventstore import RecordedEvent
from rollforward import v1
from services.timestamps import nanoseconds
from services.tracking.events import ExperimentChange, LoggedModelChange, RunChange, TrackingEvent, tracking_event
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


class TrackingProjection:
    """The projection of tracking."""

    name = "tracking"
    version = 3
    tables = tables

    def __init__(self) -> None:
        self._memories: WeakKeyDictionary[sa.Engine, Memory] = WeakKeyDictionary()
        self._finding = threading.Lock()

    def apply(self, connection: sa.Connection, events: Sequence[RecordedEvent]) -> None:
        """Write what events mean."""
        memory = self._memory(connection, events[0].position)
        batch = Batch(connection, memory, events)
        for event in events:
            # Most events are points: they need no search for their type.
            if isinstance(event.data, v1.MetricsLogged):
                batch.add_points(event.position, event.data)
            else:
                _apply(batch, event, tracking_event(event.data))
        batch.write()
        memory.position = events[-1].position

    def _memory(self, connection: sa.Connection, position: int) -> Memory:
        """Return the cache of these rows, if they are at the position before `position`; else an empty one.

        Each generation has an engine of its own. What a transaction did that was rolled back, or another process, is
        found by the position: the rows at a position are always the same.
        """
        with self._finding:
            memory = self._memories.get(connection.engine)
            if memory is None or memory.position + 1 != position:
                memory = self._memories[connection.engine] = Memory()
        memory.leave()
        return memory


def _apply(batch: Batch, event: RecordedEvent, payload: TrackingEvent) -> None:
    """Write what an event means. Changes of runs come first: after points they are the most frequent."""
    if isinstance(payload, RunChange):
        if number := batch.run(payload.run_id):
            _change_run(batch, event, number, payload)
    elif isinstance(payload, LoggedModelChange):
        if number := batch.model(payload.model_id):
            changed = _change_model(batch, number, payload)
            batch.pending.change(models, (number,), {"updated_at": event.time, **changed})
    elif isinstance(payload, ExperimentChange):
        number = int(payload.experiment_id)
        changed = _change_experiment(batch, number, payload)
        batch.pending.change(experiments, (number,), {"updated_at": event.time, **changed})
    else:
        _create(batch, event, payload)


def _create(
    batch: Batch,
    event: RecordedEvent,
    payload: v1.MetricsLogged | v1.RunStarted | v1.ExperimentCreated | v1.LoggedModelCreated | v1.LogEpochBegan,
) -> None:
    match payload:
        case v1.MetricsLogged():
            batch.add_points(event.position, payload)
        case v1.RunStarted():
            _start(batch, event, payload)
        case v1.ExperimentCreated():
            _create_experiment(batch, event, payload)
        case v1.LoggedModelCreated():
            _create_model(batch, event, payload)
        case v1.LogEpochBegan():
            pass
        case _:
            assert_never(payload)


def _change_run(batch: Batch, event: RecordedEvent, number: int, payload: RunChange) -> None:  # noqa: C901, PLR0912
    match payload:
        case v1.RunLogged():
            _log(batch, number, payload)
        case v1.RunFinished():
            batch.pending.change(runs, (number,), _finished(event, payload))
        case v1.ArtifactLogged():
            _log_artifact(batch, number, payload)
        case v1.RunInputsLogged():
            _log_inputs(batch, number, payload)
        case v1.RunOutputsLogged():
            _log_outputs(batch, number, payload)
        case v1.RunRenamed():
            batch.pending.change(runs, (number,), {"name": payload.to_name})
        case v1.RunDescribed():
            batch.pending.change(runs, (number,), {"description": payload.description})
        case v1.RunResumed():
            row = {"status": v1.RUN_STATUS_RUNNING, "end_time": None, "last_heard": None}
            batch.pending.change(runs, (number,), row)
        case v1.RunLost():
            lost = {"status": v1.RUN_STATUS_LOST, "last_heard": nanoseconds(payload.last_heard)}
            batch.pending.change(runs, (number,), lost)
        case v1.RunDeleted():
            batch.pending.change(runs, (number,), {"deleted": True})
        case v1.RunRestored():
            batch.pending.change(runs, (number,), {"deleted": False})
        case _:
            assert_never(payload)


def _change_model(batch: Batch, number: int, payload: LoggedModelChange) -> Mapping[str, object]:
    """Write what an event means for a logged model, and return the columns that it changes."""
    match payload:
        case v1.LoggedModelParamsLogged():
            _label(batch, model_params, number, payload.params)
            return {}
        case v1.LoggedModelTagsChanged():
            _change_labels(batch, model_tags, number, payload.changes)
            return {}
        case v1.LoggedModelArtifactLogged():
            return {"digest": payload.digest, "size_bytes": payload.size_bytes, "file_count": payload.file_count}
        case v1.LoggedModelFinalized():
            return {"status": payload.status}
        case v1.LoggedModelDeleted():
            return {"deleted": True}
        case v1.LoggedModelRestored():
            return {"deleted": False}
        case _:
            assert_never(payload)


def _change_experiment(batch: Batch, number: int, payload: ExperimentChange) -> Mapping[str, object]:
    """Write what an event means for an experiment, and return the columns that it changes."""
    match payload:
        case v1.ExperimentRenamed():
            return {"name": payload.to_name}
        case v1.ExperimentTagsChanged():
            _change_labels(batch, experiment_tags, number, payload.changes)
            return {}
        case v1.ExperimentDeleted():
            return {"deleted": True}
        case v1.ExperimentRestored():
            return {"deleted": False}
        case _:
            assert_never(payload)


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


def _finished(event: RecordedEvent, payload: v1.RunFinished) -> Mapping[str, object]:
    end_time = nanoseconds(payload.end_time) if payload.HasField("end_time") else event.time
    return {"status": payload.status, "end_time": end_time, "last_heard": None}


def _log(batch: Batch, number: int, payload: v1.RunLogged) -> None:
    _label(batch, params, number, payload.params)
    for key in payload.removed_tags:
        batch.pending.remove(tags, (number, key))
    _label(batch, tags, number, payload.tags)


def _log_inputs(batch: Batch, number: int, payload: v1.RunInputsLogged) -> None:
    for entry in payload.inputs:
        row = {"context": entry.tags.get("context", ""), "input": entry.SerializeToString(deterministic=True)}
        batch.pending.put(inputs, (number, entry.dataset.name, entry.dataset.digest), row)


def _log_outputs(batch: Batch, number: int, payload: v1.RunOutputsLogged) -> None:
    for output in payload.outputs:
        batch.pending.put(outputs, (number, output.model_id), {"step": output.step})


def _log_artifact(batch: Batch, number: int, payload: v1.ArtifactLogged) -> None:
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


def _label(batch: Batch, table: sa.Table, owner: int, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        batch.pending.put(table, (owner, key), {"value": value, "head": value[:HEAD_CHARACTERS]})


def _change_labels(batch: Batch, table: sa.Table, owner: int, changes: Iterable[v1.TagChange]) -> None:
    for change in changes:
        batch.pending.remove(table, (owner, change.key))
        if change.HasField("to_value"):
            _label(batch, table, owner, {change.key: change.to_value})
