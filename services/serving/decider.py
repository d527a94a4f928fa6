"""The rules of a pod's stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import FIRST_EPOCH, Decider, Kind, RecordedEvent, Rejected, check_epoch
from rollforward import v1
from services.serving import pod_stream
from services.serving.events import pod_event
from services.validation import check_alias, check_id, check_model_name, check_text

MAX_REVISION = 2**63 - 1
MAX_VERSION = 2**31 - 1
MAX_TARGETS = 1000

Report = tuple[int, int, int, bool]


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """A pod's report on an assignment, and the epoch of the registry log."""

    request: v1.AcknowledgeAssignmentRequest
    epoch: int = FIRST_EPOCH


@dataclass(frozen=True, slots=True)
class State:
    """The state of a pod: whether it runs, and its last report on each (model, alias).

    A report is (the registry's epoch, the revision, the version that the pod serves, whether the revision failed).
    """

    started: bool = False
    stopped: bool = False
    reports: HashTrieMap[tuple[str, str], Report] = field(default_factory=HashTrieMap)


PodCommand: TypeAlias = Acknowledge | v1.StartPodRequest | v1.StopPodRequest


def decide(command: object, state: State) -> Sequence[Message]:
    """Return the events of a command.

    Raises:
        Rejected: The command breaks a rule.
        Conflict: It names a revision of another epoch.
        TypeError: It is not a command of a pod.
    """
    if not isinstance(command, PodCommand):
        raise TypeError(f"expected a command of a pod, got {type(command).__name__}")
    match command:
        case Acknowledge():
            return _acknowledge(command, state)
        case v1.StartPodRequest():
            return _start(command, state)
        case v1.StopPodRequest():
            _check_started(command.pod_id, state)
            return [] if state.stopped else [v1.PodStopped(pod_id=command.pod_id)]
        case _:
            assert_never(command)


def _start(command: v1.StartPodRequest, state: State) -> Sequence[Message]:
    check_id(command.pod_id, "INVALID_POD_ID")
    check_text(command.host, "host", 255, "INVALID_NAME")
    check_text(command.endpoint, "endpoint", 255, "INVALID_NAME")
    check_targets(command.targets)
    if state.started:
        raise Rejected(
            Kind.EXISTS,
            "POD_EXISTS",
            f"pod {command.pod_id} exists. Start each pod with a new pod_id",
            pod_id=command.pod_id,
        )
    started = v1.PodStarted(
        pod_id=command.pod_id, host=command.host, endpoint=command.endpoint, targets=command.targets
    )
    return [started]


def _acknowledge(acknowledge: Acknowledge, state: State) -> Sequence[Message]:
    command = acknowledge.request
    _check_started(command.pod_id, state)
    if state.stopped:
        raise Rejected(
            Kind.PRECONDITION,
            "POD_STOPPED",
            f"pod {command.pod_id} has stopped. Start a pod with a new pod_id",
            pod_id=command.pod_id,
        )
    assigned = command.assignment
    if assigned.revision > MAX_REVISION or assigned.version > MAX_VERSION:
        message = f"invalid revision {assigned.revision} or version {assigned.version}: too large"
        raise Rejected(Kind.INVALID, "INVALID_ASSIGNMENT", message, revision=str(assigned.revision))
    check_epoch("registry", assigned.epoch, acknowledge.epoch)
    current = state.reports.get((assigned.target.model, assigned.target.alias))
    if current is None:
        message = f"pod {command.pod_id} does not follow {assigned.target.model}@{assigned.target.alias}"
        raise Rejected(Kind.NOT_FOUND, "TARGET_NOT_FOUND", message, pod_id=command.pod_id)
    epoch, revision, version, failed = current
    same_epoch = epoch == assigned.epoch
    if same_epoch and assigned.revision < revision:
        message = f"stale revision {assigned.revision}: the pod has acknowledged revision {revision}"
        raise Rejected(Kind.PRECONDITION, "STALE_REVISION", message, revision=str(revision))
    same = same_epoch and assigned.revision == revision and failed == bool(command.error)
    if same and (failed or version == assigned.version):
        return []
    return [_failed(command, version) if command.error else _applied(command)]


def _applied(command: v1.AcknowledgeAssignmentRequest) -> v1.AssignmentApplied:
    return v1.AssignmentApplied(
        pod_id=command.pod_id,
        target=command.assignment.target,
        revision=command.assignment.revision,
        version=command.assignment.version,
        digest=command.assignment.digest,
        seconds=command.seconds,
        epoch=command.assignment.epoch,
    )


def _failed(command: v1.AcknowledgeAssignmentRequest, serving_version: int) -> v1.AssignmentFailed:
    return v1.AssignmentFailed(
        pod_id=command.pod_id,
        target=command.assignment.target,
        revision=command.assignment.revision,
        version=command.assignment.version,
        detail=command.error[:4000],
        serving_version=serving_version,
        epoch=command.assignment.epoch,
    )


def check_targets(targets: Sequence[v1.Target]) -> None:
    """Raise `Rejected` INVALID_NAME or INVALID_ALIAS unless there are 1 to 1,000 targets and all are well named."""
    if not 1 <= len(targets) <= MAX_TARGETS:
        message = f"invalid targets: expected 1 to {MAX_TARGETS} aliases, got {len(targets)}"
        raise Rejected(Kind.INVALID, "INVALID_NAME", message)
    for target in targets:
        check_model_name(target.model)
        check_alias(target.alias)


def _check_started(pod_id: str, state: State) -> None:
    if not state.started:
        raise Rejected(
            Kind.NOT_FOUND,
            "POD_NOT_FOUND",
            f"pod {pod_id[:100]!r} was not started. Call StartPod first",
            pod_id=pod_id[:100],
        )


def evolve(state: State, event: RecordedEvent) -> State:
    """Return the state after an event."""
    payload = pod_event(event.data)
    match payload:
        case v1.PodStarted():
            targets = {(target.model, target.alias): (0, 0, 0, False) for target in payload.targets}
            return replace(state, started=True, reports=HashTrieMap(targets))
        case v1.AssignmentApplied():
            return _with_report(state, payload.target, (payload.epoch, payload.revision, payload.version, False))
        case v1.AssignmentFailed():
            return _with_report(state, payload.target, (payload.epoch, payload.revision, payload.serving_version, True))
        case v1.PodStopped():
            return replace(state, stopped=True)
        case _:
            assert_never(payload)


def _with_report(state: State, target: v1.Target, report: Report) -> State:
    return replace(state, reports=state.reports.insert((target.model, target.alias), report))


def stream_of(event: Message) -> str:
    """Return the stream that an event belongs to: its pod's."""
    return pod_stream(pod_event(event).pod_id)


DECIDER: Decider[State] = Decider(State(), decide, evolve, stream_of)
