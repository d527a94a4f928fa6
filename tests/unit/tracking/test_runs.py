"""The rules of runs."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.errors import Kind, Rejected
from eventstore.event import Metadata, RecordedEvent
from eventstore.testing import Given, given
from rollforward import v1
from services.series.columns import Points, pack
from services.tracking import metrics_stream, run_stream
from services.tracking.deciders.run_commands import LogArtifact, Lose, Start
from services.tracking.deciders.run_state import RunState
from services.tracking.deciders.runs import RUNS, decide

RUN, OTHER = "0" * 31 + "a", "0" * 31 + "b"
MODEL = f"m-{RUN}"
D1, D2 = (f"sha256:{digit * 64}" for digit in "12")
STARTED = v1.RunStarted(run_id=RUN, experiment_id="1")
ACCURACY = pack("accuracy", Points(np.array([1, 2]), np.array([5, 6]), np.array([0.5, float("nan")])))
LOST = v1.RunLost(run_id=RUN)
DELETED = v1.RunDeleted(run_id=RUN)
RESUMED = v1.RunResumed(run_id=RUN)
POINTS = v1.MetricsLogged(run_id=RUN, series=[ACCURACY])
FINISHED, FAILED, KILLED = v1.RUN_STATUS_FINISHED, v1.RUN_STATUS_FAILED, v1.RUN_STATUS_KILLED


def start(**fields: object) -> Start:
    """Return a command that starts a run."""
    return Start(v1.StartRunRequest(**{"run_id": RUN, "experiment_id": "1"} | fields))  # type: ignore[arg-type]


def log(
    params: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    series: tuple[v1.Series, ...] = (),
    removed: tuple[str, ...] = (),
) -> v1.LogBatchRequest:
    """Return a request that logs a batch."""
    return v1.LogBatchRequest(run_id=RUN, params=params, tags=tags, series=series, removed_tags=removed)


def series(**fields: str) -> v1.Series:
    """Return a series of one point."""
    eight = b"12345678"
    return v1.Series(**{"key": "a"} | fields, steps=eight, timestamps=eight, values=eight)


def log_dataset(name: str = "train", digest: str = "d1", **fields: str) -> v1.LogLineageRequest:
    """Return a request that logs a dataset as input."""
    dataset = v1.DatasetInput(dataset=v1.Dataset(name=name, digest=digest, **fields), tags={"context": "training"})
    return v1.LogLineageRequest(run_id=RUN, inputs=[dataset])


def log_artifact(path: str = "model", digest: str = D1) -> LogArtifact:
    """Return a command that logs an artifact."""
    return LogArtifact(v1.LogArtifactRequest(run_id=RUN, path=path, digest=digest), 10, 2)


def logged(path: str = "model", digest: str = D1) -> v1.ArtifactLogged:
    """Return the event of a logged artifact."""
    return v1.ArtifactLogged(run_id=RUN, path=path, digest=digest, size_bytes=10, file_count=2)


class TestStartRun:
    def test_event_records_all_fields(self) -> None:
        fields = {
            "name": "rf-100",
            "start_time": Timestamp(seconds=9),
            "tags": {"a": "b"},
            "description": "why",
            "parent_run_id": OTHER,
            "source": v1.RunSource(entry_point="train.py", git_commit="a" * 40, packages=["numpy==2.0"]),
            "heartbeat": True,
            "scheduled": True,
        }
        given(RUNS).when(start(**fields)).then(v1.RunStarted(run_id=RUN, experiment_id="1", **fields))  # type: ignore[arg-type]

    def test_missing_start_time_is_not_invented(self) -> None:
        given(RUNS).when(start()).then(STARTED)

    def test_existing_run_is_rejected(self) -> None:
        refusal = given(RUNS, STARTED).when(start()).then_rejected("RUN_EXISTS")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.EXISTS

    def test_deleted_experiment_is_rejected(self) -> None:
        rejection = Rejected(Kind.PRECONDITION, "EXPERIMENT_DELETED", "it is deleted")
        given(RUNS).when(Start(start().request, rejection)).then_rejected("EXPERIMENT_DELETED")

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"run_id": RUN.upper()}, "INVALID_RUN_ID"),
            ({"run_id": "a"}, "INVALID_RUN_ID"),
            ({"parent_run_id": "a"}, "INVALID_RUN_ID"),
            ({"name": "\x07"}, "INVALID_NAME"),
            ({"name": "x" * 501}, "INVALID_NAME"),
            ({"description": "x" * 20_001}, "INVALID_DESCRIPTION"),
            ({"tags": {"": ""}}, "INVALID_KEY"),
            ({"tags": {"k": "x" * 8001}}, "INVALID_VALUE"),
            ({"start_time": Timestamp(seconds=2**40)}, "INVALID_TIME"),
            ({"start_time": Timestamp(seconds=-(2**63))}, "INVALID_TIME"),
            ({"start_time": Timestamp(nanos=-1)}, "INVALID_TIME"),
            ({"start_time": Timestamp(nanos=10**9)}, "INVALID_TIME"),
        ],
        ids=count(),
    )
    def test_invalid_field_is_rejected(self, fields: dict[str, object], reason: str) -> None:
        given(RUNS).when(start(**fields)).then_rejected(reason)

    @pytest.mark.parametrize(
        "source",
        [
            {"git_commit": "a" * 39},
            {"git_commit": "A" * 40},
            {"git_url": "https://zoe:secret@example.com/repo.git"},
            {"git_url": "https://token@example.com/repo.git"},
            {"git_url": "ssh://zoe:secret@example.com/repo.git"},
            {"git_url": "https://[/"},
            {"entry_point": "x" * 4097},
            {"host": "a\0"},
            {"packages": ["x" * 501]},
            {"packages": ["a==1"] * 10_001},
        ],
        ids=count(),
    )
    def test_invalid_source_is_rejected(self, source: dict[str, object]) -> None:
        given(RUNS).when(start(source=v1.RunSource(**source))).then_rejected("INVALID_SOURCE")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        "source",
        [
            {"git_commit": "a" * 64, "git_dirty": True},
            {"git_url": "https://example.com/repo.git"},
            {"git_url": "git@example.com:team/repo.git"},
            {"git_url": "ssh://git@example.com/repo.git"},
        ],
        ids=count(),
    )
    def test_valid_source_is_accepted(self, source: dict[str, object]) -> None:
        run_source = v1.RunSource(**source)  # type: ignore[arg-type]
        given(RUNS).when(start(source=run_source)).then(v1.RunStarted(run_id=RUN, experiment_id="1", source=run_source))


class TestLogBatch:
    def test_labels_and_points_are_two_events(self) -> None:
        given(RUNS, STARTED).when(log({"depth": "3"}, {"owner": "Zoë"}, (ACCURACY,))).then(
            v1.RunLogged(run_id=RUN, params={"depth": "3"}, tags={"owner": "Zoë"}),
            v1.MetricsLogged(run_id=RUN, series=[ACCURACY]),
        )

    def test_empty_batch_changes_nothing(self) -> None:
        given(RUNS, STARTED).when(log()).then()

    def test_parameter_does_not_change(self) -> None:
        logged_before = given(RUNS, STARTED, v1.RunLogged(run_id=RUN, params={"depth": "3"}))
        logged_before.when(log({"depth": "3"})).then()
        logged_before.when(log({"depth": "3", "new": ""})).then(v1.RunLogged(run_id=RUN, params={"new": ""}))
        refusal = logged_before.when(log({"depth": "4", "new": ""})).then_rejected("PARAM_CHANGED")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.PRECONDITION
        assert refusal.metadata["key"] == "depth"

    def test_tag_may_change(self) -> None:
        logged_before = given(RUNS, STARTED, v1.RunLogged(run_id=RUN, tags={"a": "1"}))
        logged_before.when(log(tags={"a": "2"})).then(v1.RunLogged(run_id=RUN, tags={"a": "2"}))

    @pytest.mark.parametrize("key", ["b", " b ", "\u212b", "old, key"])
    def test_tag_with_any_key_may_be_removed(self, key: str) -> None:
        tagged = given(RUNS, STARTED, v1.RunLogged(run_id=RUN, tags={key: "1", "c": "1"}))
        batch = log(tags={"a": "2"}, removed=("c", key, "c", "unknown"))
        removed = v1.RunLogged(run_id=RUN, tags={"a": "2"}, removed_tags=sorted([key, "c"]))
        tagged.when(batch).then(removed)
        given(RUNS, STARTED).when(log(removed=(key,))).then()

    def test_deleted_run_accepts_points(self) -> None:
        deleted = given(RUNS, STARTED, DELETED)
        deleted.when(log({"a": "b"})).then_rejected("RUN_DELETED")
        deleted.when(log(series=(ACCURACY,))).then(POINTS)
        deleted.when(log({"a": "b"}, series=(ACCURACY,))).then(v1.RunLogged(run_id=RUN, params={"a": "b"}), POINTS)

    def test_points_resume_lost_run(self) -> None:
        lost = given(RUNS, STARTED, LOST)
        lost.when(log(series=(ACCURACY,))).then(RESUMED, POINTS)
        lost.when(log({"a": "b"})).then(v1.RunLogged(run_id=RUN, params={"a": "b"}))

    def test_points_may_name_model_and_dataset(self) -> None:
        about = series(model_id=MODEL, dataset_name="train", dataset_digest="d1")
        given(RUNS, STARTED).when(log(series=(about,))).then(v1.MetricsLogged(run_id=RUN, series=[about]))

    def test_finished_run_accepts_points(self) -> None:
        ended = given(RUNS, STARTED, v1.RunFinished(run_id=RUN, status=FINISHED))
        ended.when(log(series=(ACCURACY,))).then(v1.MetricsLogged(run_id=RUN, series=[ACCURACY]))

    def test_unknown_run_is_rejected(self) -> None:
        given(RUNS).when(log({"a": "b"})).then_rejected("RUN_NOT_FOUND")

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (log({"": "x"}), "INVALID_KEY"),
            (log({"k" * 251: "x"}), "INVALID_KEY"),
            (log({"k": "x" * 6001}), "INVALID_VALUE"),
            (log(tags={"k\n": "x"}), "INVALID_KEY"),
            (log(tags={"k": "x" * 8001}), "INVALID_VALUE"),
            (log(tags={"k": "x"}, removed=("k",)), "INVALID_KEY"),
            (log(removed=("",)), "INVALID_KEY"),
            (log(removed=("k" * 251,)), "INVALID_KEY"),
            (log(series=(series(key="a,b"),)), "INVALID_KEY"),
            (log(series=(series(model_id="m"),)), "INVALID_MODEL_ID"),
            (log(series=(series(dataset_name="train"),)), "INVALID_DATASET"),
            (log(series=(series(dataset_name="train", dataset_digest="d" * 37),)), "INVALID_DATASET"),
            (log(series=(v1.Series(key=""),)), "INVALID_KEY"),
            (log(series=(v1.Series(key="a"),)), "INVALID_SERIES"),
            (log(series=(ACCURACY, v1.Series(key="a", steps=b"1234567", timestamps=b"1234567", values=b"1234567"))),
             "INVALID_SERIES"),
            (log(series=(v1.Series(key="a", steps=b"12345678", timestamps=b"12345678", values=b"12345678" * 2),)),
             "INVALID_SERIES"),
        ],
        ids=count(),
    )  # fmt: skip
    def test_invalid_batch_is_rejected(self, command: v1.LogBatchRequest, reason: str) -> None:
        given(RUNS, STARTED).when(command).then_rejected(reason)


class TestLogArtifact:
    def test_artifact_is_logged(self) -> None:
        given(RUNS, STARTED).when(log_artifact()).then(logged())
        given(RUNS, STARTED).when(log_artifact("")).then(logged(""))

    def test_same_artifact_changes_nothing(self) -> None:
        given(RUNS, STARTED, logged()).when(log_artifact()).then()

    def test_new_artifact_replaces_old_one_at_path(self) -> None:
        given(RUNS, STARTED, logged()).when(log_artifact(digest=D2)).then(logged(digest=D2))

    def test_unknown_run_is_rejected(self) -> None:
        given(RUNS).when(log_artifact()).then_rejected("RUN_NOT_FOUND")

    @pytest.mark.parametrize("path", ["..", "a/../b", "/etc/passwd", "a//b", ".", "a\\b", "a\0", "a/" * 600])
    def test_invalid_path_is_rejected(self, path: str) -> None:
        given(RUNS, STARTED).when(log_artifact(path)).then_rejected("INVALID_PATH")

    def test_invalid_digest_is_rejected(self) -> None:
        given(RUNS, STARTED).when(log_artifact(digest="md5:1")).then_rejected("INVALID_DIGEST")


class TestLogLineage:
    def test_inputs_and_outputs_are_two_events(self) -> None:
        request, outputs = log_dataset(), [v1.ModelOutput(model_id=MODEL, step=3)]
        request.outputs.extend(outputs)
        given(RUNS, STARTED).when(request).then(
            v1.RunInputsLogged(run_id=RUN, inputs=request.inputs), v1.RunOutputsLogged(run_id=RUN, outputs=outputs)
        )

    def test_empty_lineage_changes_nothing(self) -> None:
        given(RUNS, STARTED).when(v1.LogLineageRequest(run_id=RUN)).then()

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (log_dataset(name=""), "INVALID_DATASET"),
            (log_dataset(name="x" * 501), "INVALID_DATASET"),
            (log_dataset(digest=""), "INVALID_DATASET"),
            (log_dataset(digest="x" * 37), "INVALID_DATASET"),
            (log_dataset(source_type="x" * 101), "INVALID_DATASET"),
            (log_dataset(source="x" * 65_536), "INVALID_DATASET"),
            (v1.LogLineageRequest(run_id=RUN, outputs=[v1.ModelOutput(model_id=RUN)]), "INVALID_MODEL_ID"),
        ],
        ids=count(),
    )
    def test_invalid_lineage_is_rejected(self, command: v1.LogLineageRequest, reason: str) -> None:
        given(RUNS, STARTED).when(command).then_rejected(reason)

    @pytest.mark.parametrize(("tags", "reason"), [({"": ""}, "INVALID_KEY"), ({"k": "x" * 501}, "INVALID_VALUE")])
    def test_invalid_tag_of_input_is_rejected(self, tags: dict[str, str], reason: str) -> None:
        dataset = v1.DatasetInput(dataset=v1.Dataset(name="train", digest="d1"), tags=tags)
        given(RUNS, STARTED).when(v1.LogLineageRequest(run_id=RUN, inputs=[dataset])).then_rejected(reason)


class TestFinishRun:
    @pytest.mark.parametrize("status", [FINISHED, FAILED, KILLED])
    def test_run_is_finished(self, status: v1.RunStatus.ValueType) -> None:
        finished = v1.RunFinished(run_id=RUN, status=status, end_time=Timestamp(seconds=9))
        command = v1.FinishRunRequest(run_id=RUN, status=status, end_time=Timestamp(seconds=9))
        given(RUNS, STARTED).when(command).then(finished)
        given(RUNS, STARTED, finished).when(command).then()

    @pytest.mark.parametrize("before", [LOST, DELETED])
    def test_lost_or_deleted_run_may_finish(self, before: Message) -> None:
        finish = v1.FinishRunRequest(run_id=RUN, status=FAILED)
        given(RUNS, STARTED, before).when(finish).then(v1.RunFinished(run_id=RUN, status=FAILED))

    def test_final_status_may_change(self) -> None:
        ended = given(RUNS, STARTED, v1.RunFinished(run_id=RUN, status=FINISHED))
        ended.when(v1.FinishRunRequest(run_id=RUN, status=KILLED)).then(v1.RunFinished(run_id=RUN, status=KILLED))

    @pytest.mark.parametrize("status", [0, 1, 99])
    def test_invalid_final_status_is_rejected(self, status: v1.RunStatus.ValueType) -> None:
        given(RUNS, STARTED).when(v1.FinishRunRequest(run_id=RUN, status=status)).then_rejected("INVALID_STATUS")

    def test_invalid_end_time_is_rejected(self) -> None:
        command = v1.FinishRunRequest(run_id=RUN, status=FINISHED, end_time=Timestamp(seconds=2**50))
        given(RUNS, STARTED).when(command).then_rejected("INVALID_TIME")

    def test_unknown_run_is_rejected(self) -> None:
        given(RUNS).when(v1.FinishRunRequest(run_id=RUN, status=FINISHED)).then_rejected("RUN_NOT_FOUND")


class TestLiveness:
    ATTENDED = v1.RunStarted(run_id=RUN, experiment_id="1", heartbeat=True)
    SCHEDULED = v1.RunStarted(run_id=RUN, experiment_id="1", heartbeat=True, scheduled=True)
    ENDED = v1.RunFinished(run_id=RUN, status=KILLED)
    RESUME = v1.ResumeRunRequest(run_id=RUN)
    ATTEND = v1.AttendRunRequest(run_id=RUN)

    @pytest.mark.parametrize("before", [(STARTED, ENDED), (ATTENDED, LOST), (SCHEDULED,)], ids=count())
    def test_run_that_is_not_running_is_resumed(self, before: tuple[Message, ...]) -> None:
        given(RUNS, *before).when(self.RESUME).then(RESUMED)
        given(RUNS, *before, RESUMED).when(self.RESUME).then()

    def test_heartbeat_resumes_only_lost_run(self) -> None:
        given(RUNS, self.ATTENDED, LOST).when(self.ATTEND).then(RESUMED)
        for before in ((self.ATTENDED,), (self.SCHEDULED,), (self.ATTENDED, self.ENDED)):
            given(RUNS, *before).when(self.ATTEND).then()

    def test_missing_heartbeat_marks_only_running_run_as_lost(self) -> None:
        lose, at = Lose(RUN, Timestamp(seconds=9)), Timestamp(seconds=9)
        given(RUNS, self.ATTENDED).when(lose).then(v1.RunLost(run_id=RUN, last_heard=at))
        given(RUNS, self.SCHEDULED, RESUMED).when(Lose(RUN)).then(LOST)
        for before in (
            (STARTED,),
            (self.SCHEDULED,),
            (self.ATTENDED, self.ENDED),
            (self.ATTENDED, LOST),
            (self.ATTENDED, DELETED),
        ):
            given(RUNS, *before).when(lose).then()

    def test_run_is_deleted_and_restored(self) -> None:
        delete, restore = v1.DeleteRunRequest(run_id=RUN), v1.RestoreRunRequest(run_id=RUN)
        restored = v1.RunRestored(run_id=RUN)
        given(RUNS, STARTED).when(restore).then()
        given(RUNS, STARTED).when(delete).then(DELETED)
        given(RUNS, STARTED, DELETED).when(delete).then()
        given(RUNS, STARTED, DELETED).when(restore).then(restored)
        given(RUNS, STARTED, DELETED, restored).when(self.RESUME).then()


class TestNameAndDescription:
    def test_name_may_change(self) -> None:
        named = given(RUNS, v1.RunStarted(run_id=RUN, name="old"))
        rename = v1.RenameRunRequest(run_id=RUN, new_name="new")
        named.when(rename).then(v1.RunRenamed(run_id=RUN, from_name="old", to_name="new"))
        named.when(v1.RenameRunRequest(run_id=RUN, new_name="old")).then()
        named.when(v1.RenameRunRequest(run_id=RUN, new_name="x" * 501)).then_rejected("INVALID_NAME")

    def test_description_may_change(self) -> None:
        described = given(RUNS, v1.RunStarted(run_id=RUN, description="old"))
        described.when(v1.DescribeRunRequest(run_id=RUN)).then(v1.RunDescribed(run_id=RUN))
        described.when(v1.DescribeRunRequest(run_id=RUN, description="old")).then()
        too_long = v1.DescribeRunRequest(run_id=RUN, description="x" * 20_001)
        described.when(too_long).then_rejected("INVALID_DESCRIPTION")


CHANGES = [
    log({"a": "b"}),
    log_dataset(),
    log_artifact(),
    v1.ResumeRunRequest(run_id=RUN),
    v1.AttendRunRequest(run_id=RUN),
    v1.RenameRunRequest(run_id=RUN, new_name="new"),
    v1.DescribeRunRequest(run_id=RUN, description="new"),
]


@pytest.mark.parametrize("command", CHANGES, ids=count())
def test_deleted_run_rejects_changes(command: object) -> None:
    given(RUNS, STARTED, DELETED).when(command).then_rejected("RUN_DELETED")


@pytest.mark.parametrize(
    "command",
    [*CHANGES, log(series=(ACCURACY,)), v1.DeleteRunRequest(run_id=RUN), v1.RestoreRunRequest(run_id=RUN)],
    ids=count(),
)
def test_unknown_run_is_rejected_by_all_commands(command: object) -> None:
    given(RUNS).when(command).then_rejected("RUN_NOT_FOUND")


def test_metrics_have_their_own_stream() -> None:
    assert RUNS.stream_of
    assert RUNS.stream_of(STARTED) == run_stream(RUN)
    assert RUNS.stream_of(v1.MetricsLogged(run_id=RUN)) == metrics_stream(RUN)


def test_other_message_raises_type_error() -> None:
    with pytest.raises(TypeError):
        decide(v1.GetRunRequest(run_id=RUN), RunState())


labels = st.dictionaries(st.sampled_from(["a", "b", ""]), st.sampled_from(["1", "2"]), max_size=2)
commands = st.one_of(
    st.builds(start, run_id=st.sampled_from([RUN, "x"]), heartbeat=st.booleans(), scheduled=st.booleans()),
    st.builds(log, labels, labels, st.sampled_from([(), (ACCURACY,), (v1.Series(key="a"),)])),
    st.builds(log_artifact, st.sampled_from(["m", "", ".."]), st.sampled_from([D1, D2, "x"])),
    st.builds(v1.FinishRunRequest, run_id=st.just(RUN), status=st.sampled_from([FINISHED, FAILED, KILLED])),
    st.sampled_from([v1.ResumeRunRequest(run_id=RUN), v1.AttendRunRequest(run_id=RUN), Lose(RUN)]),
    st.sampled_from([v1.DeleteRunRequest(run_id=RUN), v1.RestoreRunRequest(run_id=RUN)]),
)


@for_all(st.lists(commands, max_size=15))
def test_any_commands_leave_run_consistent(requests: list[object]) -> None:
    """Deciding is pure, the start comes first, and parameters never change."""
    state, payloads = RUNS.initial, list[Message]()
    params: dict[str, str] = {}
    for command in requests:
        for payload in Given(RUNS, state).when(command).events:
            payloads.append(payload)
            state = RUNS.evolve(state, RecordedEvent("", len(payloads), 0, "", payload, Metadata("a"), len(payloads)))
            if isinstance(payload, v1.RunLogged):
                assert not params.keys() & payload.params.keys()
                params.update(payload.params)
            if isinstance(payload, v1.RunLost):
                assert state.heartbeat
    assert [isinstance(payload, v1.RunStarted) for payload in payloads] == [
        number == 0 for number in range(len(payloads))
    ]
    assert dict(state.params.items()) == params
