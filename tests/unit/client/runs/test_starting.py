"""Start, end and resumption of runs, with and without the service."""

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
def test_run_status_follows_its_block(
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


def test_run_without_the_service_is_delivered_later(serve: Serve, tracking: Tracking, journal_root: Path) -> None:
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


def test_heartbeat_lasts_as_long_as_the_run(client: Client, tracking: Tracking) -> None:
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
def test_invalid_start_is_rejected_offline(
    options: dict[str, Any], reason: str, client: Client, journal_root: Path
) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        client.runs.start(**options, offline=True)
    assert wrong.value.reason == reason
    assert left(journal_root) == []


def test_nested_run_has_its_parent(client: Client, tracking: Tracking) -> None:
    with client.runs.start("fraud") as outer, client.runs.start("fraud", nested=True) as inner:
        assert rf.current_run() is inner
        assert tracking.started[1].parent_run_id == outer.run_id
    assert rf.current_run() is None
    with pytest.raises(InvalidRequest) as alone:
        client.runs.start("fraud", nested=True)
    assert alone.value.reason == "INVALID_ARGUMENTS"


def test_nested_run_does_not_wait_for_its_parents_start(run: Run, client: Client, tracking: Tracking) -> None:
    # As just after an outage during which the run started.
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


def test_worker_delivers_and_leaves_the_run_open(client: Client, tracking: Tracking) -> None:
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


def test_unpickled_run_is_a_workers(run: Run, tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_invalid_settings_are_rejected(
    variable: str, value: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidRequest) as wrong:
        client.runs.start("fraud")
    assert wrong.value.reason == "INVALID_SETTING"


def test_without_a_journal_directory_records_are_delivered_from_memory(
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


def test_error_of_the_block_is_not_hidden(serve: Serve, tracking: Tracking, journal_root: Path) -> None:
    tracking.away = True
    client = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=scaled(0.3))
    run = open_run(client)
    with pytest.raises(ZeroDivisionError), pytest.warns(RuntimeWarning), run:
        train(run, ZeroDivisionError())
    tracking.away = False
    until(lambda: rf.sync(journal_root) == [] or tracking.endings)
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FAILED]
    assert tracking.values("loss") == [1.0]


def test_offline_run_without_a_journal_directory_is_rejected(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r".+"):
        client.runs.start("fraud", offline=True)


def test_unknown_final_status_is_rejected(run: Run, tracking: Tracking) -> None:
    for status in ("DONE", "RUNNING"):
        with pytest.raises(InvalidRequest) as wrong:
            run.finish(status)
        assert wrong.value.reason == "INVALID_STATUS"
    run.finish("killed")
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_KILLED]


def test_runs_without_a_server_start_and_end_fast(journal_root: Path, caplog: pytest.LogCaptureFixture) -> None:
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
