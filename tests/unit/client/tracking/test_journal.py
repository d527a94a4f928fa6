"""Journals: records survive any end of the process, and losses are counted."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from rollforward._journal import records
from rollforward._journal.batches import Batch, read_batch
from rollforward._journal.cursor import Cursor, Position, read_cursor, write_cursor
from rollforward._journal.directory import Head, Journal, acquire_lock, journals
from rollforward._journal.reader import MemoryReader, Reader
from rollforward._journal.records import NO_CONTEXT, Call, Count, PointContext, Points
from rollforward._journal.segment_writer import SegmentLog
from rollforward._series import unpack
from rollforward.errors import InvalidRequest
from rollforward.tracking.live_run.run_records import label_records, point_records
from tests.timeouts import scaled

RUN = "0123456789abcdef" * 2
HEAD = Head(RUN, "localhost:1", "Zoë")

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
numbers = st.integers(-(2**63), 2**63 - 1)
values = st.floats(allow_nan=True, allow_infinity=True, width=64)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal.create(HEAD, tmp_path)


def kept(journal: Journal, segment_log: str = "0") -> list[float]:
    """Return the values of all points that a reader returns and settles."""
    reader = Reader(journal, segment_log)
    found: list[float] = []
    while (batch := reader.next()) is not None:
        found += points_of(batch)
        for step in batch.steps:
            reader.note(step, Count(0, 0))
        reader.settle()
    return found


def points_of(batch: Batch) -> list[float]:
    requests = [step.action.request for step in batch.steps]
    return [
        value
        for request in requests
        if isinstance(request, v1.LogBatchRequest)
        for series in request.series
        for value in unpack([series]).values
    ]


def fill(segment_log: SegmentLog, count: int, start: int = 0) -> int:
    """Log points with the values 0, 1, 2...; return how many were kept."""
    return sum(
        segment_log.append_points(records.framed_point(i, 0, float(i), b"loss"), 1) for i in range(start, start + count)
    )


@given(numbers, numbers, st.lists(st.tuples(names.map(str.encode), values), min_size=1), st.tuples(names, names, names))
def test_points_are_read_as_they_were_written(
    step: int, moment: int, entries: list[tuple[bytes, float]], context: tuple[str, str, str]
) -> None:
    for what in (NO_CONTEXT, PointContext(*context)):
        found = records.parse(records.points(step, moment, entries, what))
        assert isinstance(found, Points)
        assert (found.step, found.timestamp, found.context) == (step, moment, what)
        assert [name for name, _ in found.values] == [name for name, _ in entries]
        assert all(is_same(one, other) for (_, one), (_, other) in zip(found.values, entries, strict=True))
    name, value = entries[0]
    payload = records.points(step, moment, entries[:1])
    assert records.framed_point(step, moment, value, name) == records.frame(payload)
    single = records.single_point(payload)
    assert single is not None
    assert (single[:2], single[3]) == ((step, moment), name)
    assert is_same(single[2], value)
    assert (records.single_point(records.points(step, moment, entries)) is None) == (len(entries) > 1)


def is_same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def test_other_records_are_read_as_they_were_written() -> None:
    start = v1.StartRunRequest(run_id=RUN, name="é", tags={"a": "b"}, heartbeat=True)
    assert records.parse(records.start("fraud", start, resume=True)) == records.Start("fraud", True, start)
    finish = v1.FinishRunRequest(run_id=RUN, status=v1.RUN_STATUS_KILLED)
    assert records.parse(records.call("FinishRun", finish)) == Call("FinishRun", finish)
    artifact = v1.LogArtifactRequest(run_id=RUN, path="model")
    assert records.parse(records.artifact(artifact)) == records.Artifact(artifact)
    labels = v1.LogBatchRequest(params={"p": "1"}, removed_tags=["t"])
    assert records.parse(records.labels(labels)) == labels


@pytest.mark.parametrize("payload", [b"\x63", b"\x04\x03\x00abc", b"\x01\x00", b"\x03\xff\xff"])
def test_record_of_a_later_version_is_rejected(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        records.parse(payload)


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=5), st.data())
def test_torn_or_damaged_tail_affects_no_record_before_it(payloads: list[bytes], data: st.DataObject) -> None:
    framed = b"".join(map(records.frame, payloads))
    ends = [end for _, end in records.frames(framed)]
    assert [payload for payload, _ in records.frames(framed)] == payloads
    cut = data.draw(st.integers(0, len(framed) - 1))
    assert [end for _, end in records.frames(framed[:cut])] == [end for end in ends if end <= cut]
    damaged = bytearray(framed)
    damaged[cut] ^= data.draw(st.integers(1, 255))
    assert [end for _, end in records.frames(bytes(damaged))] == [end for end in ends if end <= cut]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=80), st.integers(1, 400))
def test_same_range_yields_the_same_calls(points: list[tuple[str, int]], max_bytes: int) -> None:
    data = b"".join(records.framed_point(i, 2, v, k.encode()) for i, (k, v) in enumerate(points))
    at, found = 0, []
    while (batch := read_batch(data[at:], RUN, f"seed/{at}", max_bytes=max_bytes)) is not None:
        again = read_batch(data[at : at + batch.end], RUN, f"seed/{at}", max_bytes=1, fixed_bytes=batch.end)
        assert again == batch
        assert len(batch.steps) == 1
        found.append(batch.steps[0].action.request)
        at += batch.end
    assert at == len(data)
    ids = [request.request_id for request in found]  # type: ignore[attr-defined]
    assert len(set(ids)) == len(ids)
    for key in "abc":
        series = [one for request in found for one in request.series if one.key == key]  # type: ignore[attr-defined]
        assert list(unpack(series).values) == [value for name, value in points if name == key]


def test_labels_are_split_into_records_that_fit_a_batch() -> None:
    params = {f"p{i}": "ü" * 6_000 for i in range(30)}
    data = b"".join(records.frame(payload) for payload, _ in label_records(params, {"t": "1"}, ["u"]))
    at, found = 0, v1.LogBatchRequest()
    while (batch := read_batch(data[at:], RUN, str(at))) is not None:
        (step,) = batch.steps
        assert step.action.request.ByteSize() < 1_000_000
        found.MergeFrom(step.action.request)  # type: ignore[arg-type]
        at += batch.end
    assert dict(found.params) == params
    assert (dict(found.tags), list(found.removed_tags)) == ({"t": "1"}, ["u"])


def test_last_change_of_a_tag_in_a_batch_wins() -> None:
    requests = [v1.LogBatchRequest(tags={"a": "1", "b": "1"}), v1.LogBatchRequest(removed_tags=["a", "b"])]
    requests.append(v1.LogBatchRequest(tags={"b": "2"}))
    batch = read_batch(b"".join(records.frame(records.labels(request)) for request in requests), RUN, "seed")
    assert batch is not None
    (step,) = batch.steps
    request = step.action.request
    assert isinstance(request, v1.LogBatchRequest)
    assert (dict(request.tags), list(request.removed_tags), step.content) == ({"b": "2"}, ["a"], Count(0, 5))


def test_points_of_different_contexts_are_separate_series() -> None:
    contexts = [NO_CONTEXT, PointContext("m-1", "", ""), PointContext("m-1", "d", "x")]
    payloads = [p for context in contexts for p, _ in point_records(1, 2, [(b"loss", 1.0)], context)]
    batch = read_batch(b"".join(map(records.frame, payloads)), RUN, "seed")
    assert batch is not None
    request = batch.steps[0].action.request
    assert isinstance(request, v1.LogBatchRequest)
    assert [(one.model_id, one.dataset_name, one.dataset_digest) for one in request.series] == [*map(tuple, contexts)]


def test_cursor_survives_a_torn_write(tmp_path: Path) -> None:
    path = tmp_path / "cursor"
    assert read_cursor(path) == Cursor()
    cursor = Cursor()
    for number in range(5):
        cursor = cursor.next(
            position=Position(1, number), settled=Count(number, 2, 3), rejected=Count(1, 0, 0), ended=True
        )
        cursor = replace(cursor, split=number % 2 == 0)
        write_cursor(path, cursor)
        assert read_cursor(path) == cursor
    newest = cursor.number % 2 * 128
    with path.open("r+b") as file:
        file.seek(newest + 20)
        file.write(b"torn")
    assert read_cursor(path).number == cursor.number - 1


def test_started_range_is_the_same_after_a_crash(journal: Journal) -> None:
    segment_log = SegmentLog(journal)
    fill(segment_log, 10)
    first = Reader(journal, "0").next()
    fill(segment_log, 10, start=10)
    second = Reader(journal, "0").next()
    assert first == second
    assert first is not None
    assert points_of(first) == [float(i) for i in range(10)]
    assert kept(journal) == [float(i) for i in range(20)]


def test_range_that_lost_its_end_keeps_its_request_id(journal: Journal) -> None:
    segment_log = SegmentLog(journal)
    fill(segment_log, 10)
    first = Reader(journal, "0").next()
    path = journal.segments("0")[1]
    os.truncate(path, path.stat().st_size - 1)
    second = Reader(journal, "0").next()
    assert first is not None
    assert second is not None
    assert points_of(second) == [float(i) for i in range(9)]
    assert second.steps[0].action.request.request_id == first.steps[0].action.request.request_id  # type: ignore[attr-defined]
    assert kept(journal) == [float(i) for i in range(9)]


def test_delivered_segments_are_removed(journal: Journal) -> None:
    segment_log = SegmentLog(journal, disk_bytes=1_000_000)
    assert fill(segment_log, 10_000) == 10_000
    assert len(journal.segments("0")) > 2
    assert kept(journal) == [float(i) for i in range(10_000)]
    assert len(journal.segments("0")) == 1
    assert Reader(journal, "0").cursor.settled == segment_log.kept == Count(10_000, 0, 0)


def test_damage_loses_only_the_rest_of_its_segment(journal: Journal) -> None:
    segment_log = SegmentLog(journal, disk_bytes=1_000_000)
    fill(segment_log, 10_000)
    first = journal.segments("0")[1]
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    found = kept(journal)
    assert found == sorted(found)
    assert found[-1] == 9_999.0
    assert 0.75 < len(found) / 10_000 < 1


def test_full_journal_drops_points_until_there_is_space(journal: Journal) -> None:
    said: list[str] = []
    segment_log = SegmentLog(journal, disk_bytes=100_000, memory_bytes=0, warn=said.append)
    count = fill(segment_log, 5_000)
    assert journal.size() <= 100_000
    assert 1_000 < count < 5_000
    assert segment_log.append(records.call("FinishRun", v1.FinishRunRequest(run_id=RUN)), Count(0, 0, 1))
    assert (segment_log.kept, segment_log.take_dropped()) == (Count(count, 0, 1), Count(5_000 - count, 0, 0))
    assert len(said) == 1
    assert len(kept(journal)) == count
    # Skip the pause after a failed write.
    segment_log._retry_at = 0.0
    assert fill(segment_log, 10) == 10
    assert len(kept(journal)) == 10


def test_records_are_buffered_in_memory_while_the_directory_is_missing(journal: Journal) -> None:
    shutil.rmtree(journal.folder)
    journal.folder.write_text("in the way")
    segment_log = SegmentLog(journal)
    assert fill(segment_log, 10) == 10
    journal.folder.unlink()
    segment_log._retry_at = 0.0
    segment_log.recover()
    assert kept(journal) == [float(i) for i in range(10)]


FULL_DISK = """
import resource, sys
from pathlib import Path
from rollforward._journal import records
from rollforward._journal.directory import Head, Journal
from rollforward._journal.segment_writer import SegmentLog

said = []
journal = Journal.create(Head("0" * 32, "localhost:1", "a"), Path(sys.argv[1]))
segment_log = SegmentLog(journal, warn=said.append)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
kept = sum(segment_log.append_points(records.framed_point(i, 0, float(i), b"loss"), 1) for i in range(1000))
assert kept == 1000, kept
assert len(said) == 1, said
size = journal.size()
assert size <= 10_000
segment_log._retry_at = 0.0
first = segment_log.take_memory(100)
assert len(first) <= 100
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
segment_log._retry_at = 0.0
segment_log.recover()
assert segment_log.append_points(records.framed_point(1000, 0, 1000.0, b"loss"), 1)
print(journal.folder, len(list(records.frames(first))))
"""


def test_full_disk_loses_no_record_that_fits_into_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    journal = Journal.open(Path(said[0]))
    found = kept(journal)
    missing = set(map(float, range(1001))) - set(found)
    assert len(missing) == int(said[1]) > 0
    assert found == sorted(found)


def test_memory_is_bounded_and_delivered_without_a_disk() -> None:
    segment_log = SegmentLog(None, memory_bytes=4_500)
    assert 80 < fill(segment_log, 1_000) < 120
    assert segment_log.take_dropped().points == 1_000 - segment_log.kept.points
    reader = MemoryReader(segment_log, RUN)
    found: list[float] = []
    while (batch := reader.next()) is not None:
        assert reader.next() is batch
        found += points_of(batch)
        for step in batch.steps:
            reader.note(step, Count(0, 0))
        reader.settle()
    assert found == [float(i) for i in range(segment_log.kept.points)]
    assert reader.settled == segment_log.kept
    assert fill(segment_log, 10) == 10


def test_many_threads_can_append(journal: Journal) -> None:
    segment_log = SegmentLog(journal, disk_bytes=1_000_000)
    threads = [threading.Thread(target=fill, args=(segment_log, 1_000, 1_000 * number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kept(journal)) == [float(i) for i in range(4_000)]
    assert segment_log.kept.points == 4_000


def test_segment_log_is_removed_only_when_closed_and_delivered(journal: Journal) -> None:
    segment_log = SegmentLog(journal)
    fill(segment_log, 1)
    assert not journal.remove_segment_log("0", lambda: True)
    segment_log.close()
    assert not journal.remove_segment_log("0", lambda: False)
    assert journal.remove_segment_log("0", lambda: True)
    assert journal.segment_logs() == []
    journal.remove()
    assert not journal.folder.parent.exists()
    assert fill(segment_log, 1) == 0


def test_journal_is_locked_by_one_deliverer(journal: Journal, tmp_path: Path) -> None:
    (folder,) = journals(tmp_path)
    other = Journal.open(folder)
    assert other.head == HEAD
    assert not other.lock()
    journal.unlock()
    assert other.lock()
    assert not journal.lock()
    assert list(journals(folder)) == list(journals(folder.parent)) == [folder]


def test_lock_on_a_removed_file_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = acquire_lock(path)
    assert first is not None
    path.unlink()
    second = acquire_lock(path)
    assert second is not None
    assert acquire_lock(path) is None
    os.close(first)
    os.close(second)


def test_unreadable_record_is_kept_and_reported(journal: Journal) -> None:
    segment_log = SegmentLog(journal)
    segment_log.append(b"\x63later", Count(0, 0, 1))
    with pytest.raises(InvalidRequest) as unreadable:
        Reader(journal, "0").next()
    assert unreadable.value.reason == "INVALID_JOURNAL"
    assert journal.size() > 0


def test_full_disk_handler_can_wait_for_a_logging_thread(journal: Journal) -> None:
    reported: list[bool] = []

    def wait_for_writer(_error: str) -> None:
        other = threading.Thread(target=fill, args=(segment_log, 1))
        other.start()
        other.join(scaled(10))
        reported.append(not other.is_alive())

    segment_log = SegmentLog(journal, disk_bytes=1, warn=wait_for_writer)
    fill(segment_log, 1)
    assert reported == [True]
