"""The guarantees in docs/watch.md for watches of runs, checked on two tracking processes over one log."""

from __future__ import annotations

import math
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from eventstore.event import RecordedEvent
from rollforward import v1
from rollforward._series import pack
from rollforward.errors import from_rpc_error
from rollforward.tracking.run_changes import apply_change
from tests.integration.up import SECONDS, new_id
from tests.integration.watch.tracking_processes import (
    Processes,
    Steps,
    Tracking,
    changes_of,
    event_payloads,
    processes,
    read,
    reason_at_end,
    snapshot,
    true_changes,
)

# The shared fixtures take long to set up.
pytestmark = [pytest.mark.xdist_group("watch-runs"), pytest.mark.busy]

NAN = math.nan


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Yield a log on which tracking processes can be started."""
    with processes(tmp_path_factory.mktemp("tracking")) as started:
        yield started


@pytest.fixture(scope="module")
def here(log: Processes) -> Tracking:
    """Return one process."""
    return log.start()


@pytest.fixture(scope="module")
def there(log: Processes) -> Tracking:
    """Return another process."""
    return log.start()


def points(key: str, *values: float, step: int = 0) -> v1.Series:
    """Return a series of consecutive steps."""
    steps = array("q", range(step, step + len(values)))
    return pack(key, steps, array("q", [1_000 + number for number in steps]), array("d", values))


@dataclass
class Recording:
    """The steps of watches while four programs wrote through two processes, and the events in the log."""

    begun: int
    ended: int
    experiment: str
    run_ids: set[str]
    events: list[RecordedEvent]
    from_the_start: list[Steps] = field(default_factory=list)
    with_snapshot: list[tuple[dict[str, v1.Run], int, Steps]] = field(default_factory=list)

    @property
    def truth(self) -> list[tuple[int, bytes]]:
        """Return the events of the runs of the experiment."""
        return true_changes(self.events, self.run_ids)


def log_runs(process: Tracking, experiment: str, number: int) -> tuple[list[str], int]:
    """Run two runs with every kind of event; return their ids, and the position of the last end."""
    ids, last = [], 0
    for turn in range(2):
        run_id = process.start(experiment, tags={"turn": str(turn)}, description="first")
        ids.append(run_id)
        for step in range(0, 20, 2):
            # Two events in one append.
            process.log(run_id, params={f"p{step}": str(number)}, series=[points("loss", step / 7, NAN, step=step)])
            process.log(run_id, series=[points("acc", 0.5, step=20 - step), points("all nan", NAN)])
        process.log(run_id, tags={"a": "1", "b": "2"})
        process.log(run_id, tags={"a": "3"}, removed_tags=["b", "never"])
        lineage = v1.LogLineageRequest(
            run_id=run_id,
            inputs=[v1.DatasetInput(dataset=v1.Dataset(name="d", digest=str(turn)), tags={"context": "training"})],
            outputs=[v1.ModelOutput(model_id=f"m-{new_id()}", step=turn)],
        )
        process.tracking.LogLineage(lineage, timeout=SECONDS)
        process.tracking.LogArtifact(
            v1.LogArtifactRequest(run_id=run_id, path="model", digest=process.upload()), timeout=SECONDS
        )
        for request in (
            v1.RenameRunRequest(run_id=run_id, new_name="renamed"),
            v1.DescribeRunRequest(run_id=run_id, description="second"),
            v1.DeleteRunRequest(run_id=run_id),
            v1.RestoreRunRequest(run_id=run_id),
        ):
            method = type(request).DESCRIPTOR.name.removesuffix("Request")
            getattr(process.tracking, method)(request, timeout=SECONDS)
        process.finish(run_id)
        process.tracking.ResumeRun(v1.ResumeRunRequest(run_id=run_id), timeout=SECONDS)
        last = process.finish(run_id)
    return ids, last


@pytest.fixture(scope="module")
def recording(log: Processes, here: Tracking, there: Tracking) -> Recording:
    """Record three programs that write runs of the experiment, and one of another."""
    experiment, other = here.new_experiment(), here.new_experiment()
    begun = here.head()
    early = [process.watch(experiment_id=experiment, from_position=begun) for process in (here, there)]
    late: list[tuple[Any, dict[str, v1.Run], int]] = []
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(log_runs, (here, there)[number % 2], experiment if number else other, number)
            for number in range(4)
        ]
        while not all(future.done() for future in jobs):
            watch = (here, there)[len(late) % 2].watch(experiment_id=experiment)
            late.append((watch, *snapshot(watch)))
    run_ids = {run_id for future in jobs[1:] for run_id in future.result()[0]}
    ended = max(future.result()[1] for future in jobs[1:])  # watches reach it by a bookmark at the latest
    result = Recording(begun, ended, experiment, run_ids, log.events(begun, ended))
    result.from_the_start = [read(watch, ended) for watch in early]
    for watch, runs, position in late[-10:]:
        result.with_snapshot.append((runs, position, read(watch, ended) if position < ended else []))
    for watch in [*early, *(watch for watch, _, _ in late)]:
        watch.cancel()
    return result


def test_run_changes_are_ordered(recording: Recording) -> None:
    for steps in recording.from_the_start:
        positions = [step.position for step in steps]
        assert positions == sorted(set(positions))
        places = [change.position for change in changes_of(steps)]
        assert places == sorted(places)


def test_run_changes_are_unique(recording: Recording) -> None:
    for steps in recording.from_the_start:
        assert set(Counter(change.position for change in changes_of(steps)).values()) == {1}


def test_no_run_change_is_missing(recording: Recording) -> None:
    assert len(recording.truth) > 200
    kinds = set()
    for steps in recording.from_the_start:
        assert event_payloads(changes_of(steps)) == recording.truth
        kinds |= {change.WhichOneof("event") for change in changes_of(steps)}
    # RunLost is covered by test_run_watch_reports_lost_run.
    assert kinds == {field.name for field in v1.RunChange.DESCRIPTOR.oneofs[0].fields} - {"lost"}


def test_all_run_watches_receive_same_changes(recording: Recording) -> None:
    first, second = [[step for step in steps if step.changes.changes] for steps in recording.from_the_start]
    assert first == second


def test_append_is_one_step_of_run_watch(recording: Recording) -> None:
    ends = {event.position: event.append_end for event in recording.events}
    sizes = Counter[int]()
    for step in recording.from_the_start[0]:
        changes = step.changes.changes
        assert {ends[change.position] for change in changes} <= {step.position}
        sizes[len(changes)] += 1
    assert sizes[1]
    assert sizes[2]


def test_run_changes_continue_after_snapshot_without_gap(recording: Recording, here: Tracking) -> None:
    assert any(changes_of(steps) for _, _, steps in recording.with_snapshot)
    now = {run_id: here.run(run_id) for run_id in recording.run_ids}
    for runs, position, steps in recording.with_snapshot:
        assert event_payloads(changes_of(steps)) == [change for change in recording.truth if change[0] > position]
        for change in changes_of(steps):
            apply_change(runs, change)
        assert runs.keys() == now.keys()
        for run_id, run in now.items():
            assert str(runs[run_id]) == str(run)  # as text, because NaN does not equal NaN


def test_run_watch_resumes_from_every_position(recording: Recording, here: Tracking, there: Tracking) -> None:
    ends = {event.position: event.append_end for event in recording.events}
    for number, position in enumerate(range(recording.begun, recording.ended, 7)):
        process = (here, there)[number % 2]
        watch = process.watch(experiment_id=recording.experiment, from_position=position)
        steps = read(watch, recording.ended)
        watch.cancel()
        # Also from the middle of an append: its changes are one step.
        due = [change for change in recording.truth if ends[change[0]] > position]
        assert event_payloads(changes_of(steps)) == due


def test_run_watch_filters_by_run_and_leaves_out_metrics(recording: Recording, there: Tracking) -> None:
    run_id = min(recording.run_ids)
    own = true_changes(recording.events, {run_id})
    watch = there.watch(run_id=run_id, from_position=recording.begun)
    whole = changes_of(read(watch, own[-1][0]))
    watch.cancel()
    assert event_payloads(whole) == own
    watch = there.watch(run_id=run_id, from_position=recording.begun, without_metrics=True)
    bare = changes_of(read(watch, own[-1][0]))
    watch.cancel()
    assert bare == [change for change in whole if not change.HasField("metrics")]
    assert len(bare) < len(whole)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "INVALID_WATCH"),
        ({"run_id": "a" * 32, "experiment_id": "1"}, "INVALID_WATCH"),
        ({"run_id": "a" * 32}, "RUN_NOT_FOUND"),
        ({"run_id": "a" * 32, "from_position": 0}, "RUN_NOT_FOUND"),
        ({"experiment_id": "99999"}, "EXPERIMENT_NOT_FOUND"),
        ({"experiment_id": "no number", "from_position": 0}, "EXPERIMENT_NOT_FOUND"),
        ({"experiment_id": "OURS", "from_position": 2**64 - 1}, "POSITION_AHEAD"),
        ({"experiment_id": "OURS", "from_position": 10_000_000}, "POSITION_AHEAD"),
    ],
)
def test_invalid_run_watch_is_rejected(
    fields: dict[str, Any], reason: str, recording: Recording, here: Tracking
) -> None:
    chosen = {key: recording.experiment if value == "OURS" else value for key, value in fields.items()}
    with pytest.raises(grpc.RpcError) as refused:
        next(here.watch(**chosen))
    assert from_rpc_error(refused.value).reason == reason


@pytest.mark.timeout(60)
def test_run_bookmark_is_safe_to_resume_from(here: Tracking, there: Tracking) -> None:
    experiment, other = here.new_experiment(), here.new_run()
    quiet = there.watch(experiment_id=experiment)
    runs, begun = snapshot(quiet)
    assert runs == {}
    received = threading.Event()

    def disturb() -> int:
        last = 0
        while not received.is_set():
            last = here.log(other, series=[points("loss", 1.0)])
        return last

    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(disturb)
        try:
            bookmark = next(quiet)
        finally:
            received.set()
    assert bookmark.WhichOneof("step") == "bookmark"
    assert begun < bookmark.position <= others.result()
    bookmark = next(step for step in quiet if step.position == others.result())
    assert bookmark.WhichOneof("step") == "bookmark"
    quiet.cancel()
    run_id = here.start(experiment)
    ended = here.finish(run_id)
    resumed = there.watch(experiment_id=experiment, from_position=bookmark.position)
    assert [change.WhichOneof("event") for change in changes_of(read(resumed, ended))] == ["started", "finished"]
    resumed.cancel()


def test_large_run_snapshot_is_split_into_steps(here: Tracking, there: Tracking) -> None:
    experiment = here.new_experiment()
    large = {f"p{number}": "x" * 6_000 for number in range(100)}  # 600 kB a run
    ids = [here.start(experiment) for _ in range(5)]
    for run_id in ids:
        here.log(run_id, params=large)
    here.tracking.DeleteRun(v1.DeleteRunRequest(run_id=ids[1]), timeout=SECONDS)
    watch = there.watch(experiment_id=experiment)
    steps = [next(watch)]
    while steps[-1].snapshot.continues:
        steps.append(next(watch))
    assert len(steps) > 1
    assert [step.position > 0 for step in steps] == [False] * (len(steps) - 1) + [True]
    # Oldest first, including the deleted run, which may be restored.
    assert [run.run_id for step in steps for run in step.snapshot.runs] == ids
    assert [run.deleted for step in steps for run in step.snapshot.runs] == [False, True, False, False, False]
    watch.cancel()


@pytest.mark.timeout(120)
def test_run_watch_without_reader_ends_and_resumes_without_gap(log: Processes, here: Tracking, there: Tracking) -> None:
    run_id = here.start(here.new_experiment())
    watch = there.watch(run_id=run_id)
    _, begun = snapshot(watch)
    # More than a process caches for slow watches: 120 times 400 kB.
    many = points("loss", *([0.5] * 17_000))
    ended = [here.log(run_id, series=[many]) for _ in range(120)][-1]
    there.run(run_id)  # the other process has received all of it
    steps, reason = reason_at_end(watch)
    assert reason == "WATCHER_TOO_SLOW"
    assert steps
    resumed = there.watch(run_id=run_id, from_position=steps[-1].position)
    later = read(resumed, ended)
    resumed.cancel()
    assert changes_of(later)
    assert event_payloads(changes_of([*steps, *later])) == true_changes(log.events(begun, ended), {run_id})
