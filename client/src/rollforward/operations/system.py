"""The system itself: what runs, how far it is, rebuilds and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection, current

if TYPE_CHECKING:
    from collections.abc import Iterator


def status(*, connection: Connection | None = None) -> v1.GetStatusResponse:
    """The services, logs and projections of every process that the connection's address names, as one answer.

    Raises Unavailable.
    """
    link = current(connection)
    merged = v1.GetStatusResponse(ready=True)
    for answer in _statuses(link):
        merged.services.extend(name for name in answer.services if name not in merged.services)
        logs = {log.name for log in merged.logs}
        merged.logs.extend(log for log in answer.logs if log.name not in logs)
        merged.projections.extend(answer.projections)
        merged.nats_version = merged.nats_version or answer.nats_version
        merged.version = merged.version or answer.version
        merged.ready = merged.ready and answer.ready
        merged.problems.extend(problem for problem in answer.problems if problem not in merged.problems)
    return merged


def rebuild(projection: str, *, connection: Connection | None = None) -> Iterator[v1.RebuildProjectionResponse]:
    """Rebuild a projection from its log, compare it with the live one, and switch when they are equal; yields how far
    it is.

    Raises, while it is iterated, NotFound (PROJECTION_NOT_FOUND), PreconditionFailed (REBUILD_RUNNING,
    REBUILD_DIFFERS), Unavailable.
    """
    link = current(connection)
    stub = link.systems[_home_of(link, projection)]
    yield from link.stream(stub.RebuildProjection, v1.RebuildProjectionRequest(name=projection))


def snapshot(projection: str, *, connection: Connection | None = None) -> Iterator[v1.CreateSnapshotResponse]:
    """Keep a snapshot of a projection's rows, with which a start without rows begins; yields how far it is.

    Raises, while it is iterated, NotFound (PROJECTION_NOT_FOUND), PreconditionFailed (SNAPSHOT_RUNNING), Unavailable.
    """
    link = current(connection)
    stub = link.systems[_home_of(link, projection)]
    yield from link.stream(stub.CreateSnapshot, v1.CreateSnapshotRequest(name=projection))


def _statuses(link: Connection) -> list[v1.GetStatusResponse]:
    return [link.call(stub.GetStatus, v1.GetStatusRequest()) for stub in link.systems]


def _home_of(link: Connection, projection: str) -> int:
    if len(link.systems) == 1:
        return 0
    names = [[found.name for found in answer.projections] for answer in _statuses(link)]
    # A name that nobody has goes to the first process, whose refusal says so.
    return next((index for index, found in enumerate(names) if projection in found), 0)
