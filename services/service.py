"""The record of a service, which a process needs to run it. Each slice defines its own in `service.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import grpc.aio
from prometheus_client.metrics import MetricWrapperBase

from eventstore import EventStore, EventTypes, Projection, Projector, Tail
from services.artifacts.open_store import open_blob_store
from services.artifacts.store import BlobStore
from services.rpc.methods import Sources
from services.settings import Settings


class Worker(Protocol):
    """A background task of a service; it runs once the projections are up to date."""

    async def start(self) -> None:
        """Start it."""

    async def stop(self) -> None:
        """Stop it; stopping twice is harmless."""


@dataclass(frozen=True, slots=True)
class ServiceContext:
    """The parts of a process that services are built from.

    Attributes:
        settings: The settings of the process.
        stores: The logs, by name.
        tails: What follows them, by the log's name.
    """

    settings: Settings
    stores: Mapping[str, EventStore]
    tails: Mapping[str, Tail]

    def open_blobs(self) -> BlobStore:
        """Open the store of artifacts.

        Raises:
            ValueError, OSError: As `open_blob_store`.
        """
        settings = self.settings
        direct = settings.direct_transfers != 0
        return open_blob_store(settings.artifacts_location, settings.data / "uploads", direct=direct)


@dataclass(frozen=True, slots=True)
class ServiceProjection:
    """A projection that a service reads.

    Attributes:
        log: The log that it is computed from.
        create: Creates it.
        required: Whether the process cannot start when it failed. Without one that is not required, only the calls
            that read it fail.
    """

    log: str
    create: Callable[[], Projection]
    required: bool = True


@dataclass(frozen=True, slots=True)
class GrpcService:
    """A gRPC service that is ready to be served.

    Attributes:
        name: Its name in the package ``rollforward.v1``.
        add: Adds its servicer to a server.
        sources: The state that its results come from.
    """

    name: str
    add: Callable[[grpc.aio.Server], None]
    sources: Sources = field(default_factory=Sources)

    @property
    def full_name(self) -> str:
        """The name with its package."""
        return f"rollforward.v1.{self.name}"


@dataclass(frozen=True, slots=True)
class BuiltService:
    """The parts of a service in a process.

    Attributes:
        grpc: Its gRPC services.
        workers: Its background tasks, in the order in which they start.
    """

    grpc: Sequence[GrpcService]
    workers: Sequence[Worker] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """A service: the record that a slice defines and the composition root reads.

    Attributes:
        name: Its name in settings and on the command line, and the name of its log.
        projections: The projections that it reads, in the order in which `build` takes them.
        build: Builds its parts from the context and a projector for each projection.
        events: The types of its log's events; None for a service without a log of its own.
        follows: Further logs that it needs.
        erasable: Whether events of its log can be erased.
        metrics: What it counts, for the metrics page of the process.
    """

    name: str
    projections: Sequence[ServiceProjection]
    build: Callable[[ServiceContext, Sequence[Projector]], BuiltService]
    events: EventTypes | None = None
    follows: Sequence[str] = ()
    erasable: bool = False
    metrics: Sequence[MetricWrapperBase] = ()

    @property
    def logs(self) -> Sequence[str]:
        """The logs that it needs, its own first."""
        own = [self.name] if self.events else []
        return list(dict.fromkeys([*own, *(projection.log for projection in self.projections), *self.follows]))
