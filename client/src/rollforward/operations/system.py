"""The state of the system: its processes, logs and projections; rebuilds and snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import Connection
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Iterator


class System(Resource):
    """Processes, logs and projections of a service."""

    def status(self) -> v1.GetStatusResponse:
        """Return the services, logs and projections of every process in the address, as one result.

        Raises:
            Unavailable: No result within the timeout.
        """
        merged = v1.GetStatusResponse(ready=True)
        for answer in _statuses(self._connection):
            merged.services.extend(name for name in answer.services if name not in merged.services)
            logs = {log.name for log in merged.logs}
            merged.logs.extend(log for log in answer.logs if log.name not in logs)
            merged.projections.extend(answer.projections)
            merged.nats_version = merged.nats_version or answer.nats_version
            merged.version = merged.version or answer.version
            merged.ready = merged.ready and answer.ready
            merged.problems.extend(problem for problem in answer.problems if problem not in merged.problems)
        return merged

    def rebuild(self, projection: str) -> Iterator[v1.RebuildProjectionResponse]:
        """Rebuild a projection from its log, and switch to it if it equals the live one; yield the progress.

        Raises, during iteration, NotFound (PROJECTION_NOT_FOUND), PreconditionFailed (REBUILD_RUNNING,
        REBUILD_DIFFERS), Unavailable.
        """
        stub = self._connection.systems[_home_of(self._connection, projection)]
        yield from self._connection.stream(stub.RebuildProjection, v1.RebuildProjectionRequest(name=projection))

    def snapshot(self, projection: str) -> Iterator[v1.CreateSnapshotResponse]:
        """Create a snapshot of a projection's rows, for later starts without rows; yield the progress.

        Raises, during iteration, NotFound (PROJECTION_NOT_FOUND), PreconditionFailed (SNAPSHOT_RUNNING), Unavailable.
        """
        stub = self._connection.systems[_home_of(self._connection, projection)]
        yield from self._connection.stream(stub.CreateSnapshot, v1.CreateSnapshotRequest(name=projection))


def _statuses(connection: Connection) -> list[v1.GetStatusResponse]:
    return [connection.call(stub.GetStatus, v1.GetStatusRequest()) for stub in connection.systems]


def _home_of(connection: Connection, projection: str) -> int:
    if len(connection.systems) == 1:
        return 0
    names = [[found.name for found in answer.projections] for answer in _statuses(connection)]
    # For an unknown name, let the first process raise the error.
    return next((index for index, found in enumerate(names) if projection in found), 0)


status = default_client_function("status", System, System.status)
rebuild = default_client_function("rebuild", System, System.rebuild)
snapshot = default_client_function("snapshot", System, System.snapshot)
