"""How runs look in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group

import rollforward as rf
from rollforward.cli.output import grid, labels, moment, number, pairs, word
from rollforward.cli.shortening import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from rollforward import v1

# More would not be read in a line.
_LISTED_METRICS: Final = 100


def status_of(run: v1.Run) -> str:
    """Where a run stands, as a word."""
    return word(rf.v1.RunStatus.Name(run.status), "RUN_STATUS_")


def runs_table(found: Iterable[v1.Run]) -> RenderableType:
    """A line for each run."""
    rows = [(run.run_id, _name(run), status_of(run), moment(run.start_time), latest(run)) for run in found]
    return grid(("RUN", "NAME", "STATUS", "STARTED", "METRICS"), rows)


def latest(run: v1.Run) -> str:
    """The last value of each metric: "accuracy=0.96 loss=0.1"."""
    keys = sorted(run.metrics)[:_LISTED_METRICS]
    return " ".join(f"{key}={number(run.metrics[key].last)}" for key in keys)


def run_facts(run: v1.Run) -> RenderableType:
    """All about one run."""
    sections = (
        (("KIND", "KEY", "VALUE"), _labels(run)),
        (("METRIC", "LAST>", "STEP>", "MIN>", "MAX>", "POINTS>"), _metrics(run)),
        (("DATASET", "DIGEST", "CONTEXT", "SOURCE"), _inputs(run)),
        (("LOGGED MODEL", "STEP>"), [(one.model_id, str(one.step)) for one in run.outputs]),
        (("ARTIFACT", "FILES>", "BYTES>", "DIGEST"), _artifacts(run)),
    )
    tables = [part for headers, rows in sections if rows for part in ("", grid(headers, shortened(rows)))]
    return Group(_facts(run), *tables)


def _facts(run: v1.Run) -> RenderableType:
    source = run.source
    commit = " ".join(part for part in (source.git_commit, source.git_branch, "dirty" * source.git_dirty) if part)
    return pairs(
        {"run": run.run_id, "name": _name(run), "experiment": f"id:{run.experiment_id}", "status": status_of(run)}
        | {"by": run.actor, "started": moment(run.start_time), "ended": moment(run.end_time)}
        | {"last heard": moment(run.last_heard) if run.HasField("last_heard") else ""}
        | {"description": run.description, "part of": run.parent_run_id}
        | {"code": source.entry_point, "commit": commit, "repository": source.git_url, "on": source.host}
    )


def _name(run: v1.Run) -> str:
    return run.name + (" (deleted)" if run.deleted else "")


def _labels(run: v1.Run) -> list[tuple[str, ...]]:
    params: list[tuple[str, ...]] = [("param", key, run.params[key]) for key in sorted(run.params)]
    return params + [("tag", key, run.tags[key]) for key in sorted(run.tags)]


def _metrics(run: v1.Run) -> list[tuple[str, ...]]:
    return [
        (key, number(one.last), str(one.last_step), number(one.min), number(one.max), str(one.count))
        for key, one in sorted(run.metrics.items())
    ]


def _inputs(run: v1.Run) -> list[tuple[str, ...]]:
    return [
        (one.dataset.name, one.dataset.digest, one.tags.get("context", "") or labels(one.tags), one.dataset.source)
        for one in run.inputs
    ]


def _artifacts(run: v1.Run) -> list[tuple[str, ...]]:
    return [(one.path or "/", str(one.file_count), str(one.size_bytes), one.digest) for one in run.artifacts]
