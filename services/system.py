"""The system service: what runs, how far it is, rebuilds and snapshots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from importlib.metadata import version
from typing import TypeVar

from eventstore.errors import Kind, Rejected
from eventstore.keeping import SnapshotKeeper
from eventstore.projection import Projector
from eventstore.store import EventStore
from rollforward import v1
from services.rpc import Context

T = TypeVar("T")


class SystemServicer(v1.SystemServiceServicer):
    """The state of one process.

    Args:
        services: The services in it.
        stores: Their logs.
        projectors: Their projections, by name.
        keepers: What takes snapshots of these, by the same names.
    """

    def __init__(
        self,
        services: Sequence[str],
        stores: Sequence[EventStore],
        projectors: Mapping[str, Projector],
        keepers: Mapping[str, SnapshotKeeper],
    ) -> None:
        self._services = services
        self._stores = stores
        self._projectors = projectors
        self._keepers = keepers

    async def GetStatus(self, request: v1.GetStatusRequest, context: Context) -> v1.GetStatusResponse:
        """The state of the logs and projections of this process."""
        conditions = [(store, await store.head(), await store.condition()) for store in self._stores]
        return v1.GetStatusResponse(
            services=self._services,
            logs=[
                v1.LogStatus(
                    name=store.log,
                    head=head,
                    storage=condition.storage,
                    warnings=condition.warnings,
                    epoch=store.epochs[-1],
                )
                for store, head, condition in conditions
            ],
            projections=[_projection(projector) for projector in self._projectors.values()],
            nats_version=conditions[0][2].versions.get("nats", "") if conditions else "",
            version=version("rollforward-server"),
        )

    async def RebuildProjection(
        self, request: v1.RebuildProjectionRequest, context: Context
    ) -> AsyncIterator[v1.RebuildProjectionResponse]:
        """Rebuilds a projection beside the live one, compares, and switches."""
        async with aclosing(_named(self._projectors, request.name).rebuild()) as rebuild:
            async for step in rebuild:
                yield v1.RebuildProjectionResponse(
                    position=step.position,
                    head=step.head,
                    done=step.done,
                    live_digest=step.live_digest,
                    rebuilt_digest=step.rebuilt_digest,
                )

    async def CreateSnapshot(
        self, request: v1.CreateSnapshotRequest, context: Context
    ) -> AsyncIterator[v1.CreateSnapshotResponse]:
        """Keeps a snapshot of a projection's rows."""
        async with aclosing(_named(self._keepers, request.name).take()) as steps:
            async for step in steps:
                yield v1.CreateSnapshotResponse(size_bytes=step.size, done=step.done, position=step.position)


def _named(parts: Mapping[str, T], name: str) -> T:
    if name not in parts:
        words = f"no projection {name!r}; there are {', '.join(parts)}"
        raise Rejected(Kind.NOT_FOUND, "PROJECTION_NOT_FOUND", words, projection=name)
    return parts[name]


def _projection(projector: Projector) -> v1.ProjectionStatus:
    return v1.ProjectionStatus(
        name=projector.name,
        log=projector.store.log,
        position=projector.position,
        generation=projector.rows.generation,
        fingerprint=projector.fingerprint,
        failure=projector.why_failed,
    )
