"""Delivery of a run's records: in batches, exactly once, and across outages."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import grpc
import pytest

import rollforward as rf
from rollforward import Client, v1
from rollforward._journal import delivery
from rollforward._journal.delivery import Delivery
from rollforward._journal.directory import Head, Journal
from rollforward._journal.reader import MemoryReader
from rollforward._journal.records import Count, framed_point
from rollforward._journal.segment_writer import SegmentLog
from rollforward.errors import InvalidRequest, PreconditionFailed, Unauthenticated, Unavailable
from rollforward.tracking.live_run.run import Run
from rollforward.tracking.live_run.run_records import label_records
from tests.timeouts import scaled
from tests.unit.client.conftest import Serve
from tests.unit.client.runs.tracking_service import (
    RUN,
    Tracking,
    break_file,
    left,
    mend_file,
    open_run,
    open_writer,
    until,
)

pytestmark = pytest.mark.busy


def test_points_are_sent_together_and_in_order(run: Run, tracking: Tracking) -> None:
    for step in range(1000):
        run.log_metrics({"loss": step / 2, "accuracy": float("nan")}, step=step)
    run.flush()
    assert tracking.values("loss") == [step / 2 for step in range(1000)]
    assert len(tracking.values("accuracy")) == 1000
    assert len(tracking.batches) < 20
    assert len({batch.request_id for batch in tracking.batches}) == len(tracking.batches)


def test_idle_run_sends_its_records_after_the_interval(run: Run, tracking: Tracking) -> None:
    run.log_metric("loss", 1)
    assert tracking.arrived.wait(scaled(20))


def test_large_logs_are_split_into_batches(run: Run, tracking: Tracking, journal_root: Path) -> None:
    for step in range(50_000):
        run.log_metric("loss", step, step)
    run.finish()
    assert tracking.values("loss") == [float(step) for step in range(50_000)]
    assert 1 < len(tracking.batches) < 20
    assert all(batch.ByteSize() <= 500_100 for batch in tracking.batches)
    run.flush()
    assert left(journal_root) == []


def test_batch_is_retried_unchanged(run: Run, tracking: Tracking) -> None:
    tracking.failures = [grpc.StatusCode.UNAVAILABLE] * 2
    run.log_metric("loss", 1.0)
    run.flush()
    sent = {batch.SerializeToString() for batch in [*tracking.failed, *tracking.batches]}
    assert (len(tracking.failed), len(sent)) == (2, 1)


def test_records_that_miss_the_timeout_are_counted_and_delivered_later(client: Client, tracking: Tracking) -> None:
    tracking.away = True
    run = open_run(client)
    run.log_metrics({"loss": 1.0, "accuracy": 2.0})
    run.log_params({"p": 1})
    with pytest.raises(Unavailable) as late:
        run.flush(timeout=0.2)
    assert late.value.reason == "NOT_DELIVERED"
    assert (late.value.metadata["points"], late.value.metadata["labels"]) == ("2", "1")
    tracking.away = False
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]


def test_flush_raises_rejections_without_losing_other_records(run: Run, tracking: Tracking) -> None:
    tracking.refused = {"loss", "p"}
    run.log_metrics({"loss": 1.0, "accuracy": 2.0})
    run.log_params({"p": 1, "q": 2})
    run.set_tags({"t": 3})
    run.remove_tag("u")
    with pytest.raises(PreconditionFailed) as refused:
        run.flush()
    assert (refused.value.metadata["points"], refused.value.metadata["labels"]) == ("1", "1")
    assert tracking.values("accuracy") == [2.0]
    assert [dict(batch.params) for batch in tracking.batches if batch.params] == [{"q": "2"}]
    assert [dict(batch.tags) for batch in tracking.batches if batch.tags] == [{"t": "3"}]
    assert [list(batch.removed_tags) for batch in tracking.batches if batch.removed_tags] == [["u"]]
    sent = [*tracking.batches, *tracking.failed]
    assert len({batch.request_id for batch in sent}) == len(sent)
    run.flush()


def test_finish_warns_of_rejections_and_tags_the_run(client: Client, tracking: Tracking) -> None:
    tracking.refused = {"loss", "accuracy"}
    with pytest.warns(RuntimeWarning), open_run(client) as run:
        run.log_metrics({"loss": 1.0, "accuracy": 2.0})
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]
    assert [dict(batch.tags) for batch in tracking.batches] == [
        {"rollforward.not_logged": "2 points, 0 labels, 0 calls"}
    ]


def test_rejected_parameter_does_not_reject_points(client: Client, tracking: Tracking) -> None:
    tracking.failures = [grpc.StatusCode.FAILED_PRECONDITION]
    run = open_run(client)
    run.log_params({"p": 1})
    run.log_metric("loss", 1.0)
    with pytest.raises(PreconditionFailed):
        run.flush()
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert [ending.status for ending in tracking.endings] == [v1.RUN_STATUS_FINISHED]


def test_permanent_service_error_does_not_block_other_records(
    client: Client, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_TRIES", 3)
    tracking.failures = [grpc.StatusCode.INTERNAL] * 3
    writer = open_writer(client, interval=0.01)
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    until(lambda: not tracking.failures)
    writer.add_points(framed_point(0, 0, 2.0, b"loss"), 1)
    outcome = writer.close()
    assert (outcome.missing, outcome.lost) == (Count(0, 0), Count(1, 0))
    assert tracking.values("loss") == [2.0]


def test_response_of_a_foreign_server_loses_no_records(run: Run, tracking: Tracking) -> None:
    # As from a proxy that does not know the path.
    tracking.failures = [grpc.StatusCode.UNIMPLEMENTED] * 2
    run.log_metric("loss", 1.0)
    run.flush()
    assert tracking.values("loss") == [1.0]


def test_losses_are_tagged_even_after_flush_reported_them(client: Client, tracking: Tracking) -> None:
    tracking.refused = {"loss"}
    run = open_run(client)
    for _ in range(2):
        run.log_metric("loss", 1.0)
        with pytest.raises(PreconditionFailed):
            run.flush()
    run.finish()
    assert [dict(batch.tags) for batch in tracking.batches] == [
        {"rollforward.not_logged": "2 points, 0 labels, 0 calls"}
    ]


def test_records_on_disk_and_in_memory_are_delivered_in_order(
    client: Client, tracking: Tracking, journal_root: Path
) -> None:
    journal = Journal.create(Head(RUN, client.address, client.actor), journal_root)
    segment_log = SegmentLog(journal)

    def tag(value: int) -> None:
        for payload, count in label_records({}, {"t": str(value)}, []):
            segment_log.append(payload, Count(0, count))

    sending = Delivery(journal, client.connection, memory=MemoryReader(segment_log, RUN), on_rejected=lambda *_: None)
    tag(1)
    break_file(segment_log)
    tag(2)
    assert sending.round()
    tracking.failures = [grpc.StatusCode.UNAUTHENTICATED]
    with pytest.raises(Unauthenticated):
        sending.round()
    mend_file(segment_log)
    segment_log.recover()
    tag(3)
    while sending.round():
        pass
    assert [batch.tags["t"] for batch in tracking.batches] == ["1", "2", "3"]


@pytest.mark.parametrize(("mended", "lost", "reason"), [(True, 0, None), (False, 1, "JOURNAL_FULL")])
def test_records_in_memory_at_the_end_are_written_or_reported_as_lost(
    mended: bool, lost: int, reason: str | None, client: Client, journal_root: Path
) -> None:
    writer = open_writer(client, offline=True)
    writer.add_points(framed_point(0, 0, 1.0, b"loss"), 1)
    break_file(writer._segment_log)
    with pytest.warns(RuntimeWarning):
        writer.add_points(framed_point(1, 0, 2.0, b"loss"), 1)
    if mended:
        mend_file(writer._segment_log)
    outcome = writer.close()
    assert (outcome.lost, outcome.failure and outcome.failure.reason) == (Count(lost, 0), reason)
    (synced,) = rf.sync(journal_root)
    assert synced.delivered == Count(2 - lost, 0)


def test_infinite_timeout_is_accepted_and_negative_one_rejected(serve: Serve, tracking: Tracking) -> None:
    run = open_run(serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=math.inf))
    run.log_metric("loss", 1.0)
    run.flush()
    run.finish()
    assert len(tracking.endings) == 1
    for timeout in (-1.0, math.nan):
        with pytest.raises(InvalidRequest) as wrong:
            run.flush(timeout)
        assert wrong.value.reason == "INVALID_TIMEOUT"


def test_records_are_kept_without_permission_to_write(client: Client, tracking: Tracking, journal_root: Path) -> None:
    tracking.failures = [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED]
    run = open_run(client)
    run.log_metric("loss", 1.0)
    run.finish()
    assert tracking.values("loss") == [1.0]
    assert len({batch.request_id for batch in [*tracking.failed, *tracking.batches]}) == 1
    assert left(journal_root) == []


def log_steps(run: Run, count: int) -> None:
    """Log the points 0, 1, 2..."""
    for step in range(count):
        run.log_metric("loss", step, step)


def test_dropped_records_are_counted_and_never_raised(serve: Serve, tracking: Tracking) -> None:
    tracking.away = True
    client = serve(tracking, v1.add_TrackingServiceServicer_to_server, timeout=scaled(0.3))
    run = open_run(client, disk_bytes=100_000)
    with pytest.warns(RuntimeWarning):
        log_steps(run, 10_000)
    with pytest.raises(Unavailable) as full:
        run.flush(timeout=0.1)
    assert full.value.reason == "JOURNAL_FULL"
    dropped = int(full.value.metadata["points"])
    assert 5_000 < dropped < 10_000
    tracking.away = False
    run.finish()
    assert tracking.values("loss")[: 10_000 - dropped] == [float(step) for step in range(10_000 - dropped)]


def test_many_threads_can_log(run: Run, tracking: Tracking) -> None:
    def work(number: int) -> None:
        for step in range(500):
            run.log_metric(f"m{number}", step, step=step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.flush()
    assert all(tracking.values(f"m{number}") == list(range(500)) for number in range(4))


def test_outage_during_the_job_loses_no_records(client: Client, tracking: Tracking, journal_root: Path) -> None:
    tracking.away = True
    run = open_run(client)
    for step in range(100):
        run.log_metric("loss", step, step)
    until(lambda: tracking.failed)
    tracking.away = False
    run.finish()
    assert tracking.values("loss") == [float(step) for step in range(100)]
    assert left(journal_root) == []
