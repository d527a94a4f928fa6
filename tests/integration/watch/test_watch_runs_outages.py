"""The guarantees in docs/watch.md for watches of runs during outages, and how the SDK resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rollforward as rf
from rollforward import v1
from tests.e2e.processes import Services
from tests.integration.up import SECONDS, new_id, up
from tests.integration.watch.test_watch_runs import points
from tests.integration.watch.tracking_processes import (
    changes_of,
    event_payloads,
    processes,
    read,
    reason_at_end,
    snapshot,
    true_changes,
)

pytestmark = pytest.mark.busy

STEPS = 60

Outage = Callable[[Services], object]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Yield all services."""
    with Services(tmp_path / "data") as running:
        yield running


def killed(services: Services) -> None:
    """Kill the services and NATS, and start them again."""
    services.kill()
    services.start()


def stopped(services: Services) -> None:
    """Stop the services gracefully, and start them again."""
    assert services.stop() == 0
    services.start()


def nats_killed(services: Services) -> None:
    """Kill NATS alone, which the services restart."""
    services.kill_nats()


def log_run(client: rf.Client, experiment_id: str) -> str:
    """Log to a run step by step, each retried until it is answered; return its id."""
    run_id = new_id()
    client.connection.call(
        client.connection.tracking.StartRun, v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id, name="job")
    )
    for step in range(STEPS):
        batch = v1.LogBatchRequest(run_id=run_id, series=[points("loss", step / 3, step=step)], request_id=new_id())
        client.connection.call(client.connection.tracking.LogBatch, batch)
    client.runs.set_tags(run_id, {"done": "yes"})
    ending = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED, request_id=new_id())
    client.connection.call(client.connection.tracking.FinishRun, ending)
    return run_id


@pytest.mark.timeout(180)
def test_client_yields_each_run_event_once_despite_outages(services: Services) -> None:
    outages: dict[int, Outage] = {10: killed, 25: nats_killed, 40: stopped}
    with services.connect("job") as writing, services.connect("watcher") as watching, ThreadPoolExecutor(1) as pool:
        experiment_id = writing.experiments.create("watched")
        watching.connection.note_position("tracking", writing.positions["tracking"])
        watch = watching.runs.watch(experiment="watched")
        assert watch.runs == ()
        running = pool.submit(log_run, writing, experiment_id)
        runs: dict[str, v1.Run] = {}
        changes = []
        for change in watch:
            changes.append(change)
            rf.apply_change(runs, change)
            if outage := outages.get(len(changes)):
                outage(services)
            if change.HasField("finished"):
                break
        run_id = running.result()
        assert [change.position for change in changes] == sorted({change.position for change in changes})
        steps = [step for change in changes for series in rf.points_of(change).values() for step in series.steps]
        assert steps == list(range(STEPS))
        assert runs == {run_id: watching.runs.get(run_id)}
        again = watching.runs.watch(experiment="watched", from_position=changes[4].position)
        assert [next(again) for _ in changes[5:]] == changes[5:]
        assert again.position >= changes[-1].position
        again.close()


def test_run_watch_resumes_on_other_process(tmp_path: Path) -> None:
    with processes(tmp_path) as log:
        doomed, there = log.start(), log.start()
        experiment_id = there.new_experiment()
        watch = doomed.watch(experiment_id=experiment_id)
        _, begun = snapshot(watch)
        with ThreadPoolExecutor(1) as pool, rf.Client(f"tracking={there.address}", actor="job") as client:
            writing = pool.submit(log_run, client, experiment_id)
            steps = [next(watch) for _ in range(5)]
            doomed.program.kill()
            rest, reason = reason_at_end(watch)
            run_id = writing.result()
        assert reason == "UNAVAILABLE"
        steps += rest
        ended = there.head()
        resumed = there.watch(experiment_id=experiment_id, from_position=steps[-1].position)
        steps += read(resumed, ended) if steps[-1].position < ended else []
        resumed.cancel()
        assert event_payloads(changes_of(steps)) == true_changes(log.events(begun, ended), {run_id})


@pytest.mark.timeout(60)
def test_run_watch_reports_lost_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLFORWARD_ATTENDANCE_PATIENCE", "2")
    with up(tmp_path / "data") as system, rf.Client(system.address, actor="job") as client:
        experiment_id = client.experiments.create("watched")
        run_id = new_id()
        start = v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id, name="job", heartbeat=True)
        client.connection.call(client.connection.tracking.StartRun, start)
        with client.runs.watch(run_id) as watch:
            runs = {run.run_id: run for run in watch.runs}
            assert runs[run_id].status == v1.RUN_STATUS_RUNNING
            lost = next(watch)
            assert lost.WhichOneof("event") == "lost"
            rf.apply_change(runs, lost)
            assert runs == {run_id: client.runs.get(run_id)}
            attending = client.connection.tracking.AttendRun(v1.AttendRunRequest(run_id=run_id), timeout=SECONDS)
            back = next(watch)
            assert back.WhichOneof("event") == "resumed"
            rf.apply_change(runs, back)
            assert runs == {run_id: client.runs.get(run_id)}
            attending.cancel()
