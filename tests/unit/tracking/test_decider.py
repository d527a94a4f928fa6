"""The rules of experiments and of a run, one by one."""

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
from services.series import Points, pack
from services.tracking import EXPERIMENTS_STREAM, metrics_stream, run_stream
from services.tracking.decider import (
    EXPERIMENTS,
    RUNS,
    LogArtifact,
    RunState,
    decide_experiment,
    decide_run,
    evolve_run,
)

RUN = "0" * 31 + "a"
D1, D2 = (f"sha256:{digit * 64}" for digit in "12")
STARTED = v1.RunStarted(run_id=RUN, experiment_id="1")
ACCURACY = pack("accuracy", Points(np.array([1, 2]), np.array([5, 6]), np.array([0.5, float("nan")])))
FINISHED, FAILED, KILLED = v1.RUN_STATUS_FINISHED, v1.RUN_STATUS_FAILED, v1.RUN_STATUS_KILLED


def log(
    params: dict[str, str] | None = None, tags: dict[str, str] | None = None, series: tuple[v1.Series, ...] = ()
) -> v1.LogBatchRequest:
    """Asks for a batch to be logged."""
    return v1.LogBatchRequest(run_id=RUN, params=params, tags=tags, series=series)


def log_artifact(path: str = "model", digest: str = D1) -> LogArtifact:
    """Asks for an artifact to be logged."""
    return LogArtifact(v1.LogArtifactRequest(run_id=RUN, path=path, digest=digest), 10, 2)


def logged(path: str = "model", digest: str = D1) -> v1.ArtifactLogged:
    """An artifact was logged."""
    return v1.ArtifactLogged(run_id=RUN, path=path, digest=digest, size_bytes=10, file_count=2)


class TestExperiments:
    def test_are_numbered_in_order(self) -> None:
        first = v1.ExperimentCreated(experiment_id="1", name="fraud", tags={"a": "b"})
        given(EXPERIMENTS).when(v1.CreateExperimentRequest(name="fraud", tags={"a": "b"})).then(first)
        second = v1.ExperimentCreated(experiment_id="2", name="iris")
        given(EXPERIMENTS, first).when(v1.CreateExperimentRequest(name="iris")).then(second)

    def test_have_unique_names(self) -> None:
        first = v1.ExperimentCreated(experiment_id="1", name="fraud")
        refusal = given(EXPERIMENTS, first).when(v1.CreateExperimentRequest(name="fraud"))
        assert refusal.then_rejected("EXPERIMENT_EXISTS").metadata == {"experiment": "fraud"}

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (v1.CreateExperimentRequest(), "INVALID_NAME"),
            (v1.CreateExperimentRequest(name="x" * 501), "INVALID_NAME"),
            (v1.CreateExperimentRequest(name="a\nb"), "INVALID_NAME"),
            (v1.CreateExperimentRequest(name="a", tags={" ": ""}), "INVALID_KEY"),
            (v1.CreateExperimentRequest(name="a", tags={"k": "x" * 8001}), "INVALID_VALUE"),
        ],
        ids=count(),
    )
    def test_are_well_named(self, command: v1.CreateExperimentRequest, reason: str) -> None:
        given(EXPERIMENTS).when(command).then_rejected(reason)


class TestStartRun:
    def test_starts(self) -> None:
        command = v1.StartRunRequest(
            run_id=RUN, experiment_id="1", name="rf-100", start_time=Timestamp(seconds=9), tags={"a": "b"}
        )
        started = v1.RunStarted(
            run_id=RUN, experiment_id="1", name="rf-100", start_time=Timestamp(seconds=9), tags={"a": "b"}
        )
        given(RUNS).when(command).then(started)

    def test_a_time_that_is_not_told_is_not_made_up(self) -> None:
        given(RUNS).when(v1.StartRunRequest(run_id=RUN, experiment_id="1")).then(STARTED)

    def test_only_once(self) -> None:
        refusal = given(RUNS, STARTED).when(v1.StartRunRequest(run_id=RUN)).then_rejected("RUN_EXISTS")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.EXISTS

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (v1.StartRunRequest(run_id=RUN.upper()), "INVALID_RUN_ID"),
            (v1.StartRunRequest(run_id="a"), "INVALID_RUN_ID"),
            (v1.StartRunRequest(run_id=RUN, name="\x07"), "INVALID_NAME"),
            (v1.StartRunRequest(run_id=RUN, name="x" * 501), "INVALID_NAME"),
            (v1.StartRunRequest(run_id=RUN, tags={"": ""}), "INVALID_KEY"),
            (v1.StartRunRequest(run_id=RUN, start_time=Timestamp(seconds=2**40)), "INVALID_TIME"),
            (v1.StartRunRequest(run_id=RUN, start_time=Timestamp(seconds=-(2**63))), "INVALID_TIME"),
            (v1.StartRunRequest(run_id=RUN, start_time=Timestamp(nanos=-1)), "INVALID_TIME"),
            (v1.StartRunRequest(run_id=RUN, start_time=Timestamp(nanos=10**9)), "INVALID_TIME"),
        ],
        ids=count(),
    )
    def test_well_formed_only(self, command: v1.StartRunRequest, reason: str) -> None:
        given(RUNS).when(command).then_rejected(reason)


class TestLogBatch:
    def test_parameters_and_tags_are_one_fact_and_points_another(self) -> None:
        given(RUNS, STARTED).when(log({"depth": "3"}, {"owner": "Zoë"}, (ACCURACY,))).then(
            v1.RunLogged(run_id=RUN, params={"depth": "3"}, tags={"owner": "Zoë"}),
            v1.MetricsLogged(run_id=RUN, series=[ACCURACY]),
        )

    def test_of_nothing(self) -> None:
        given(RUNS, STARTED).when(log()).then()

    def test_a_parameter_is_written_once(self) -> None:
        once = given(RUNS, STARTED, v1.RunLogged(run_id=RUN, params={"depth": "3"}))
        once.when(log({"depth": "3"})).then()
        once.when(log({"depth": "3", "new": ""})).then(v1.RunLogged(run_id=RUN, params={"new": ""}))
        refusal = once.when(log({"depth": "4", "new": ""})).then_rejected("PARAM_CHANGED")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.PRECONDITION
        assert refusal.metadata["key"] == "depth"

    def test_a_tag_may_change(self) -> None:
        once = given(RUNS, STARTED, v1.RunLogged(run_id=RUN, tags={"a": "1"}))
        once.when(log(tags={"a": "2"})).then(v1.RunLogged(run_id=RUN, tags={"a": "2"}))

    def test_of_a_run_that_has_ended(self) -> None:
        ended = given(RUNS, STARTED, v1.RunFinished(run_id=RUN, status=FINISHED))
        ended.when(log(series=(ACCURACY,))).then(v1.MetricsLogged(run_id=RUN, series=[ACCURACY]))

    def test_of_an_unknown_run(self) -> None:
        given(RUNS).when(log({"a": "b"})).then_rejected("RUN_NOT_FOUND")

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (log({"": "x"}), "INVALID_KEY"),
            (log({"k" * 251: "x"}), "INVALID_KEY"),
            (log({"k": "x" * 6001}), "INVALID_VALUE"),
            (log(tags={"k\n": "x"}), "INVALID_KEY"),
            (log(tags={"k": "x" * 8001}), "INVALID_VALUE"),
            (log(series=(v1.Series(key=""),)), "INVALID_KEY"),
            (log(series=(v1.Series(key="a"),)), "INVALID_SERIES"),
            (log(series=(ACCURACY, v1.Series(key="a", steps=b"1234567", timestamps=b"1234567", values=b"1234567"))),
             "INVALID_SERIES"),
            (log(series=(v1.Series(key="a", steps=b"12345678", timestamps=b"12345678", values=b"12345678" * 2),)),
             "INVALID_SERIES"),
        ],
        ids=count(),
    )  # fmt: skip
    def test_well_formed_only(self, command: v1.LogBatchRequest, reason: str) -> None:
        given(RUNS, STARTED).when(command).then_rejected(reason)


class TestLogArtifact:
    def test_is_logged(self) -> None:
        given(RUNS, STARTED).when(log_artifact()).then(logged())
        given(RUNS, STARTED).when(log_artifact("")).then(logged(""))

    def test_again_changes_nothing(self) -> None:
        given(RUNS, STARTED, logged()).when(log_artifact()).then()

    def test_another_takes_its_path(self) -> None:
        given(RUNS, STARTED, logged()).when(log_artifact(digest=D2)).then(logged(digest=D2))

    def test_of_an_unknown_run(self) -> None:
        given(RUNS).when(log_artifact()).then_rejected("RUN_NOT_FOUND")

    @pytest.mark.parametrize("path", ["..", "a/../b", "/etc/passwd", "a//b", ".", "a\\b", "a\0", "a/" * 600])
    def test_a_path_must_not_climb_out(self, path: str) -> None:
        given(RUNS, STARTED).when(log_artifact(path)).then_rejected("INVALID_PATH")

    def test_a_digest_is_a_digest(self) -> None:
        given(RUNS, STARTED).when(log_artifact(digest="md5:1")).then_rejected("INVALID_DIGEST")


class TestFinishRun:
    @pytest.mark.parametrize("status", [FINISHED, FAILED, KILLED])
    def test_ends(self, status: v1.RunStatus.ValueType) -> None:
        finished = v1.RunFinished(run_id=RUN, status=status, end_time=Timestamp(seconds=9))
        command = v1.FinishRunRequest(run_id=RUN, status=status, end_time=Timestamp(seconds=9))
        given(RUNS, STARTED).when(command).then(finished)
        given(RUNS, STARTED, finished).when(command).then()

    def test_otherwise_than_before(self) -> None:
        ended = given(RUNS, STARTED, v1.RunFinished(run_id=RUN, status=FINISHED))
        ended.when(v1.FinishRunRequest(run_id=RUN, status=KILLED)).then(v1.RunFinished(run_id=RUN, status=KILLED))

    @pytest.mark.parametrize("status", [0, 1, 99])
    def test_not_as_running(self, status: v1.RunStatus.ValueType) -> None:
        given(RUNS, STARTED).when(v1.FinishRunRequest(run_id=RUN, status=status)).then_rejected("INVALID_STATUS")

    def test_at_no_time(self) -> None:
        command = v1.FinishRunRequest(run_id=RUN, status=FINISHED, end_time=Timestamp(seconds=2**50))
        given(RUNS, STARTED).when(command).then_rejected("INVALID_TIME")

    def test_of_an_unknown_run(self) -> None:
        given(RUNS).when(v1.FinishRunRequest(run_id=RUN, status=FINISHED)).then_rejected("RUN_NOT_FOUND")


def test_each_fact_has_its_stream() -> None:
    assert EXPERIMENTS.stream_of
    assert EXPERIMENTS.stream_of(v1.ExperimentCreated(name="a")) == EXPERIMENTS_STREAM
    assert RUNS.stream_of
    assert RUNS.stream_of(STARTED) == run_stream(RUN)
    assert RUNS.stream_of(v1.MetricsLogged(run_id=RUN)) == metrics_stream(RUN)


def test_only_commands_are_decided() -> None:
    with pytest.raises(TypeError):
        decide_run(v1.GetRunRequest(run_id=RUN), RunState())
    with pytest.raises(TypeError):
        decide_experiment(v1.GetExperimentRequest(), EXPERIMENTS.initial)


words = st.dictionaries(st.sampled_from(["a", "b", ""]), st.sampled_from(["1", "2"]), max_size=2)
commands = st.one_of(
    st.builds(v1.StartRunRequest, run_id=st.sampled_from([RUN, "x"])),
    st.builds(log, words, words, st.sampled_from([(), (ACCURACY,), (v1.Series(key="a"),)])),
    st.builds(log_artifact, st.sampled_from(["m", "", ".."]), st.sampled_from([D1, D2, "x"])),
    st.builds(v1.FinishRunRequest, run_id=st.just(RUN), status=st.sampled_from([FINISHED, FAILED, KILLED])),
)


@for_all(st.lists(commands, max_size=15))
def test_whatever_is_asked_a_run_stays_sound(asked: list[object]) -> None:
    """Deciding is pure, nothing is before the start, a parameter never changes, and no fact repeats the one before."""
    state, facts = RUNS.initial, list[Message]()
    params: dict[str, str] = {}
    for command in asked:
        for fact in Given(RUNS, state).when(command).events:
            facts.append(fact)
            state = evolve_run(state, RecordedEvent("", len(facts), 0, "", fact, Metadata("a"), len(facts)))
            if isinstance(fact, v1.RunLogged):
                assert not params.keys() & fact.params.keys()
                params.update(fact.params)
    assert [isinstance(fact, v1.RunStarted) for fact in facts] == [number == 0 for number in range(len(facts))]
    assert dict(state.params.items()) == params
