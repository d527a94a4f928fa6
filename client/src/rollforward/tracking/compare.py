"""Comparisons of runs: their differences, and their metrics side by side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward.errors import InvalidRequest, NotFound
from rollforward.references import RunLike, run_id_of
from rollforward.tracking.stored_runs import StoredRuns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_RUN_ID: Final = re.compile(r"[0-9a-f]{32}")
_IDS_PER_QUESTION: Final = 200


class Compared(NamedTuple):
    """A parameter or an attribute of several runs, side by side."""

    key: str
    values: tuple[str | None, ...]
    """A value for each run; None if the run has none."""

    @property
    def differs(self) -> bool:
        """Whether the runs have different values."""
        return len(set(self.values)) > 1


class ComparedMetric(NamedTuple):
    """A metric of several runs, side by side."""

    key: str
    summaries: tuple[v1.MetricSummary | None, ...]
    """A summary for each run: `last`, `min`, `max`, `count` and more; None if the run lacks the metric."""


class RunsComparison(NamedTuple):
    """Runs side by side: a row for each key, a column for each run."""

    runs: tuple[v1.Run, ...]
    attributes: tuple[Compared, ...]
    params: tuple[Compared, ...]
    metrics: tuple[ComparedMetric, ...]


class RunComparer(StoredRuns):
    """Comparisons of runs."""

    def compare(self, runs: Iterable[RunLike], *, with_equal: bool = False) -> RunsComparison:
        """Compare runs: their attributes, parameters and metric summaries.

        Only parameters and attributes that differ are returned, unless `with_equal`. The name, status, start and
        duration are always returned; the other attributes are experiment, actor, parent, entry point and git commit.
        Times are RFC 3339 in UTC, durations seconds.

        Raises:
            InvalidRequest: INVALID_RUN_ID.
            NotFound: RUN_NOT_FOUND.
            Unavailable: No result within the timeout.
        """
        ids = [run_id_of(run) for run in runs]
        known = _fetch(self._connection, list(dict.fromkeys(ids)))
        return side_by_side([known[run_id] for run_id in ids], with_equal=with_equal)


def side_by_side(runs: Sequence[v1.Run], *, with_equal: bool = False) -> RunsComparison:
    """Compare runs that are loaded already; see compare_runs."""
    attributes = _compared([_attributes(run) for run in runs])
    params = _compared([run.params for run in runs])
    keys = sorted({key for run in runs for key in run.metrics})
    return RunsComparison(
        runs=tuple(runs),
        attributes=tuple(one for one in attributes if with_equal or one.differs or one.key in _ALWAYS),
        params=tuple(sorted(one for one in params if with_equal or one.differs)),
        metrics=tuple(ComparedMetric(key, tuple(run.metrics.get(key) for run in runs)) for key in keys),
    )


_ALWAYS: Final = frozenset({"name", "status", "started_at", "duration_seconds"})


def _attributes(run: v1.Run) -> dict[str, str]:
    attributes = {
        "name": run.name,
        "status": v1.RunStatus.Name(run.status).removeprefix("RUN_STATUS_").lower(),
        "started_at": run.start_time.ToJsonString() if run.HasField("start_time") else "",
        "duration_seconds": _duration(run),
        "experiment": run.experiment_id,
        "actor": run.actor,
        "parent": run.parent_run_id,
        "entry_point": run.source.entry_point,
        "git_commit": run.source.git_commit,
    }
    return {key: value for key, value in attributes.items() if value}


def _duration(run: v1.Run) -> str:
    if not (run.HasField("start_time") and run.HasField("end_time")):
        return ""
    return f"{(run.end_time.ToNanoseconds() - run.start_time.ToNanoseconds()) / 1e9:.3f}"


def _compared(sides: Sequence[Mapping[str, str]]) -> list[Compared]:
    keys = dict.fromkeys(key for side in sides for key in side)
    return [Compared(key, tuple(side.get(key) for side in sides)) for key in keys]


def _fetch(connection: Connection, ids: Sequence[str]) -> dict[str, v1.Run]:
    for run_id in ids:
        if not _RUN_ID.fullmatch(run_id):
            message = f"invalid run id {run_id[:80]!r}: expected 32 lower-case hex digits"
            raise InvalidRequest("INVALID_RUN_ID", message)
    known: dict[str, v1.Run] = {}
    for start in range(0, len(ids), _IDS_PER_QUESTION):
        named = ", ".join(f"'{run_id}'" for run_id in ids[start : start + _IDS_PER_QUESTION])
        runs = StoredRuns(connection).search(filter=f"attributes.run_id IN ({named})", lifecycle="all")
        known.update((run.run_id, run) for run in runs)
    for run_id in ids:
        if run_id not in known:
            raise NotFound("RUN_NOT_FOUND", f"run not found: {run_id}", {"run_id": run_id})
    return known


compare_runs = default_client_function("compare_runs", RunComparer, RunComparer.compare)
