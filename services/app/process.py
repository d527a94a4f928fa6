"""A process: the services that its settings name, wired together, started, and stopped in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from starlette.routing import BaseRoute

from eventstore import StoreUnavailable, Tail, Turns, replay_turns
from eventstore.jetstream import JetStreamStore
from rollforward import v1
from services.app.catalog import SERVICES
from services.app.logs import open_logs, start_tail
from services.app.places import checking_places, lock_data_directory, open_places, read_knowledge
from services.app.projectors import Projectors
from services.event_logs import PositionNotes
from services.mlflow_rest.app import mlflow_routes
from services.mlflow_rest.servicer import MlflowServicer
from services.operations.http import serving_http
from services.operations.readiness import Readiness
from services.operations.servicer import SystemServicer
from services.rpc.addresses import AddressInUse, address_of, check_free, check_reach, host_and_port
from services.rpc.interceptor import Interceptor
from services.rpc.local import LocalCalls
from services.rpc.server import HealthServicer, add_health_and_reflection, listen, open_server, set_serving
from services.service import GrpcService, Service, ServiceContext, Worker
from services.settings import Settings

GRACE_SECONDS = 5.0
HTTP_PORTS = 100
"""How many ports are tried for HTTP, if it may move."""


def _log_subjects(log: str) -> tuple[str, str]:
    """Return the subjects of readiness that concern a log itself."""
    return f"log {log}", f"tail {log}"


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is ready.

    Attributes:
        grpc: Where it listens for gRPC, ``host:port``.
        http: The URL of its health checks; empty for none.
        failed: Completes with the error when the process cannot continue.
    """

    grpc: str
    http: str
    failed: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a process, built and not yet started.

    Attributes:
        stores: The logs, by name.
        tails: What follows them, by the log's name.
        projectors: The projectors.
        readiness: Watches over all of these.
        grpc: The gRPC services.
        workers: The background tasks, in the order in which they start.
    """

    stores: Mapping[str, JetStreamStore]
    tails: Mapping[str, Tail]
    projectors: Projectors
    readiness: Readiness
    grpc: list[GrpcService] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def needs(self) -> Mapping[str, set[str]]:
        """Return the subjects whose problems keep a gRPC service from serving, by its full name; the process is ""."""
        needs = {
            service.full_name: {
                subject
                for source in service.sources.rows
                for subject in (f"projection {source.name}", *_log_subjects(source.store.log))
            }
            for service in self.grpc
        }
        projections = (f"projection {name}" for name in self.projectors.by_name)
        return needs | {"": {*(subject for log in self.stores for subject in _log_subjects(log)), *projections}}

    async def start(self, stack: AsyncExitStack, tell: Callable[[str], None]) -> None:
        """Start the projectors, then the workers; `stack` stops them in reverse order."""
        for projector in self.projectors.by_name.values():
            stack.push_async_callback(projector.stop)
        await self.projectors.start(tell)
        stack.push_async_callback(self._stop_workers)
        for worker in self.workers:
            await worker.start()

    async def _stop_workers(self) -> None:
        for worker in reversed(self.workers):
            await worker.stop()


def _ignore(_: str) -> None:
    """Ignore a line of progress."""


@asynccontextmanager
async def running(settings: Settings, tell: Callable[[str], None] = _ignore) -> AsyncIterator[Running]:
    """Run the services that the settings name until the context is left; then drain and stop them.

    Args:
        settings: What to run, and where.
        tell: Receives lines of progress until the process is ready.

    Raises:
        Rejected: INSECURE_ADDRESS, INVALID_ADDRESS; INVALID_SETTING when rows or artifacts cannot be kept.
        LogLost: A log lacks events that rows, snapshots or a note in the data directory know.
        StoreUnavailable, UnsafeStore: NATS or the database is out of reach, or NATS cannot keep its promises.
        AddressInUse: Another program listens where this one should.
        NatsServerError, DataDirectoryError: The embedded NATS server cannot run.
    """
    _check_addresses(settings)
    services = [SERVICES[name] for name in settings.services]
    async with AsyncExitStack() as stack:
        failed = asyncio.get_running_loop().create_future()
        turns = replay_turns()
        parts = await _build(settings, services, turns, stack, failed, tell)
        interceptor = Interceptor(
            turns, {service.full_name: service.sources for service in parts.grpc}, parts.readiness.problem_of
        )
        routes = mlflow_routes(LocalCalls(interceptor, parts.grpc), any_host=settings.insecure)
        mlflow = MlflowServicer(routes)
        parts.grpc.append(GrpcService("MlflowService", partial(v1.add_MlflowServiceServicer_to_server, mlflow)))
        server = open_server(interceptor, settings.attendance_patience)
        for service in parts.grpc:
            service.add(server)
        await parts.start(stack, tell)
        checks = await add_health_and_reflection(server, [service.name for service in parts.grpc])
        address = listen(server, settings.grpc)
        await stack.enter_async_context(_watched(parts, checks))
        ready = asyncio.Event()
        http = await _serve_http(settings, parts, ready, routes, stack, tell)
        await server.start()
        ready.set()
        try:
            yield Running(address, http, failed)
        finally:
            ready.clear()
            await checks.enter_graceful_shutdown()
            for tail in parts.tails.values():
                tail.dismiss(StoreUnavailable("the service is stopping. Resume at another instance", "SHUTTING_DOWN"))
            await server.stop(GRACE_SECONDS)


def _check_addresses(settings: Settings) -> None:
    for address in (settings.grpc, settings.http):
        check_reach(address, insecure=settings.insecure)
    check_free([settings.grpc] if settings.http_may_move else [settings.grpc, settings.http])


async def _build(
    settings: Settings,
    services: Sequence[Service],
    turns: Turns,
    stack: AsyncExitStack,
    failed: asyncio.Future[None],
    tell: Callable[[str], None],
) -> _Parts:
    """Open places and logs, and build the services on them."""
    await lock_data_directory(settings, stack)
    database, objects = open_places(settings)
    knowledge = await read_knowledge(settings, services, database, objects)
    tell("connecting to NATS" if settings.nats else "starting NATS")
    logs = list(dict.fromkeys(log for service in services for log in service.logs))
    stores = await open_logs(settings, logs, knowledge, stack, failed)
    tails = {log: await start_tail(store, turns, stack, failed) for log, store in stores.items()}
    projectors = Projectors(settings, tails, database, objects)
    readiness = Readiness(list(stores.values()), tails, projectors.by_name)
    parts = _Parts(stores, tails, projectors, readiness)
    _add_services(parts, settings, services)
    if settings.keeps_files:
        parts.workers.append(PositionNotes(settings.data, tails))
    return parts


def _add_services(parts: _Parts, settings: Settings, services: Sequence[Service]) -> None:
    context = ServiceContext(settings, parts.stores, parts.tails)
    with checking_places():
        for service in services:
            projectors = parts.projectors.create(service.projections)
            built = service.build(context, projectors)
            parts.grpc.extend(built.grpc)
            parts.workers.extend(parts.projectors.keepers[projector.name] for projector in projectors)
            parts.workers.extend(built.workers)
    system = SystemServicer(
        settings.services, parts.tails, parts.projectors.by_name, parts.projectors.keepers, parts.readiness
    )
    parts.grpc.append(GrpcService("SystemService", partial(v1.add_SystemServiceServicer_to_server, system)))


@asynccontextmanager
async def _watched(parts: _Parts, checks: HealthServicer) -> AsyncIterator[None]:
    """Run the readiness checks; gRPC health says of each service whether it has what it needs."""

    async def changed(problems: Mapping[str, str]) -> None:
        for name, needs in parts.needs().items():
            await set_serving(checks, name, serving=not needs & problems.keys())

    await parts.readiness.start(changed)
    try:
        yield
    finally:
        await parts.readiness.stop()


async def _serve_http(
    settings: Settings,
    parts: _Parts,
    ready: asyncio.Event,
    routes: Sequence[BaseRoute],
    stack: AsyncExitStack,
    tell: Callable[[str], None],
) -> str:
    """Listen for health checks and MLflow's REST API, if an address is given; return the URL."""
    if not settings.http:
        return ""
    metrics = [metric for service in SERVICES.values() for metric in service.metrics]
    host, first = host_and_port(settings.http)
    for port in range(first, first + (HTTP_PORTS if settings.http_may_move else 1)):
        serving = serving_http(address_of(host, port), parts.readiness, ready.is_set, metrics, routes)
        try:
            url = await stack.enter_async_context(serving)
        except AddressInUse:
            if port == first + HTTP_PORTS - 1 or not settings.http_may_move:
                raise
            continue
        if port != first:
            tell(f"warning: {settings.http} is in use; HTTP is at {address_of(host, port)} instead")
        return url
    raise AssertionError
