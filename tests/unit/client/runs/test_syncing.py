"""Sync of journals of dead and offline jobs: exactly-once delivery, and the end of their runs."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

import rollforward as rf
from rollforward import Client, v1
from rollforward._journal.directory import Head, Journal
from rollforward._journal.records import Count, framed_point
from rollforward._journal.segment_writer import SegmentLog
from rollforward._journal.sync import count_waiting
from rollforward._journal.writer import Writer
from rollforward.tracking.live_run.run import Run
from tests.unit.client.conftest import Serve
from tests.unit.client.runs.tracking_service import RUN, Tracking, left, open_run, open_writer

pytestmark = pytest.mark.busy


def test_an_offline_run_sends_nothing_until_it_is_synced(
    client: Client, tracking: Tracking, journal_root: Path
) -> None:
    with client.runs.start("fraud", offline=True) as run:
        run.log_params({"p": 1})
        run.log_metric("loss", 0.5)
        run.flush()
    assert (tracking.started, tracking.batches, tracking.endings, tracking.experiments) == ([], [], [], {})
    (synced,) = rf.sync(journal_root)
    assert (synced.run_id, synced.state, synced.delivered) == (run.run_id, "delivered", Count(1, 1, 2))
    assert not tracking.started[0].heartbeat
    assert tracking.values("loss") == [0.5]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert rf.sync(journal_root) == []
    assert left(journal_root) == []


def test_interrupted_sync_resumes_with_the_same_requests(
    client: Client, tracking: Tracking, journal_root: Path
) -> None:
    with client.runs.start("fraud", offline=True) as run:
        run.log_metric("loss", 0.5)
    tracking.failures = [grpc.StatusCode.UNAUTHENTICATED]
    (broken,) = rf.sync(journal_root)
    assert (broken.state, broken.reason) == ("undelivered", "UNAUTHENTICATED")
    assert broken.waiting_bytes > 0
    (synced,) = rf.sync(journal_root)
    assert synced.state == "delivered"
    assert tracking.failed == tracking.batches
    assert len(tracking.started) == 1


def test_sync_waits_for_an_unreachable_service_only_once(serve: Serve, tracking: Tracking, journal_root: Path) -> None:
    client = serve(tracking, v1.add_TrackingServiceServicer_to_server)
    for _ in range(20):
        with client.runs.start("fraud", offline=True):
            pass
    tracking.away = True
    found = rf.sync(journal_root, timeout=0.5)
    assert [one.state for one in found] == ["undelivered"] * 20
    tracking.away = False
    assert [one.state for one in rf.sync(journal_root)] == ["delivered"] * 20


def test_journal_without_metadata_is_kept_and_reported(journal_root: Path) -> None:
    folder = journal_root / RUN / "0"
    folder.mkdir(parents=True)
    (folder / "head.json").write_text("{")
    (found,) = rf.sync(journal_root)
    assert (found.run_id, found.state, found.reason) == (RUN, "undelivered", "INVALID_JOURNAL")
    assert folder.exists()


def test_sync_skips_journals_of_live_processes(run: Run, journal_root: Path) -> None:
    run.log_metric("loss", 1.0)
    (synced,) = rf.sync(journal_root)
    assert (synced.run_id, synced.state) == (RUN, "alive")


def test_sync_ends_while_forked_processes_continue_to_log(client: Client, journal_root: Path) -> None:
    writer = open_writer(client, offline=True)
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    assert writer.folder
    forked = SegmentLog(Journal.open(writer.folder), name="7-forked")
    progress: list[tuple[int, int]] = []

    def go_on(*both: int) -> None:
        progress.append((both[0], both[1]))
        assert len(progress) < 20
        forked.append_points(framed_point(0, 0, 1.0, b"loss"), 1)

    go_on(0, 0)
    writer.close()
    (synced,) = rf.sync(journal_root, progress=go_on)
    assert (synced.state, synced.delivered) == ("alive", Count(2, 0))
    forked.close()
    (synced,) = rf.sync(journal_root)
    assert (synced.state, synced.delivered) == ("delivered", Count(len(progress) - 1, 0))


@pytest.mark.parametrize(
    ("heartbeat", "worker", "status", "ends"),
    [
        (False, False, v1.RUN_STATUS_RUNNING, 1),
        (True, False, v1.RUN_STATUS_RUNNING, 0),
        (True, False, v1.RUN_STATUS_LOST, 1),
        (False, True, v1.RUN_STATUS_RUNNING, 0),
        (False, False, v1.RUN_STATUS_FINISHED, 0),
        (False, False, v1.RUN_STATUS_KILLED, 0),
    ],
)
def test_sync_ends_the_run_of_a_dead_job(
    heartbeat: bool,
    worker: bool,
    status: v1.RunStatus.ValueType,
    ends: int,
    client: Client,
    tracking: Tracking,
    journal_root: Path,
) -> None:
    tracking.status = status
    writer = Writer(client.connection, Head(RUN, client.address, client.actor, worker, heartbeat), offline=True)
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    writer.close()
    (synced,) = rf.sync(journal_root)
    assert synced.state == "delivered"
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FAILED] * ends


def test_sync_does_not_end_the_run_of_a_restarted_job(client: Client, tracking: Tracking, journal_root: Path) -> None:
    dead = open_writer(client, offline=True)
    dead.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    dead.close()
    again = open_run(client)
    assert sorted(one.state for one in rf.sync(journal_root)) == ["alive", "delivered"]
    assert tracking.endings == []
    again.finish()


def test_run_with_a_closed_connection_is_delivered_by_sync(
    client: Client, tracking: Tracking, journal_root: Path
) -> None:
    writer = open_writer(client)
    client.close()
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    outcome = writer.close(0.3)
    assert outcome.missing == Count(1, 0)
    assert outcome.failure is not None
    assert outcome.failure.reason == "CONNECTION_CLOSED"
    (synced,) = rf.sync(journal_root)
    assert (synced.state, synced.delivered, tracking.values("loss")) == ("delivered", Count(1, 0), [1.0])
    assert left(journal_root) == []


def test_split_batch_is_never_sent_whole_again(client: Client, tracking: Tracking, journal_root: Path) -> None:
    writer = open_writer(client, offline=True)
    for name in (b"accuracy", b"loss"):
        writer.add_points(framed_point(0, 0, 1.0, name), 1)
    writer.close()
    # The whole batch, then its parts: the fault that rejected it is gone when another process resumes.
    tracking.failures = [grpc.StatusCode.FAILED_PRECONDITION, None, grpc.StatusCode.UNAUTHENTICATED]
    (broken,) = rf.sync(journal_root)
    assert broken.state == "undelivered"
    (synced,) = rf.sync(journal_root)
    assert synced.state == "delivered"
    assert all(len(batch.series) == 1 for batch in tracking.batches)
    once = {batch.request_id: batch.series[0].key for batch in tracking.batches}
    assert sorted(once.values()) == ["accuracy", "loss"]


def test_nested_run_is_delivered_after_its_parent(client: Client, tracking: Tracking, journal_root: Path) -> None:
    whole, part = "f" * 32, "0" * 32
    tracking.unknown = {whole}
    with (
        client.runs.start("fraud", run_id=whole, offline=True),
        client.runs.start("fraud", run_id=part, nested=True) as inner,
    ):
        assert inner.offline
    assert {one.state for one in rf.sync(journal_root)} == {"delivered"}
    assert [one.run_id for one in tracking.started] == [whole, part]


def test_nested_run_without_its_parent_stays_undelivered(
    client: Client, tracking: Tracking, journal_root: Path
) -> None:
    tracking.unknown = {RUN}
    with client.runs.start("fraud", parent=RUN, offline=True):
        pass
    (synced,) = rf.sync(journal_root)
    assert (synced.state, synced.reason) == ("undelivered", "RUN_NOT_FOUND")


def test_waiting_bytes_include_artifacts(
    client: Client, journal_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_bytes(bytes(300_000))
    with client.runs.start("fraud", offline=True) as run:
        run.log_artifact(tmp_path / "model")
    (synced,) = rf.sync(journal_root, address="127.0.0.1:1", timeout=0.2)
    assert (synced.state, synced.waiting_bytes > 300_000) == ("undelivered", True)


def test_sync_of_a_missing_directory_is_rejected(journal_root: Path) -> None:
    with pytest.raises(NotADirectoryError):
        rf.sync(journal_root / "elsewhere")
    assert rf.sync() == []


def test_journal_that_is_being_created_or_removed_is_not_counted(client: Client, journal_root: Path) -> None:
    journal = Journal(journal_root / RUN / "one", Head(RUN, client.address, client.actor))
    journal.ensure()
    before = list(journal.folder.iterdir())
    assert count_waiting(journal_root) == 0
    assert list(journal.folder.iterdir()) == before
    with client.runs.start("fraud", offline=True):
        assert count_waiting(journal_root) == 0
    assert count_waiting(journal_root) == 1
