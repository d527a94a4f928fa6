"""The expected state of tracking, computed by a plain and slow loop over its events."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from functools import cmp_to_key
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from eventstore.event import RecordedEvent
from rollforward import v1
from services.series.columns import Points, pack, unpack
from services.timestamps import timestamp

Point = tuple[int, int, float]
About = tuple[str, str, str, str, str]


def packed(key: str, points: Sequence[Point]) -> v1.Series:
    """Return points as they are logged."""
    steps, times, values = zip(*points, strict=True)
    return pack(key, Points(np.array(steps, np.int64), np.array(times, np.int64), np.array(values, float)))


def unpacked(series: v1.Series) -> list[Point]:
    """Return points as they were logged."""
    points = unpack(series)
    return list(zip(points.steps.tolist(), points.timestamps.tolist(), points.values.tolist(), strict=True))


def text(points: Iterable[Point]) -> list[str]:
    """Return points in a form in which NaN is equal to NaN."""
    return [repr(point) for point in points]


def latest(points: Sequence[Point]) -> Point:
    """Return the point with the highest step, then time, then value, NaN being the lowest."""
    return max(points, key=cmp_to_key(_order))


def _order(one: Point, other: Point) -> int:
    keys = [
        (step, time, not math.isnan(value), 0.0 if math.isnan(value) else value) for step, time, value in (one, other)
    ]
    return (keys[0] > keys[1]) - (keys[0] < keys[1])


class Fold:
    """Experiments, runs and logged models by id, as they are answered, and all points of runs' metrics."""

    def __init__(self) -> None:
        self.experiments: dict[str, v1.Experiment] = {}
        self.runs: dict[str, v1.Run] = {}
        self.models: dict[str, v1.LoggedModel] = {}
        self.points: dict[tuple[str, str], list[Point]] = {}
        self.about: dict[About, list[Point]] = {}

    def add(self, event: RecordedEvent) -> None:
        """Apply an event; ignore one of a run or model that does not exist."""
        payload: Any = event.data
        for known, name in ((self.runs, "run_id"), (self.models, "model_id"), (self.experiments, "experiment_id")):
            if hasattr(payload, name) and (begins := _BEGINNINGS.get(type(payload))):
                begins(self, event, payload)
                return
            if hasattr(payload, name):
                if view := known.get(getattr(payload, name)):
                    _CHANGES[type(payload)](self, view, event, payload)
                return

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run."""
        view = v1.Run()
        view.CopyFrom(self.runs[run_id])
        view.deleted |= self.experiments[view.experiment_id].deleted
        for (of, key), points in self.points.items():
            if of == run_id:
                view.metrics[key].CopyFrom(_summary(points))
        return shown(view)

    def model(self, model_id: str) -> dict[str, Any]:
        """Return a logged model."""
        view = v1.LoggedModel()
        view.CopyFrom(self.models[model_id])
        view.deleted |= self.experiments[view.experiment_id].deleted
        for (of, key, run_id, name, digest), points in self.about.items():
            if of == model_id:
                step, time, value = latest(points)
                which = {"run_id": run_id, "dataset_name": name, "dataset_digest": digest}
                view.metrics.add(key=key, value=value + 0.0, step=step, timestamp=time, **which)
        return shown(view)


def shown(view: Message) -> dict[str, Any]:
    """Return a view in a form in which NaN is equal to NaN and unordered lists are sorted."""
    found = MessageToDict(view, preserving_proto_field_name=True)
    for name in ("artifacts", "inputs", "outputs"):
        if name in found:
            found[name].sort(key=repr)
    if isinstance(found.get("metrics"), list):
        found["metrics"].sort(key=repr)
    return found


def _summary(points: Sequence[Point]) -> v1.MetricSummary:
    """Return the summary of points, with 0.0 for -0.0 as in the rows."""
    step, time, value = latest(points)
    numbers = [point[2] + 0.0 for point in points if not math.isnan(point[2])] or [math.nan]
    return v1.MetricSummary(
        last=value + 0.0, last_step=step, last_timestamp=time, min=min(numbers), max=max(numbers), count=len(points)
    )


def _create_experiment(fold: Fold, event: RecordedEvent, payload: v1.ExperimentCreated) -> None:
    fold.experiments[payload.experiment_id] = v1.Experiment(
        experiment_id=payload.experiment_id,
        name=payload.name,
        tags=payload.tags,
        created_at=timestamp(event.time),
        updated_at=timestamp(event.time),
        actor=event.metadata.actor,
    )


def _start(fold: Fold, event: RecordedEvent, payload: v1.RunStarted) -> None:
    fold.runs[payload.run_id] = v1.Run(
        run_id=payload.run_id,
        experiment_id=payload.experiment_id,
        name=payload.name,
        status=v1.RUN_STATUS_SCHEDULED if payload.scheduled else v1.RUN_STATUS_RUNNING,
        start_time=payload.start_time if payload.HasField("start_time") else timestamp(event.time),
        tags=payload.tags,
        actor=event.metadata.actor,
        description=payload.description,
        parent_run_id=payload.parent_run_id,
        source=payload.source if payload.HasField("source") else None,
    )


def _create_model(fold: Fold, event: RecordedEvent, payload: v1.LoggedModelCreated) -> None:
    fold.models[payload.model_id] = v1.LoggedModel(
        model_id=payload.model_id,
        experiment_id=payload.experiment_id,
        name=payload.name,
        model_type=payload.model_type,
        source_run_id=payload.source_run_id,
        status=v1.LOGGED_MODEL_STATUS_PENDING,
        params=payload.params,
        tags=payload.tags,
        created_at=timestamp(event.time),
        updated_at=timestamp(event.time),
        actor=event.metadata.actor,
    )


def _log(_: Fold, run: v1.Run, __: RecordedEvent, payload: v1.RunLogged) -> None:
    run.params.update(payload.params)
    for key in payload.removed_tags:
        run.tags.pop(key, None)
    run.tags.update(payload.tags)


def _log_metrics(fold: Fold, _: v1.Run, __: RecordedEvent, payload: v1.MetricsLogged) -> None:
    for series in payload.series:
        points = unpacked(series)
        fold.points.setdefault((payload.run_id, series.key), []).extend(points)
        if series.model_id in fold.models:
            about = (series.model_id, series.key, payload.run_id, series.dataset_name, series.dataset_digest)
            fold.about.setdefault(about, []).extend(points)


def _log_inputs(_: Fold, run: v1.Run, __: RecordedEvent, payload: v1.RunInputsLogged) -> None:
    merged = {(one.dataset.name, one.dataset.digest): one for one in (*run.inputs, *payload.inputs)}
    kept = [v1.DatasetInput.FromString(one.SerializeToString()) for one in merged.values()]
    del run.inputs[:]
    run.inputs.extend(kept)


def _log_outputs(_: Fold, run: v1.Run, __: RecordedEvent, payload: v1.RunOutputsLogged) -> None:
    merged = {one.model_id: one.step for one in (*run.outputs, *payload.outputs)}
    del run.outputs[:]
    run.outputs.extend(v1.ModelOutput(model_id=model_id, step=step) for model_id, step in merged.items())


def _log_artifact(_: Fold, run: v1.Run, __: RecordedEvent, payload: v1.ArtifactLogged) -> None:
    kept = [one for one in map(_copied, run.artifacts) if one.path != payload.path]
    del run.artifacts[:]
    run.artifacts.extend(kept)
    run.artifacts.add(
        path=payload.path, digest=payload.digest, size_bytes=payload.size_bytes, file_count=payload.file_count
    )


def _copied(artifact: v1.RunArtifact) -> v1.RunArtifact:
    return v1.RunArtifact.FromString(artifact.SerializeToString())


def _finish(_: Fold, run: v1.Run, event: RecordedEvent, payload: v1.RunFinished) -> None:
    run.status = payload.status
    run.end_time.CopyFrom(payload.end_time if payload.HasField("end_time") else timestamp(event.time))
    run.ClearField("last_heard")


def _resume(_: Fold, run: v1.Run, __: RecordedEvent, ___: v1.RunResumed) -> None:
    run.status = v1.RUN_STATUS_RUNNING
    run.ClearField("end_time")
    run.ClearField("last_heard")


def _lose(_: Fold, run: v1.Run, __: RecordedEvent, payload: v1.RunLost) -> None:
    run.status = v1.RUN_STATUS_LOST
    run.last_heard.CopyFrom(payload.last_heard)


def _retag(tags: MutableMapping[str, str], changes: Iterable[v1.TagChange]) -> None:
    for change in changes:
        tags.pop(change.key, None)
        if change.HasField("to_value"):
            tags[change.key] = change.to_value


def _store(_: Fold, model: v1.LoggedModel, __: RecordedEvent, payload: v1.LoggedModelArtifactLogged) -> None:
    model.digest, model.size_bytes, model.file_count = payload.digest, payload.size_bytes, payload.file_count


Change = Callable[[Fold, Any, RecordedEvent, Any], None]


def _set(**fields: str | bool) -> Change:
    """Return a change that sets fields of a view to a value, or to a named field of the event."""

    def change(_: Fold, view: Any, __: RecordedEvent, payload: Any) -> None:
        for name, value in fields.items():
            setattr(view, name, getattr(payload, value) if isinstance(value, str) else value)

    return change


def _touching(change: Change) -> Change:
    def both(fold: Fold, view: Any, event: RecordedEvent, payload: Any) -> None:
        change(fold, view, event, payload)
        view.updated_at.CopyFrom(timestamp(event.time))

    return both


def _change_tags(_: Fold, view: Any, __: RecordedEvent, payload: Any) -> None:
    _retag(view.tags, payload.changes)


def _add_params(_: Fold, view: Any, __: RecordedEvent, payload: Any) -> None:
    view.params.update(payload.params)


_BEGINNINGS: Mapping[type[Message], Callable[[Fold, RecordedEvent, Any], None]] = {
    v1.ExperimentCreated: _create_experiment,
    v1.RunStarted: _start,
    v1.LoggedModelCreated: _create_model,
}

_CHANGES: Mapping[type[Message], Change] = {
    v1.ExperimentRenamed: _touching(_set(name="to_name")),
    v1.ExperimentTagsChanged: _touching(_change_tags),
    v1.ExperimentDeleted: _touching(_set(deleted=True)),
    v1.ExperimentRestored: _touching(_set(deleted=False)),
    v1.RunRenamed: _set(name="to_name"),
    v1.RunDescribed: _set(description="description"),
    v1.RunLogged: _log,
    v1.RunInputsLogged: _log_inputs,
    v1.RunOutputsLogged: _log_outputs,
    v1.MetricsLogged: _log_metrics,
    v1.ArtifactLogged: _log_artifact,
    v1.RunFinished: _finish,
    v1.RunResumed: _resume,
    v1.RunLost: _lose,
    v1.RunDeleted: _set(deleted=True),
    v1.RunRestored: _set(deleted=False),
    v1.LoggedModelParamsLogged: _touching(_add_params),
    v1.LoggedModelTagsChanged: _touching(_change_tags),
    v1.LoggedModelArtifactLogged: _touching(_store),
    v1.LoggedModelFinalized: _touching(_set(status="status")),
    v1.LoggedModelDeleted: _touching(_set(deleted=True)),
    v1.LoggedModelRestored: _touching(_set(deleted=False)),
}
