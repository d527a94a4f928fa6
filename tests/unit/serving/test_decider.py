"""The rules of a pod's stream."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from eventstore.errors import Kind, Rejected
from eventstore.event import Metadata, RecordedEvent
from eventstore.testing import Given, given
from rollforward import v1
from services.serving.decider import DECIDER, Acknowledge, State, decide, evolve

POD = "0" * 31 + "b"
TARGET = v1.Target(model="iris", alias="champion")
STARTED = v1.PodStarted(pod_id=POD, host="here", endpoint="here:9000", targets=[TARGET])
DIGEST = f"sha256:{'1' * 64}"


def start(pod_id: str = POD, host: str = "here", endpoint: str = "here:9000", **others: object) -> v1.StartPodRequest:
    """Return a request that starts a pod."""
    targets = others.get("targets", [TARGET])
    return v1.StartPodRequest(pod_id=pod_id, host=host, endpoint=endpoint, targets=targets)  # type: ignore[arg-type]


def acknowledge(revision: int, version: int, error: str = "", target: v1.Target = TARGET) -> Acknowledge:
    """Return a command that acknowledges an assignment."""
    assignment = v1.Assignment(target=target, version=version, digest=DIGEST, revision=revision)
    request = v1.AcknowledgeAssignmentRequest(pod_id=POD, assignment=assignment, error=error, seconds=0.5)
    return Acknowledge(request)


def in_epoch(epoch: int, command: Acknowledge) -> Acknowledge:
    """Return the command for an assignment of another epoch, which is the registry log's current one."""
    command.request.assignment.epoch = epoch
    return Acknowledge(command.request, epoch)


def applied(revision: int, version: int, epoch: int = 0) -> v1.AssignmentApplied:
    """Return the event of an applied assignment."""
    return v1.AssignmentApplied(
        pod_id=POD, target=TARGET, revision=revision, version=version, digest=DIGEST, seconds=0.5, epoch=epoch
    )


def failed(revision: int, version: int, serving: int) -> v1.AssignmentFailed:
    """Return the event of a failed assignment."""
    return v1.AssignmentFailed(
        pod_id=POD, target=TARGET, revision=revision, version=version, detail="no", serving_version=serving
    )


class TestStart:
    def test_pod_is_started(self) -> None:
        given(DECIDER).when(start()).then(STARTED)

    def test_existing_pod_is_rejected(self) -> None:
        refusal = given(DECIDER, STARTED).when(start()).then_rejected("POD_EXISTS")
        assert isinstance(refusal, Rejected)
        assert refusal.kind is Kind.EXISTS

    @pytest.mark.parametrize(
        ("command", "reason"),
        [
            (start("x"), "INVALID_POD_ID"),
            (start(host=""), "INVALID_NAME"),
            (start(host="h" * 256), "INVALID_NAME"),
            (start(endpoint="\n"), "INVALID_NAME"),
            (start(targets=[]), "INVALID_NAME"),
            (start(targets=[TARGET] * 1001), "INVALID_NAME"),
            (start(targets=[v1.Target(model="a:b", alias="champion")]), "INVALID_NAME"),
            (start(targets=[TARGET, v1.Target(model="a", alias="v1")]), "INVALID_ALIAS"),
        ],
        ids=count(),
    )
    def test_invalid_field_is_rejected(self, command: v1.StartPodRequest, reason: str) -> None:
        given(DECIDER).when(command).then_rejected(reason)


class TestAcknowledge:
    def test_applied_assignment_is_recorded(self) -> None:
        given(DECIDER, STARTED).when(acknowledge(5, 1)).then(applied(5, 1))

    def test_repeated_acknowledgement_changes_nothing(self) -> None:
        given(DECIDER, STARTED, applied(5, 1)).when(acknowledge(5, 1)).then()
        given(DECIDER, STARTED, applied(5, 1), failed(6, 2, 1)).when(acknowledge(6, 2, "no")).then()

    def test_failure_records_version_still_served(self) -> None:
        given(DECIDER, STARTED).when(acknowledge(5, 1, "no")).then(failed(5, 1, 0))
        given(DECIDER, STARTED, applied(5, 1)).when(acknowledge(6, 2, "no")).then(failed(6, 2, 1))

    def test_failed_assignment_may_be_applied_later(self) -> None:
        given(DECIDER, STARTED, failed(5, 1, 0)).when(acknowledge(5, 1)).then(applied(5, 1))

    def test_long_error_is_truncated(self) -> None:
        (payload,) = given(DECIDER, STARTED).when(acknowledge(5, 1, "x" * 5000)).events
        assert isinstance(payload, v1.AssignmentFailed)
        assert payload.detail == "x" * 4000

    def test_revisions_of_different_epochs_are_not_compared(self) -> None:
        given(DECIDER, STARTED, applied(39, 1)).when(in_epoch(7, acknowledge(34, 2))).then(applied(34, 2, epoch=7))
        given(DECIDER, STARTED, applied(39, 2)).when(in_epoch(7, acknowledge(39, 2))).then(applied(39, 2, epoch=7))
        given(DECIDER, STARTED, applied(34, 2, epoch=7)).when(in_epoch(7, acknowledge(34, 2))).then()

    def test_assignment_of_former_epoch_is_rejected(self) -> None:
        late = Acknowledge(acknowledge(39, 1).request, 7)
        given(DECIDER, STARTED, applied(34, 2, epoch=7)).when(late).then_rejected("LOG_EPOCH_CHANGED")
        given(DECIDER, STARTED).when(late).then_rejected("LOG_EPOCH_CHANGED")

    def test_older_revision_is_rejected(self) -> None:
        given(DECIDER, STARTED, applied(5, 1)).when(acknowledge(4, 2)).then_rejected("STALE_REVISION")

    @pytest.mark.parametrize(("revision", "version"), [(2**63, 1), (2**64 - 1, 1), (1, 2**31), (1, 2**32 - 1)])
    def test_impossible_assignment_is_rejected(self, revision: int, version: int) -> None:
        given(DECIDER, STARTED).when(acknowledge(revision, version)).then_rejected("INVALID_ASSIGNMENT")

    def test_target_that_pod_does_not_follow_is_rejected(self) -> None:
        other = v1.Target(model="iris", alias="candidate")
        given(DECIDER, STARTED).when(acknowledge(5, 1, target=other)).then_rejected("TARGET_NOT_FOUND")
        given(DECIDER, STARTED).when(Acknowledge(v1.AcknowledgeAssignmentRequest(pod_id=POD))).then_rejected(
            "TARGET_NOT_FOUND"
        )

    def test_pod_that_is_not_running_is_rejected(self) -> None:
        given(DECIDER).when(acknowledge(5, 1)).then_rejected("POD_NOT_FOUND")
        given(DECIDER, STARTED, v1.PodStopped(pod_id=POD)).when(acknowledge(5, 1)).then_rejected("POD_STOPPED")


class TestStop:
    def test_pod_is_stopped_once(self) -> None:
        given(DECIDER, STARTED).when(v1.StopPodRequest(pod_id=POD)).then(v1.PodStopped(pod_id=POD))
        given(DECIDER, STARTED, v1.PodStopped(pod_id=POD)).when(v1.StopPodRequest(pod_id=POD)).then()

    def test_unknown_pod_is_rejected(self) -> None:
        given(DECIDER).when(v1.StopPodRequest(pod_id=POD)).then_rejected("POD_NOT_FOUND")


def test_other_message_raises_type_error() -> None:
    with pytest.raises(TypeError):
        decide(v1.ListDeploymentsRequest(), State())


commands = st.one_of(
    st.builds(start, st.sampled_from([POD, "x"])),
    st.builds(acknowledge, st.integers(0, 5), st.integers(0, 2), st.sampled_from(["", "no"])),
    st.builds(v1.StopPodRequest, pod_id=st.just(POD)),
)


@for_all(st.lists(commands, max_size=20))
def test_any_commands_leave_stream_consistent(requests: list[object]) -> None:
    """Deciding is pure, revisions never decrease, and the start comes first and the stop last."""
    state, kinds, revision = State(), list[str](), 0
    for command in requests:
        for payload in Given(DECIDER, state).when(command).events:
            kinds.append(type(payload).__name__)
            state = evolve(state, RecordedEvent("", len(kinds), 0, "", payload, Metadata("a"), len(kinds)))
            if isinstance(payload, v1.AssignmentApplied | v1.AssignmentFailed):
                assert payload.revision >= revision
                revision = payload.revision
    assert "PodStarted" not in kinds[1:]
    assert kinds[:1] in ([], ["PodStarted"])
    assert "PodStopped" not in kinds[:-1]
