"""Runs start, end and are resumed, with the service or without it."""

from __future__ import annotations

import logging
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import rollforward as rf
from rollforward import Client, v1
from rollforward._journal.directory import journals
from rollforward.errors import InvalidRequest, NotFound, PreconditionFailed, Unavailable
from rollforward.tracking.live_run.run import Run
from tests.servers.ports import free_port
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve
from tests.unit.client.runs.tracking_service import RUN, Tracking, left, open_run, until


def train(run: Run, error: BaseException | None) -> None:
    run.log_metric("loss", 1)
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, v1.RUN_STATUS_FINISHED),
        (SystemExit(0), v1.RUN_STATUS_FINISHED),
        (SystemExit(2), v1.RUN_STATUS_FAILED),
        (ValueError(), v1.RUN_STATUS_FAILED),
        (KeyboardInterrupt(), v1.RUN_STATUS_KILLED),
    ],
)
def test_a_run_ends_as_its_block_does(
    error: BaseException | None, status: v1.RunStatus.ValueType, client: Client, tracking: Tracking
) -> None:
    run = client.runs.start("fraud", name="rf-100", tags={"n": 1}, description="why")
    with nullcontext() if error is None else pytest.raises(type(error)), run:
        train(run, error)
    assert [ending.status for ending in tracking.endings] == [status]
    assert tracking.values("loss") == [1.0]
    assert tracking.started[0].experiment_id == tracking.experiments["fraud"]
    assert tracking.started[0].tags == {"n": "1"}
    assert tracking.started[0].description == "why"
    assert tracking.started[0].source.runtime
    with pytest.warns(RuntimeWarning):
        run.log_metric("loss", 1)
    with pytest.raises(InvalidRequest) as ended:
        run.set_tags({"t": 1})
    assert ended.value.reason == "RUN_ENDED"


def test_a_run_starts_and_ends_without_the_service_and_all_comes_later(
    serve: Serve, tracking: Tracking, journal_root: Path
) -> None:
    tracking.away = True
    client = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=scaled(0.3))
    run = client.runs.start("fraud")
    run.log_params({"p": 1})
    run.log_metric("loss", 0.5)
    with pytest.warns(RuntimeWarning):
        run.finish()
    assert (tracking.started, tracking.batches) == ([], [])
    tracking.away = False
    until(lambda: rf.sync(journal_root) == [] or tracking.endings)
    assert [start.run_id for start in tracking.started] == [run.run_id]
    assert tracking.started[0].experiment_id == tracking.experiments["fraud"]
    assert tracking.values("loss") == [0.5]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert left(journal_root) == []


def test_the_job_is_in_touch_as_long_as_it_runs(client: Client, tracking: Tracking) -> None:
    with client.runs.start("fraud") as run:
        until(lambda: tracking.attended == [run.run_id])
        assert tracking.started[0].heartbeat
    until(lambda: not tracking.attended)
    with client.runs.start("fraud", heartbeat=False):
        assert not tracking.started[1].heartbeat


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"experiment": ""}, "INVALID_NAME"),
        ({"experiment": "e", "name": "n" * 501}, "INVALID_NAME"),
        ({"experiment": "e", "name": " n"}, "INVALID_NAME"),
        ({"experiment": "e", "run_id": "A" * 32}, "INVALID_RUN_ID"),
        ({"experiment": "e", "resume": True}, "INVALID_ARGUMENTS"),
        ({"experiment": "e", "tags": {"": 1}}, "INVALID_KEY"),
        ({"experiment": "e", "description": "d" * 20_001}, "INVALID_DESCRIPTION"),
        ({"experiment": "e", "description": "\a"}, "INVALID_DESCRIPTION"),
        ({"experiment": "e", "parent": "p"}, "INVALID_RUN_ID"),
        ({"experiment": "e", "tags": {f"t{n}": "x" * 8_000 for n in range(130)}}, "MESSAGE_TOO_LARGE"),
    ],
)
def test_a_start_that_could_never_be_delivered_is_refused_offline_too(
    options: dict[str, Any], reason: str, client: Client, journal_root: Path
) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        client.runs.start(**options, offline=True)
    assert wrong.value.reason == reason
    assert left(journal_root) == []


def test_a_nested_run_names_its_parent(client: Client, tracking: Tracking) -> None:
    with client.runs.start("fraud") as outer, client.runs.start("fraud", nested=True) as inner:
        assert rf.current_run() is inner
        assert tracking.started[1].parent_run_id == outer.run_id
    assert rf.current_run() is None
    with pytest.raises(InvalidRequest) as alone:
        client.runs.start("fraud", nested=True)
    assert alone.value.reason == "INVALID_ARGUMENTS"


def test_what_a_live_run_starts_does_not_wait_for_the_runs_own_start(
    run: Run, client: Client, tracking: Tracking
) -> None:
    # As just after an outage, in which the run began.
    tracking.unknown = {RUN}
    with pytest.raises(NotFound):
        client.runs.start("fraud", parent=RUN)
    part = client.runs.start("fraud", parent=run)
    other = pickle.loads(pickle.dumps(run))  # noqa: S301 - its own
    part.log_metric("part", 1.0)
    other.log_metric("other", 1.0)
    assert (tracking.started, tracking.others, tracking.batches) == ([], [], [])
    tracking.unknown = set()
    part.finish()
    other.finish()
    assert (tracking.values("part"), tracking.values("other")) == ([1.0], [1.0])
    other.connection.close()


def test_a_worker_delivers_and_lets_the_run_go_on(client: Client, tracking: Tracking) -> None:
    with client.runs.resume(RUN, worker=True) as run:
        run.log_metric("loss", 1.0)
        assert (run.name, run.experiment_id) == ("known", "7")
        with pytest.raises(PreconditionFailed) as changed:
            run.log_param("p", 2)
        assert changed.value.reason == "PARAM_CHANGED"
    assert tracking.values("loss") == [1.0]
    assert tracking.endings == []
    with client.runs.resume(RUN):
        pass
    assert len(tracking.endings) == 1


def test_a_run_that_is_handed_to_another_process_is_a_workers_there(
    run: Run, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLFORWARD_SYSTEM_METRICS", "1")
    with pickle.loads(pickle.dumps(run)) as other:  # noqa: S301 - its own
        other.log_metric("loss", 1.0)
        assert (other.run_id, other.worker, other.system_metrics) == (RUN, True, None)
    assert tracking.values("loss") == [1.0]
    assert tracking.endings == []
    other.connection.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ROLLFORWARD_OFFLINE", "maybe"),
        ("ROLLFORWARD_SYSTEM_METRICS", "2"),
        ("ROLLFORWARD_JOURNAL_BYTES", "1 GiB"),
    ],
)
def test_settings_are_read_strictly(variable: str, value: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidRequest) as wrong:
        client.runs.start("fraud")
    assert wrong.value.reason == "INVALID_SETTING"


def test_without_a_place_for_journals_all_stays_in_memory_until_it_is_delivered(
    client: Client, tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning):
        run = client.runs.start("fraud")
    run.log_metric("loss", 1.0)
    run.log_params({"p": 1})
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_blocks_own_error_is_not_hidden(serve: Serve, tracking: Tracking, journal_root: Path) -> None:
    tracking.away = True
    client = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=scaled(0.3))
    run = open_run(client)
    with pytest.raises(ZeroDivisionError), pytest.warns(RuntimeWarning), run:
        train(run, ZeroDivisionError())
    tracking.away = False
    until(lambda: rf.sync(journal_root) == [] or tracking.endings)
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FAILED]
    assert tracking.values("loss") == [1.0]


def test_without_a_place_for_journals_there_is_no_offline_run(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r".+"):
        client.runs.start("fraud", offline=True)


def test_a_run_ends_in_no_other_way(run: Run, tracking: Tracking) -> None:
    for status in ("DONE", "RUNNING"):
        with pytest.raises(InvalidRequest) as wrong:
            run.finish(status)
        assert wrong.value.reason == "INVALID_STATUS"
    run.finish("killed")
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_KILLED]


def test_runs_without_a_server_start_and_end_without_waiting_for_it(
    journal_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(f"127.0.0.1:{free_port()}", timeout=36_000.0) as nobody:
        for number in range(3):
            run = nobody.runs.start("exp")
            run.log_metric("loss", number)
            run.log_artifact(__file__)
            with pytest.raises(Unavailable):
                run.flush()
            with pytest.warns(RuntimeWarning):
                run.finish()
    warned = [record for record in caplog.records if "without the service" in record.message]
    assert [record.levelname for record in warned if record.levelno >= logging.WARNING] == ["WARNING"]
    assert len(list(journals(journal_root))) == 3
