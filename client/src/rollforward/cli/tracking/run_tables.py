"""Tables of runs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from rich.console import Group

import rollforward as rf
from rollforward.cli.output.tables import duration_text, enum_name, grid, labels, moment, number, pairs, short_id
from rollforward.cli.output.truncation import truncated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import RenderableType

    from rollforward import v1

NO_RUNS: Final = "no runs match"
# The maximum number of metrics in a line.
_LISTED_METRICS: Final = 100


def status_of(run: v1.Run) -> str:
    """Return a run's status."""
    return enum_name(rf.v1.RunStatus.DESCRIPTOR, run.status) or "-"


def runs_table(selected: Iterable[v1.Run], experiments: Mapping[str, str], *, wide: bool = False) -> RenderableType:
    """Return a table of runs; `experiments` are names by id."""
    runs = list(selected)
    nested = any(run.parent_run_id for run in runs)
    headers = ["RUN", "NAME~", "EXPERIMENT~", "STATUS", "STARTED", "DURATION>"]
    headers += ["PARENT"] * nested + ["PARAMS~", "METRICS~"]
    rows = []
    for run in runs:
        parent = [short_id(run.parent_run_id, wide=wide) or "-"] * nested
        row = [short_id(run.run_id, wide=wide), _name(run), experiments.get(run.experiment_id, ""), status_of(run)]
        rows.append([*row, moment(run.start_time), _duration(run), *parent, labels(run.params), latest(run)])
    return grid(headers, rows, empty=NO_RUNS)


def latest(run: v1.Run) -> str:
    """Return the last value of each metric, such as "accuracy=0.96 loss=0.1"."""
    keys = sorted(run.metrics)[:_LISTED_METRICS]
    return " ".join(f"{key}={number(run.metrics[key].last)}" for key in keys)


def run_details(run: v1.Run, experiment: str = "") -> RenderableType:
    """Return the details of one run."""
    sections = (
        (("KIND", "KEY", "VALUE"), _labels(run)),
        (("METRIC", "LAST>", "STEP>", "MIN>", "MAX>", "POINTS>"), _metrics(run)),
        (("DATASET", "DIGEST", "CONTEXT", "SOURCE"), _inputs(run)),
        (("LOGGED MODEL", "STEP>"), [(output.model_id, str(output.step)) for output in run.outputs]),
        (("ARTIFACT", "FILES>", "BYTES>", "DIGEST"), _artifacts(run)),
    )
    tables = [part for headers, rows in sections if rows for part in ("", grid(headers, truncated(rows)))]
    return Group(_details(run, experiment), *tables)


def _details(run: v1.Run, experiment: str) -> RenderableType:
    source = run.source
    commit = " ".join(part for part in (source.git_commit, source.git_branch, _dirty(source)) if part)
    experiment = f"{experiment} (id:{run.experiment_id})" if experiment else f"id:{run.experiment_id}"
    return pairs(
        {"run": run.run_id, "name": _name(run), "experiment": experiment, "status": status_of(run)}
        | {"actor": run.actor, "started": moment(run.start_time), "ended": moment(run.end_time)}
        | {"duration": _duration(run).strip("-")}
        | {"last heard": moment(run.last_heard) if run.HasField("last_heard") else ""}
        | {"description": run.description, "parent run": run.parent_run_id}
        | {"entry point": source.entry_point, "git commit": commit, "repository": source.git_url, "host": source.host}
    )


def _duration(run: v1.Run) -> str:
    if not (run.HasField("start_time") and run.HasField("end_time")):
        return "-"
    return duration_text(timedelta(microseconds=(run.end_time.ToNanoseconds() - run.start_time.ToNanoseconds()) / 1000))


def _dirty(source: v1.RunSource) -> str:
    return "dirty" if source.git_dirty else "dirty?" if source.git_dirty_unknown else ""


def _name(run: v1.Run) -> str:
    return run.name + (" (deleted)" if run.deleted else "")


def _labels(run: v1.Run) -> list[tuple[str, ...]]:
    params: list[tuple[str, ...]] = [("param", key, run.params[key]) for key in sorted(run.params)]
    return params + [("tag", key, run.tags[key]) for key in sorted(run.tags)]


def _metrics(run: v1.Run) -> list[tuple[str, ...]]:
    return [
        (
            key,
            number(summary.last),
            str(summary.last_step),
            number(summary.min),
            number(summary.max),
            str(summary.count),
        )
        for key, summary in sorted(run.metrics.items())
    ]


def _inputs(run: v1.Run) -> list[tuple[str, ...]]:
    return [
        (
            dataset_input.dataset.name,
            dataset_input.dataset.digest,
            dataset_input.tags.get("context", "") or labels(dataset_input.tags),
            dataset_input.dataset.source,
        )
        for dataset_input in run.inputs
    ]


def _artifacts(run: v1.Run) -> list[tuple[str, ...]]:
    return [
        (artifact.path or "/", str(artifact.file_count), str(artifact.size_bytes), artifact.digest)
        for artifact in run.artifacts
    ]
