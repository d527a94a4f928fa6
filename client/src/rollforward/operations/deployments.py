"""Serving: who serves what, and the calls that a pod makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, current, new_request_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def deployments(
    model: str = "", *, include_stopped: bool = False, connection: Connection | None = None
) -> list[v1.Deployment]:
    """Every alias that a pod follows, with what it should be and what each pod serves; of one model, or of all.

    Raises Unavailable.
    """
    link = current(connection)
    request = v1.ListDeploymentsRequest(model=model, include_stopped=include_stopped)
    found: list[v1.Deployment] = []
    while not found or request.page_token:
        page = link.call(link.serving.ListDeployments, request)
        for deployment in page.deployments:
            if found and found[-1].desired.target == deployment.desired.target:
                found[-1].pods.extend(deployment.pods)
            else:
                found.append(deployment)
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    return found


def start_pod(
    pod_id: str, *, host: str, endpoint: str, targets: Iterable[v1.Target], connection: Connection | None = None
) -> None:
    """Announce a pod that follows `targets` and answers predictions at `endpoint`. `pod_id`: 32 lower-case hex digits.

    Raises InvalidRequest (INVALID_POD_ID, INVALID_NAME, INVALID_ALIAS), AlreadyExists (POD_EXISTS), Unavailable.
    """
    link = current(connection)
    request = v1.StartPodRequest(
        pod_id=pod_id, host=host, endpoint=endpoint, targets=targets, request_id=new_request_id()
    )
    link.call(link.serving.StartPod, request)


def watch_assignments(
    pod_id: str, targets: Iterable[v1.Target], *, connection: Connection | None = None
) -> Iterator[v1.WatchAssignmentsResponse]:
    """One stream of assignments: all of the pod's, then each change in order.

    It ends with an error when the connection is lost; begin again then: the first step holds everything.

    Raises InvalidRequest (INVALID_NAME, INVALID_ALIAS), Unavailable.
    """
    link = current(connection)
    return link.stream(link.serving.WatchAssignments, v1.WatchAssignmentsRequest(pod_id=pod_id, targets=targets))


def acknowledge_assignment(
    pod_id: str,
    assignment: v1.Assignment,
    *,
    error: str = "",
    seconds: float = 0.0,
    connection: Connection | None = None,
) -> None:
    """Say that a pod serves an assignment, or with `error` why it does not.

    `seconds`: from hearing of it to answering with it.

    Raises NotFound (POD_NOT_FOUND, TARGET_NOT_FOUND), PreconditionFailed (POD_STOPPED, STALE_REVISION), Unavailable.
    """
    link = current(connection)
    request = v1.AcknowledgeAssignmentRequest(
        pod_id=pod_id, assignment=assignment, error=error, seconds=seconds, request_id=new_request_id()
    )
    link.call(link.serving.AcknowledgeAssignment, request)


def stop_pod(pod_id: str, *, connection: Connection | None = None) -> None:
    """Say that a pod stops. Raises NotFound (POD_NOT_FOUND), Unavailable."""
    link = current(connection)
    link.call(link.serving.StopPod, v1.StopPodRequest(pod_id=pod_id, request_id=new_request_id()))
