"""The serving service on a real system: what pods receive, and what is reported about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import pytest

from rollforward import v1
from rollforward.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed, RollforwardError
from tests.integration.up import SECONDS, Up, new_id


def target(model: str, alias: str = "champion") -> v1.Target:
    """Return a target that a pod follows."""
    return v1.Target(model=model, alias=alias)


def start(system: Up, *targets: v1.Target) -> str:
    """Start a pod; return its id."""
    request = v1.StartPodRequest(pod_id=new_id(), host="here", endpoint="here:9000", targets=targets)
    system.serving.StartPod(request, timeout=SECONDS)
    return request.pod_id


def acknowledgement(pod_id: str, moved: v1.Alias, error: str = "") -> v1.AcknowledgeAssignmentRequest:
    """Return a request that acknowledges an assignment."""
    assignment = v1.Assignment(
        target=target(moved.model, moved.alias), version=moved.version, digest=moved.digest, revision=moved.revision
    )
    return v1.AcknowledgeAssignmentRequest(pod_id=pod_id, assignment=assignment, error=error, seconds=0.5)


def deployments(system: Up, model: str, *, stopped: bool = False) -> Sequence[v1.Deployment]:
    """Return the deployments of a model."""
    heads = system.heads()
    headers = (("rollforward-min-position", f"serving={heads['serving']},registry={heads['registry']}"),)
    request = v1.ListDeploymentsRequest(model=model, include_stopped=stopped)
    return system.serving.ListDeployments(request, metadata=headers, timeout=SECONDS).deployments


def watch(system: Up, pod_id: str, *targets: v1.Target) -> Any:
    """Watch assignments from the log's head."""
    headers = (("rollforward-min-position", f"registry={system.heads()['registry']}"),)
    request = v1.WatchAssignmentsRequest(pod_id=pod_id, targets=targets)
    return system.serving.WatchAssignments(request, metadata=headers, timeout=SECONDS)


def test_state_of_pod_from_start_to_stop(system: Up, model: str) -> None:
    pod_id = start(system, target(model))
    first = system.move(model, 1).alias

    def pod(*, stopped: bool = False) -> v1.PodStatus:
        (deployment,) = deployments(system, model, stopped=stopped)
        (status,) = deployment.pods
        return status

    assert pod().state == v1.POD_STATE_DISCONNECTED
    following = watch(system, pod_id, target(model))
    next(following)
    assert (pod().state, pod().version) == (v1.POD_STATE_UPDATING, 0)
    system.serving.AcknowledgeAssignment(acknowledgement(pod_id, first), timeout=SECONDS)
    assert (pod().state, pod().version, pod().revision) == (v1.POD_STATE_CURRENT, 1, first.revision)
    second = system.move(model, 2).alias
    (deployment,) = deployments(system, model)
    assert deployment.desired == acknowledgement(pod_id, second).assignment
    assert (deployment.pods[0].state, deployment.pods[0].version) == (v1.POD_STATE_UPDATING, 1)
    system.serving.AcknowledgeAssignment(acknowledgement(pod_id, second, "no memory"), timeout=SECONDS)
    assert (pod().state, pod().version, pod().error) == (v1.POD_STATE_FAILED, 1, "no memory")
    system.serving.AcknowledgeAssignment(acknowledgement(pod_id, second), timeout=SECONDS)
    assert (pod().state, pod().version, pod().error) == (v1.POD_STATE_CURRENT, 2, "")
    assert (pod().host, pod().endpoint, pod().pod_id) == ("here", "here:9000", pod_id)
    system.serving.AcknowledgeAssignment(acknowledgement(pod_id, second, "died"), timeout=SECONDS)
    assert (pod().state, pod().version, pod().error) == (v1.POD_STATE_FAILED, 2, "died")
    following.cancel()
    head = system.serving.StopPod(v1.StopPodRequest(pod_id=pod_id), timeout=SECONDS).position
    assert head == system.heads()["serving"]
    assert deployments(system, model) == []
    assert pod(stopped=True).state == v1.POD_STATE_STOPPED


def test_deployments_are_listed_by_model_and_alias(system: Up, model: str) -> None:
    both = start(system, target(model), target(model, "candidate"), target(model))
    single = start(system, target(model))
    found = deployments(system, model)
    assert [(deployment.desired.target.alias, {pod.pod_id for pod in deployment.pods}) for deployment in found] == [
        ("candidate", {both}),
        ("champion", {both, single}),
    ]
    assert all(deployment.desired == v1.Assignment(target=deployment.desired.target) for deployment in found)
    everything = system.serving.ListDeployments(v1.ListDeploymentsRequest(), timeout=SECONDS).deployments
    names = [(deployment.desired.target.model, deployment.desired.target.alias) for deployment in everything]
    assert names == sorted(names)
    assert (model, "candidate") in names


def test_watch_delivers_snapshot_then_every_change(system: Up, model: str) -> None:
    first = system.move(model, 1)
    pod_id = start(system, target(model), target(model, "candidate"))
    following = watch(system, pod_id, target(model), target(model, "candidate"))
    snapshot = next(following)
    assert snapshot.snapshot
    assert list(snapshot.assignments) == [
        acknowledgement(pod_id, first.alias).assignment,
        v1.Assignment(target=target(model, "candidate")),
    ]
    assert snapshot.position >= first.position
    system.move(model, 1, "other")
    system.move(system.new_model(1), 1)
    second = system.move(model, 2, "candidate")
    removal = v1.RemoveAliasRequest(model=model, alias="champion")
    removed = system.registry.RemoveAlias(removal, timeout=SECONDS).position
    steps = [next(following), next(following)]
    assert [(step.snapshot, step.position) for step in steps] == [(False, second.position), (False, removed)]
    assert list(steps[0].assignments) == [acknowledgement(pod_id, second.alias).assignment]
    assert list(steps[1].assignments) == [v1.Assignment(target=target(model), revision=removed)]
    following.cancel()


def test_idle_watch_delivers_positions(system: Up, model: str) -> None:
    following = watch(system, new_id(), target(model))
    next(following)
    head = system.heads()["registry"]
    assert next(following) == v1.WatchAssignmentsResponse(position=head)
    following.cancel()


def test_any_command_can_be_repeated(system: Up, model: str) -> None:
    pod_id, moved = new_id(), system.move(model, 1).alias
    begin = v1.StartPodRequest(
        pod_id=pod_id, host="here", endpoint="here:1", targets=[target(model)], request_id=new_id()
    )
    acknowledge = acknowledgement(pod_id, moved)
    acknowledge.request_id = new_id()
    stop = v1.StopPodRequest(pod_id=pod_id, request_id=new_id())
    for name, request in (("StartPod", begin), ("AcknowledgeAssignment", acknowledge), ("StopPod", stop)):
        method = getattr(system.serving, name)
        first = method(request, timeout=SECONDS)
        heads = system.heads()
        assert method(request, timeout=SECONDS) == first
        assert system.heads() == heads


Request = Callable[[str], object]
V1 = target("a", "v1")
OK: dict[str, Any] = {"host": "here", "endpoint": "here:1"}
REJECTED: dict[str, list[tuple[Request, type[RollforwardError], str]]] = {
    "StartPod": [
        (lambda pod: v1.StartPodRequest(pod_id=pod, targets=[target("a")], **OK), AlreadyExists, "POD_EXISTS"),
        (lambda _: v1.StartPodRequest(pod_id="x"), InvalidRequest, "INVALID_POD_ID"),
        (lambda _: v1.StartPodRequest(pod_id=new_id()), InvalidRequest, "INVALID_NAME"),
        (lambda _: v1.StartPodRequest(pod_id=new_id(), **OK), InvalidRequest, "INVALID_NAME"),
        (lambda _: v1.StartPodRequest(pod_id=new_id(), targets=[V1], **OK), InvalidRequest, "INVALID_ALIAS"),
    ],
    "AcknowledgeAssignment": [
        (lambda _: acknowledgement("x", v1.Alias()), InvalidRequest, "INVALID_POD_ID"),
        (lambda _: acknowledgement(new_id(), v1.Alias()), NotFound, "POD_NOT_FOUND"),
        (lambda pod: acknowledgement(pod, v1.Alias(model="other", alias="champion")), NotFound, "TARGET_NOT_FOUND"),
        (
            lambda pod: acknowledgement(pod, v1.Alias(model="m", alias="a", revision=4)),
            PreconditionFailed,
            "STALE_REVISION",
        ),
        (
            lambda pod: acknowledgement(pod, v1.Alias(model="m", alias="a", revision=2**63)),
            InvalidRequest,
            "INVALID_ASSIGNMENT",
        ),
        (
            lambda pod: acknowledgement(pod, v1.Alias(model="m", alias="a", revision=9), "a\0"),
            InvalidRequest,
            "INVALID_TEXT",
        ),
    ],
    "StopPod": [
        (lambda _: v1.StopPodRequest(pod_id="x"), InvalidRequest, "INVALID_POD_ID"),
        (lambda _: v1.StopPodRequest(pod_id=new_id()), NotFound, "POD_NOT_FOUND"),
    ],
}


@pytest.fixture(scope="module")
def pod(system: Up) -> str:
    """Start a pod that has applied revision 5."""
    pod_id = start(system, target("m", "a"))
    system.serving.AcknowledgeAssignment(
        acknowledgement(pod_id, v1.Alias(model="m", alias="a", revision=5, version=1)), timeout=SECONDS
    )
    return pod_id


@pytest.mark.parametrize(
    ("method", "request_of", "kind", "reason"),
    [(method, *case) for method, cases in REJECTED.items() for case in cases],
    ids=count(),
)
def test_invalid_request_is_rejected(
    system: Up, pod: str, method: str, request_of: Request, kind: type[RollforwardError], reason: str
) -> None:
    error = system.refused(getattr(system.serving, method), request_of(pod))
    assert (type(error), error.reason) == (kind, reason)


def test_stopped_pod_rejects_acknowledgements(system: Up, model: str) -> None:
    pod_id, moved = start(system, target(model)), system.move(model, 1).alias
    system.serving.StopPod(v1.StopPodRequest(pod_id=pod_id), timeout=SECONDS)
    error = system.refused(system.serving.AcknowledgeAssignment, acknowledgement(pod_id, moved))
    assert (type(error), error.reason) == (PreconditionFailed, "POD_STOPPED")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (v1.WatchAssignmentsRequest(pod_id="x", targets=[target("a")]), "INVALID_POD_ID"),
        (v1.WatchAssignmentsRequest(pod_id="a" * 32), "INVALID_NAME"),
        (v1.WatchAssignmentsRequest(pod_id="a" * 32, targets=[target("a/b")]), "INVALID_NAME"),
        (v1.WatchAssignmentsRequest(pod_id="a" * 32, targets=[target("a", "latest")]), "INVALID_ALIAS"),
    ],
    ids=count(),
)
def test_invalid_watch_is_rejected(system: Up, request_: v1.WatchAssignmentsRequest, reason: str) -> None:
    def first(request: v1.WatchAssignmentsRequest, **options: Any) -> v1.WatchAssignmentsResponse:
        return next(iter(system.serving.WatchAssignments(request, **options)))

    error = system.refused(first, request_)  # type: ignore[arg-type]
    assert (type(error), error.reason) == (InvalidRequest, reason)


def test_renamed_model_is_found_by_all_names_and_shown_by_current_one(system: Up, model: str) -> None:
    moved = system.move(model, 1).alias
    before = start(system, target(model))
    renamed = f"{model}-new"
    system.registry.RenameModel(v1.RenameModelRequest(model=model, new_name=renamed), timeout=SECONDS)
    after = start(system, target(renamed))
    system.serving.AcknowledgeAssignment(acknowledgement(before, moved), timeout=SECONDS)
    for name in (model, renamed):
        (deployment,) = deployments(system, name)
        assert (deployment.desired.target.model, deployment.desired.version) == (name, 1)
        assert {pod.pod_id: pod.version for pod in deployment.pods} == {before: 1, after: 0}
    (deployment,) = [shown for shown in deployments(system, "") if shown.desired.target.model in {model, renamed}]
    assert (deployment.desired.target.model, len(deployment.pods)) == (renamed, 2)
    system.registry.RenameModel(v1.RenameModelRequest(model=renamed, new_name=model), timeout=SECONDS)
    (deployment,) = [shown for shown in deployments(system, "") if shown.desired.target.model in {model, renamed}]
    assert deployment.desired.target.model == model


def test_model_without_pods_differs_from_unknown_model(system: Up, model: str) -> None:
    assert deployments(system, model) == []
    unknown = f"none-{new_id()}"
    request = v1.ListDeploymentsRequest(model=unknown)
    assert system.refused(system.serving.ListDeployments, request).reason == "MODEL_NOT_FOUND"
    pod_id = start(system, target(unknown))
    (deployment,) = deployments(system, unknown)
    assert [pod.pod_id for pod in deployment.pods] == [pod_id]
