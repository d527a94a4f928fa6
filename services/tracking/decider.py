"""The rules of the tracking log: what may happen to experiments and to a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from google.protobuf.message import Message
from rpds import HashTrieMap, HashTrieSet

from eventstore.decider import Decider
from eventstore.errors import Kind, Rejected
from eventstore.event import RecordedEvent
from rollforward import v1
from services.names import check_digest, check_id, check_text
from services.series import unpack
from services.times import nanoseconds
from services.tracking import EXPERIMENTS_STREAM, metrics_stream, run_stream
from services.tracking.manifests import check_paths

RunEvent = v1.RunStarted | v1.RunLogged | v1.MetricsLogged | v1.ArtifactLogged | v1.RunFinished

LONGEST_KEY = 250
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
ENDINGS = (v1.RUN_STATUS_FINISHED, v1.RUN_STATUS_FAILED, v1.RUN_STATUS_KILLED)


@dataclass(frozen=True, slots=True)
class Experiments:
    """What deciding about experiments takes: the names that are given."""

    names: HashTrieSet[str] = field(default_factory=HashTrieSet)


def decide_experiment(command: object, state: Experiments) -> Sequence[Message]:
    """What a command makes happen to experiments."""
    if not isinstance(command, v1.CreateExperimentRequest):
        raise TypeError(f"not a command of experiments: {type(command).__name__}")
    check_text(command.name, "the experiment's name", 500, "INVALID_NAME")
    _check_texts(command.tags, "tag", LONGEST_TAG)
    if command.name in state.names:
        words = f"experiment {command.name!r} exists"
        raise Rejected(Kind.EXISTS, "EXPERIMENT_EXISTS", words, experiment=command.name)
    number = str(len(state.names) + 1)
    return [v1.ExperimentCreated(experiment_id=number, name=command.name, tags=command.tags)]


def evolve_experiments(state: Experiments, event: RecordedEvent) -> Experiments:
    """The experiments after an event."""
    assert isinstance(event.data, v1.ExperimentCreated)  # noqa: S101
    return Experiments(state.names.insert(event.data.name))


EXPERIMENTS: Decider[Experiments] = Decider(
    Experiments(), decide_experiment, evolve_experiments, lambda _: EXPERIMENTS_STREAM
)


@dataclass(frozen=True, slots=True)
class RunState:
    """What deciding about a run takes: how it stands, its parameters, and its artifacts' digests by path."""

    status: v1.RunStatus.ValueType = v1.RUN_STATUS_UNSPECIFIED
    params: HashTrieMap[str, str] = field(default_factory=HashTrieMap)
    artifacts: HashTrieMap[str, str] = field(default_factory=HashTrieMap)


@dataclass(frozen=True, slots=True)
class LogArtifact:
    """A request to log an artifact, with what its manifest says: all bytes together, and how many files."""

    request: v1.LogArtifactRequest
    size_bytes: int
    file_count: int


def decide_run(command: object, state: RunState) -> Sequence[Message]:
    """What a command makes happen to a run."""
    match command:
        case v1.StartRunRequest():
            return _start(command, state)
        case v1.LogBatchRequest():
            return _log(command, state)
        case LogArtifact():
            return _log_artifact(command, state)
        case v1.FinishRunRequest():
            return _finish(command, state)
        case _:
            raise TypeError(f"not a command of a run: {type(command).__name__}")


def _start(command: v1.StartRunRequest, state: RunState) -> Sequence[Message]:
    check_id(command.run_id, "INVALID_RUN_ID")
    check_text(command.name, "the run's name", 500, "INVALID_NAME", shortest=0)
    nanoseconds(command.start_time)
    _check_texts(command.tags, "tag", LONGEST_TAG)
    if state.status != v1.RUN_STATUS_UNSPECIFIED:
        raise Rejected(Kind.EXISTS, "RUN_EXISTS", f"run {command.run_id} exists", run_id=command.run_id)
    started = v1.RunStarted(
        run_id=command.run_id,
        experiment_id=command.experiment_id,
        name=command.name,
        start_time=command.start_time if command.HasField("start_time") else None,
        tags=command.tags,
    )
    return [started]


def _log(command: v1.LogBatchRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    _check_texts(command.params, "param", LONGEST_PARAM)
    _check_texts(command.tags, "tag", LONGEST_TAG)
    for series in command.series:
        check_text(series.key, "a metric's name", LONGEST_KEY, "INVALID_KEY")
        unpack(series)
    events: list[Message] = []
    new = {key: value for key, value in command.params.items() if _is_new(command.run_id, key, value, state)}
    if new or command.tags:
        events.append(v1.RunLogged(run_id=command.run_id, params=new, tags=command.tags))
    if command.series:
        events.append(v1.MetricsLogged(run_id=command.run_id, series=command.series))
    return events


def _is_new(run_id: str, key: str, value: str, state: RunState) -> bool:
    held = state.params.get(key)
    if held is not None and held != value:
        words = f"parameter {key!r} is {held[:200]!r} and cannot become {value[:200]!r}"
        raise Rejected(Kind.PRECONDITION, "PARAM_CHANGED", words, run_id=run_id, key=key)
    return held is None


def _log_artifact(command: LogArtifact, state: RunState) -> Sequence[Message]:
    request = command.request
    _check_started(request.run_id, state)
    check_digest(request.digest)
    if request.path:
        check_paths([request.path])
    if state.artifacts.get(request.path) == request.digest:
        return []
    logged = v1.ArtifactLogged(
        run_id=request.run_id,
        path=request.path,
        digest=request.digest,
        size_bytes=command.size_bytes,
        file_count=command.file_count,
    )
    return [logged]


def _finish(command: v1.FinishRunRequest, state: RunState) -> Sequence[Message]:
    _check_started(command.run_id, state)
    if command.status not in ENDINGS:
        words = "a run ends as FINISHED, FAILED or KILLED"
        raise Rejected(Kind.INVALID, "INVALID_STATUS", words, status=str(command.status))
    nanoseconds(command.end_time)
    if command.status == state.status:
        return []
    end_time = command.end_time if command.HasField("end_time") else None
    return [v1.RunFinished(run_id=command.run_id, status=command.status, end_time=end_time)]


def _check_started(run_id: str, state: RunState) -> None:
    if state.status == v1.RUN_STATUS_UNSPECIFIED:
        raise Rejected(Kind.NOT_FOUND, "RUN_NOT_FOUND", f"no run {run_id[:100]!r}", run_id=run_id[:100])


def _check_texts(pairs: Mapping[str, str], what: str, longest: int) -> None:
    for key, value in pairs.items():
        check_text(key, f"a {what}'s key", LONGEST_KEY, "INVALID_KEY")
        if len(value) > longest:
            words = f"the {what} {key!r} has {len(value)} characters, {longest} are allowed"
            raise Rejected(Kind.INVALID, "INVALID_VALUE", words, key=key)


def evolve_run(state: RunState, event: RecordedEvent) -> RunState:
    """The run after an event."""
    fact: RunEvent = event.data  # type: ignore[assignment]
    match fact:
        case v1.RunStarted():
            return replace(state, status=v1.RUN_STATUS_RUNNING)
        case v1.RunLogged():
            params = state.params
            for key, value in fact.params.items():
                params = params.insert(key, value)
            return replace(state, params=params)
        case v1.ArtifactLogged():
            return replace(state, artifacts=state.artifacts.insert(fact.path, fact.digest))
        case v1.RunFinished():
            return replace(state, status=fact.status)
        case v1.MetricsLogged():
            return state
        case _:
            assert_never(fact)


def run_event_stream(event: Message) -> str:
    """The stream that an event of a run belongs to."""
    if isinstance(event, v1.MetricsLogged):
        return metrics_stream(event.run_id)
    return run_stream(event.run_id)  # type: ignore[attr-defined]


RUNS: Decider[RunState] = Decider(RunState(), decide_run, evolve_run, run_event_stream)
