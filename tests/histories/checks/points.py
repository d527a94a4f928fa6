"""The checks of tracking: every acknowledged point is read exactly once, in order, and a live run is not lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.histories.checks.rules import Rule, Violation
from tests.histories.recorded.recording import OK, REFUSED, UNKNOWN, History
from tests.histories.recorded.subjects import PointBatch, PointRead, Run


def check_points(history: History) -> Iterator[Violation]:
    """Check all runs and all reads of their series."""
    for batch in history.batches:
        if batch.outcome == REFUSED:
            yield Violation(Rule.REASON_FITS, f"{batch}")
    for read in history.point_reads:
        batches = [one for one in history.batches if (one.run_id, one.key) == (read.run_id, read.key)]
        by_sdk = any(run.by_sdk for run in history.runs if run.run_id == read.run_id)
        yield from _check_read(read, batches)
        if not by_sdk:
            yield from _check_batches_whole(read, batches)
    for run in history.runs:
        yield from _check_run(run, history)


def _check_read(read: PointRead, batches: Sequence[PointBatch]) -> Iterator[Violation]:
    about = f"{read.run_id} {read.key}, read of {read.called}"
    if any(after <= before for before, after in pairwise(read.steps)):
        yield Violation(Rule.POINTS_ONCE_IN_ORDER, f"{about}: {_irregular(read.steps)}")
    if any(step != value for step, value in zip(read.steps, read.values, strict=True)):
        yield Violation(Rule.POINTS_ARE_TRUE, f"{about}: a value that was not logged")
    steps = set(read.steps)
    for batch in batches:
        done = batch.outcome == OK and batch.returned is not None and batch.returned < read.called
        if done and (missing := set(range(batch.first, batch.first + batch.count)) - steps):
            yield Violation(Rule.POINTS_COMPLETE, f"{about} misses {sorted(missing)[:10]} of {batch}")


def _irregular(steps: Sequence[int]) -> list[tuple[int, int]]:
    return [(before, after) for before, after in pairwise(steps) if after <= before][:5]


def _check_batches_whole(read: PointRead, batches: Sequence[PointBatch]) -> Iterator[Violation]:
    """Check that every point belongs to a batch sent before, and that batches are complete or absent."""
    steps, known = set(read.steps), set[int]()
    for batch in batches:
        wanted = set(range(batch.first, batch.first + batch.count))
        if batch.called < read.returned:
            known |= wanted
        if batch.outcome == UNKNOWN and 0 < len(wanted & steps) < batch.count:
            yield Violation(Rule.POINTS_ATOMIC, f"{read.run_id} {read.key}: a part of {batch}")
    if foreign := steps - known:
        yield Violation(Rule.POINTS_ARE_TRUE, f"{read.run_id} {read.key}: {sorted(foreign)[:10]} were not logged")


def _check_run(run: Run, history: History) -> Iterator[Violation]:
    if run.status != "RUN_STATUS_RUNNING":
        yield Violation(Rule.RUN_IS_ALIVE, f"{run}")
    if run.by_sdk and not run.is_delivered:
        yield Violation(Rule.POINTS_COMPLETE, f"{run}: the journal could not be delivered")
    for read in history.point_reads:
        if read.is_last and read.run_id == run.run_id and run.counts.get(read.key, 0) != len(read.steps):
            yield Violation(Rule.POINTS_ARE_TRUE, f"{run}: {read.key} has {len(read.steps)} points")
