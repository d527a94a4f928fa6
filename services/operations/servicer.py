"""The system service: what runs, how far it is, rebuilds and snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from importlib.metadata import version
from typing import TypeVar

from eventstore import Kind, Projector, Rejected, SnapshotKeeper, StoreUnavailable, Tail, error_text
from rollforward import v1
from services.operations.readiness import Readiness
from services.rpc.context import Context

T = TypeVar("T")

ANSWER_SECONDS = 4.0


class SystemServicer(v1.SystemServiceServicer):
    """The state of one process.

    Args:
        services: The services in it.
        tails: What follows their logs, by the log's name.
        projectors: Their projections, by name.
        keepers: What takes snapshots of these, by the same names.
        readiness: Whether the process can do its work.
    """

    def __init__(
        self,
        services: Sequence[str],
        tails: Mapping[str, Tail],
        projectors: Mapping[str, Projector],
        keepers: Mapping[str, SnapshotKeeper],
        readiness: Readiness,
    ) -> None:
        self._services = services
        self._tails = tails
        self._readiness = readiness
        self._projectors = projectors
        self._keepers = keepers

    async def GetStatus(self, request: v1.GetStatusRequest, context: Context) -> v1.GetStatusResponse:
        """Return the state of the logs and projections of this process."""
        logs = await asyncio.gather(*(_log(tail) for tail in self._tails.values()))
        problems = list(self._readiness.problems.values())
        return v1.GetStatusResponse(
            services=self._services,
            logs=[log for log, _ in logs],
            projections=[_projection(projector) for projector in self._projectors.values()],
            nats_version=next((nats for _, nats in logs if nats), ""),
            version=version("rollforward-server"),
            ready=not problems,
            problems=problems,
        )

    async def RebuildProjection(
        self, request: v1.RebuildProjectionRequest, context: Context
    ) -> AsyncIterator[v1.RebuildProjectionResponse]:
        """Rebuild a projection next to the live one, compare them, and switch."""
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
        """Store a snapshot of a projection's rows."""
        async with aclosing(_named(self._keepers, request.name).take()) as steps:
            async for step in steps:
                yield v1.CreateSnapshotResponse(size_bytes=step.size, done=step.done, position=step.position)


async def _log(tail: Tail) -> tuple[v1.LogStatus, str]:
    """Return the state of a log, and its server's version; without an answer, what was last known."""
    store = tail.store
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            head, condition = await store.head(), await store.condition()
    except (StoreUnavailable, TimeoutError) as error:
        warning = f"the {store.log} log does not answer: {error_text(error)}"
        return v1.LogStatus(name=store.log, head=tail.position, warnings=[warning]), ""
    status = v1.LogStatus(
        name=store.log,
        head=head,
        storage=condition.storage,
        warnings=condition.warnings,
        epoch=store.epochs[-1],
    )
    return status, condition.versions.get("nats", "")


def _named(parts: Mapping[str, T], name: str) -> T:
    if name not in parts:
        message = f"no projection {name!r}: expected one of {', '.join(parts)}"
        raise Rejected(Kind.NOT_FOUND, "PROJECTION_NOT_FOUND", message, projection=name)
    return parts[name]


def _projection(projector: Projector) -> v1.ProjectionStatus:
    return v1.ProjectionStatus(
        name=projector.name,
        log=projector.store.log,
        position=projector.position,
        generation=projector.generation.number,
        fingerprint=projector.fingerprint,
        failure=projector.why_failed,
    )
