"""Application of a watch's changes to runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from rollforward import v1
from rollforward._series import MetricHistory, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping


def apply_change(runs: MutableMapping[str, v1.Run], change: v1.RunChange) -> None:
    """Apply a change to its run in `runs`, which then is as the service would return it.

    A start adds the run; other changes of unknown runs are ignored.
    """
    kind = change.WhichOneof("event")
    if kind == "started":
        runs[change.run_id] = v1.Run()
    run = runs.get(change.run_id)
    if run is not None and kind is not None:  # None: a newer server sends an event that this client does not know
        _CHANGES[kind](run, getattr(change, kind), change)


def points_of(change: v1.RunChange) -> dict[str, MetricHistory]:
    """Return the metric points that a change logged, by name; empty for another kind of change."""
    series = change.metrics.series
    keys = dict.fromkeys(one.key for one in series)
    return {key: unpack(one for one in series if one.key == key) for key in keys}


def _start(run: v1.Run, event: v1.RunStarted, change: v1.RunChange) -> None:
    run.run_id, run.experiment_id, run.name = event.run_id, event.experiment_id, event.name
    run.status = v1.RUN_STATUS_SCHEDULED if event.scheduled else v1.RUN_STATUS_RUNNING
    run.start_time.CopyFrom(event.start_time if event.HasField("start_time") else change.time)
    run.tags.update(event.tags)
    run.actor, run.description, run.parent_run_id = change.actor, event.description, event.parent_run_id
    if event.HasField("source"):
        run.source.CopyFrom(event.source)


def _log(run: v1.Run, event: v1.RunLogged, _change: v1.RunChange) -> None:
    run.params.update(event.params)
    for key in event.removed_tags:
        run.tags.pop(key, None)
    run.tags.update(event.tags)


def _measure(run: v1.Run, _event: v1.MetricsLogged, change: v1.RunChange) -> None:
    for key, points in points_of(change).items():
        if points.values:
            _summarize(run, key, points)


def _summarize(run: v1.Run, key: str, points: MetricHistory) -> None:
    fresh = key not in run.metrics
    summary = run.metrics[key]
    places = zip(points.steps, points.timestamps, points.values, strict=True)
    latest = max(places, key=_place)
    if fresh or _place(latest) > _place((summary.last_step, summary.last_timestamp, summary.last)):
        summary.last_step, summary.last_timestamp, summary.last = latest
    known = [value for value in points.values if not math.isnan(value)]
    if not fresh and not math.isnan(summary.min):
        known += [summary.min, summary.max]
    # NaN only if there is no number.
    summary.min, summary.max = (min(known), max(known)) if known else (math.nan, math.nan)
    summary.count += len(points.values)


def _place(point: tuple[int, int, float]) -> tuple[int, int, bool, float]:
    step, timestamp, value = point
    missing = math.isnan(value)
    return step, timestamp, not missing, 0.0 if missing else value


def _add_artifact(run: v1.Run, event: v1.ArtifactLogged, _change: v1.RunChange) -> None:
    others = [one for one in run.artifacts if one.path != event.path]
    new = v1.RunArtifact(path=event.path, digest=event.digest, size_bytes=event.size_bytes, file_count=event.file_count)
    del run.artifacts[:]
    run.artifacts.extend(sorted([*others, new], key=lambda one: one.path.encode()))


def _add_inputs(run: v1.Run, event: v1.RunInputsLogged, _change: v1.RunChange) -> None:
    inputs = {(one.dataset.name, one.dataset.digest): one for one in [*run.inputs, *event.inputs]}
    del run.inputs[:]
    run.inputs.extend(inputs[key] for key in sorted(inputs, key=lambda key: (key[0].encode(), key[1].encode())))


def _add_outputs(run: v1.Run, event: v1.RunOutputsLogged, _change: v1.RunChange) -> None:
    outputs = {one.model_id: one for one in [*run.outputs, *event.outputs]}
    del run.outputs[:]
    run.outputs.extend(sorted(outputs.values(), key=lambda one: (one.step, one.model_id)))


def _rename(run: v1.Run, event: v1.RunRenamed, _change: v1.RunChange) -> None:
    run.name = event.to_name


def _describe(run: v1.Run, event: v1.RunDescribed, _change: v1.RunChange) -> None:
    run.description = event.description


def _finish(run: v1.Run, event: v1.RunFinished, change: v1.RunChange) -> None:
    run.status = event.status
    run.end_time.CopyFrom(event.end_time if event.HasField("end_time") else change.time)
    run.ClearField("last_heard")


def _resume(run: v1.Run, _event: v1.RunResumed, _change: v1.RunChange) -> None:
    run.status = v1.RUN_STATUS_RUNNING
    run.ClearField("end_time")
    run.ClearField("last_heard")


def _lose(run: v1.Run, event: v1.RunLost, _change: v1.RunChange) -> None:
    run.status = v1.RUN_STATUS_LOST
    run.last_heard.CopyFrom(event.last_heard)


def _delete(run: v1.Run, _event: v1.RunDeleted, _change: v1.RunChange) -> None:
    run.deleted = True


def _restore(run: v1.Run, _event: v1.RunRestored, _change: v1.RunChange) -> None:
    run.deleted = False


_CHANGES: Final[Mapping[str, Callable[[v1.Run, Any, v1.RunChange], None]]] = {
    "started": _start,
    "logged": _log,
    "metrics": _measure,
    "artifact": _add_artifact,
    "inputs": _add_inputs,
    "outputs": _add_outputs,
    "renamed": _rename,
    "described": _describe,
    "finished": _finish,
    "resumed": _resume,
    "lost": _lose,
    "deleted": _delete,
    "restored": _restore,
}
