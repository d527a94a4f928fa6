"""The composition root: settings in, a running process out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
import sqlalchemy as sa
import structlog
from obstore.exceptions import BaseError

from eventstore import (
    CommandHandler,
    Database,
    EventTypes,
    Generations,
    Kind,
    LogRewritten,
    Projection,
    Projector,
    Rejected,
    SnapshotKeeper,
    Snapshots,
    StoreUnavailable,
    Tail,
    Turns,
    end,
    error_text,
    replay_turns,
)
from eventstore.jetstream import JetStreamStore, ask_monitor, ask_system_account, connect
from rollforward import v1
from services import registry, serving, tracking, webhooks
from services.artifacts import manifests
from services.artifacts.garbage_collection import Collector
from services.artifacts.objects import ObjectPlace, open_objects
from services.artifacts.open_store import open_blob_store
from services.artifacts.registered_digests import NamedArtifactsProjection
from services.artifacts.servicer import ArtifactServicer
from services.artifacts.store import BlobStore
from services.audit.projection import AuditProjection
from services.audit.servicer import AuditServicer
from services.event_logs import Derived, Knowledge, PositionNotes, open_log, refuse_losses, refuse_missing_store
from services.file_permissions import make_private
from services.nats.data_directory import DirectoryLock
from services.nats.disk_full import explain, keep_writable
from services.nats.server import EmbeddedNats, NatsServerError
from services.operations.http import serving_http
from services.operations.readiness import Readiness
from services.operations.servicer import SystemServicer
from services.registry.commands import Commands as RegistryCommands
from services.registry.deciders.models import DECIDER as MODELS
from services.registry.deciders.policies import POLICIES
from services.registry.gates.evaluator import GateEvaluator
from services.registry.live_view import Live
from services.registry.policy_servicer import PolicyServicer
from services.registry.projection.apply import RegistryProjection
from services.registry.projection.runs import RunsProjection
from services.registry.rollback import Rollbacks
from services.registry.scheduler import Scheduler
from services.registry.servicer import RegistryServicer
from services.rpc.addresses import check_free, check_reach
from services.rpc.interceptor import Interceptor
from services.rpc.server import HealthServicer, add_health_and_reflection, listen, open_server, set_serving
from services.serving.assignments import AssignmentsProjection
from services.serving.decider import DECIDER as PODS
from services.serving.projection import ServingProjection
from services.serving.servicer import ServingServicer
from services.settings import Settings
from services.tracking import run_artifacts
from services.tracking.commands import Commands as TrackingCommands
from services.tracking.deciders.experiments import EXPERIMENTS
from services.tracking.deciders.logged_models import LOGGED_MODELS
from services.tracking.deciders.runs import RUNS
from services.tracking.liveness import Liveness
from services.tracking.logged_model_servicer import LoggedModelServicer
from services.tracking.projection.apply import TrackingProjection
from services.tracking.queries.live_digests import LiveDigests
from services.tracking.servicer import TrackingServicer
from services.webhooks.allowed_addresses import open_client
from services.webhooks.decider import DECIDER as WEBHOOKS
from services.webhooks.delivery import ATTEMPTS, Means
from services.webhooks.dispatcher import Dispatcher
from services.webhooks.http_client import REQUEST_SECONDS, USER_AGENT
from services.webhooks.projection import WebhooksProjection
from services.webhooks.servicer import WebhooksServicer
from services.webhooks.signing import Signer, master_key

GRACE_SECONDS = 5.0
TELL_SECONDS = 2.0

LOGS: Mapping[str, EventTypes] = {
    "tracking": tracking.EVENTS,
    "registry": registry.EVENTS,
    "serving": serving.EVENTS,
    "webhooks": webhooks.EVENTS,
}

NEEDED_LOGS: Mapping[str, Sequence[str]] = {
    "tracking": ["tracking", "registry"],
    "registry": ["registry", "tracking"],
    "serving": ["serving", "registry"],
    "audit": list(LOGS),
    "webhooks": ["webhooks", "registry"],
}

_logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is ready. `failed` completes, with the error, when it cannot go on."""

    grpc: str
    http: str
    failed: asyncio.Future[None]


class Worker(Protocol):
    """What works by itself once the projections are up to date."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(slots=True)
class _Parts:
    """What the services of a process are put together from, and the services as they are added."""

    settings: Settings
    stores: dict[str, JetStreamStore]
    tails: dict[str, Tail]
    database: Database
    objects: ObjectPlace
    edge: Interceptor
    server: grpc.aio.Server
    projectors: dict[str, Projector] = field(default_factory=dict)
    keepers: dict[str, SnapshotKeeper] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    required: set[str] = field(default_factory=set)
    system: SystemServicer = field(init=False)

    def projector(self, log: str, projection: Projection, service: str, *, required: bool = True) -> Projector:
        """Adds a projection that a service answers from.

        One that is not `required` may fail and is started without: it stands in the way of what asks it only.
        """
        if required:
            self.required.add(projection.name)
        projector = Projector(self.tails[log], projection, self.database, self.objects)
        self.projectors[projector.name] = projector
        keeper = SnapshotKeeper(projector, self.settings.snapshot_interval, self.settings.snapshot_events)
        self.keepers[projector.name] = keeper
        self.workers.append(keeper)
        self.edge.rows.setdefault(f"rollforward.v1.{service}", []).append(projector)
        return projector

    def needs(self) -> Mapping[str, set[str]]:
        """By service name, what a problem of which keeps it from serving; the empty name is the process."""
        needs = {
            name: {subject for rows in sources for subject in (f"projection {rows.name}", f"log {rows.store.log}")}
            for name, sources in self.edge.rows.items()
        }
        logs, projections = (f"log {log}" for log in self.stores), (f"projection {name}" for name in self.projectors)
        return needs | {"": {*logs, *projections}}

    async def stop_workers(self) -> None:
        """Ends what works by itself, in good order."""
        for worker in reversed(self.workers):
            await worker.stop()


def _check_addresses(settings: Settings) -> None:
    for address in (settings.grpc, settings.http):
        check_reach(address, insecure=settings.insecure)
    check_free([settings.grpc, settings.http])


def _ignore(_: str) -> None:
    """Say nothing."""


@asynccontextmanager
async def running(settings: Settings, tell: Callable[[str], None] = _ignore) -> AsyncIterator[Running]:
    """Runs the services that the settings name, until it is left; then drains and stops them.

    What it does before it is ready is said to `tell`, a line at a time.

    Raises:
        Rejected: INSECURE_ADDRESS, INVALID_ADDRESS; INVALID_SETTING when rows or artifacts cannot be kept.
        LogLost: A log lacks events that rows, snapshots or a note in the data directory know.
        StoreUnavailable, UnsafeStore: NATS or the database is out of reach, or NATS cannot keep its promises.
        AddressInUse: Another program listens where this one should.
        NatsServerError, DataDirectoryError: The embedded NATS server cannot run.
    """
    _check_addresses(settings)
    async with AsyncExitStack() as stack:
        failed = asyncio.get_running_loop().create_future()
        await _take_data_directory(settings, stack)
        database, objects = _open_places(settings)
        knowledge = await _known(settings, database, objects)
        tell("connecting to NATS" if settings.nats else "starting NATS")
        stores = await _open_logs(settings, knowledge, stack, failed)
        turns = replay_turns()
        tails = {log: await _followed(store, turns, stack, failed) for log, store in stores.items()}
        parts = _put_together(settings, stores, tails, database, objects, Interceptor(turns))
        server = parts.server
        await _start_all(parts, stack, tell)
        checks = await add_health_and_reflection(server, _names(settings))
        address = listen(server, settings.grpc)
        readiness = await stack.enter_async_context(_watched(parts, checks))
        ready = asyncio.Event()
        http = await _serve_http(settings.http, readiness, ready, stack)
        await server.start()
        ready.set()
        try:
            yield Running(address, http, failed)
        finally:
            ready.clear()
            await checks.enter_graceful_shutdown()
            for tail in tails.values():
                tail.dismiss(StoreUnavailable("the service stops; resume elsewhere", "SHUTTING_DOWN"))
            await server.stop(GRACE_SECONDS)


def _names(settings: Settings) -> list[str]:
    return [*(name for service in settings.services for name in _NAMES[service]), "SystemService"]


async def _serve_http(address: str, readiness: Readiness, ready: asyncio.Event, stack: AsyncExitStack) -> str:
    """Listen for health checks, if an address is given; return the URL."""
    if not address:
        return ""
    return await stack.enter_async_context(serving_http(address, readiness, ready.is_set, [ATTEMPTS]))


@asynccontextmanager
async def _watched(parts: _Parts, checks: HealthServicer) -> AsyncIterator[Readiness]:
    """Look after what the services need; gRPC health says of each whether it has it."""

    async def tell(problems: Mapping[str, str]) -> None:
        for name, needs in parts.needs().items():
            await set_serving(checks, name, serving=not needs & problems.keys())

    readiness = Readiness(list(parts.stores.values()), parts.tails, parts.projectors, tell)
    parts.edge.problem_of = readiness.problem_of
    parts.system.readiness = readiness
    await readiness.start()
    try:
        yield readiness
    finally:
        await readiness.stop()


def _put_together(
    settings: Settings,
    stores: dict[str, JetStreamStore],
    tails: dict[str, Tail],
    database: Database,
    objects: ObjectPlace,
    edge: Interceptor,
) -> _Parts:
    server = open_server(edge, settings.attendance_patience)
    parts = _Parts(settings, stores, tails, database, objects, edge, server)
    with _naming_settings():
        for service in settings.services:
            _ADD[service](parts)
    if settings.keeps_files:
        parts.workers.append(PositionNotes(settings.data, tails))
    parts.system = SystemServicer(settings.services, tails, parts.projectors, parts.keepers)
    v1.add_SystemServiceServicer_to_server(parts.system, server)
    return parts


@contextmanager
def _naming_settings() -> Iterator[None]:
    """Says in a line what is wrong with the places that the settings name."""
    try:
        yield
    except (ValueError, ImportError, OSError, BaseError, sa.exc.ArgumentError) as error:
        words = f"rows or artifacts cannot be kept where they should: {error_text(error)}"
        raise Rejected(Kind.INVALID, "INVALID_SETTING", words) from error


async def _start(projector: Projector, *, required: bool) -> None:
    try:
        with _naming_database():
            await projector.start()
    except StoreUnavailable as error:
        if required or error.reason != "PROJECTION_FAILED":
            raise
        _logger.warning("starting without a projection that failed", projection=projector.name, error=str(error))


@contextmanager
def _naming_database() -> Iterator[None]:
    try:
        yield
    except (sa.exc.DBAPIError, OSError) as error:
        words = error_text(getattr(error, "orig", error))
        raise StoreUnavailable(f"cannot use the database: {words}", "DATABASE_UNAVAILABLE") from error


async def _known(settings: Settings, database: Database, objects: ObjectPlace) -> Knowledge:
    """Return what is known of the logs outside of them, by what this process keeps."""
    kept: dict[str, list[tuple[Generations, Snapshots]]] = {}
    for service in settings.services:
        for log, projection in _ROWS[service]:
            generations = Generations(projection, database)
            kept.setdefault(log, []).append((generations, Snapshots(generations, objects)))
    knowledge = Knowledge(settings.data, [Derived(log, rows) for log, rows in kept.items()])
    with _naming_database():
        await asyncio.to_thread(knowledge.read)
    return knowledge


async def _start_all(parts: _Parts, stack: AsyncExitStack, tell: Callable[[str], None]) -> None:
    for projector in parts.projectors.values():
        stack.push_async_callback(projector.stop)
    await _start_projectors(parts, tell)
    stack.push_async_callback(parts.stop_workers)
    for worker in parts.workers:
        await worker.start()


async def _start_projectors(parts: _Parts, tell: Callable[[str], None]) -> None:
    """Start all projectors at once: each waits for the log, the database or the disk most of the time."""
    starting = [asyncio.create_task(_start_telling(projector, parts, tell)) for projector in parts.projectors.values()]
    try:
        ended, _ = await asyncio.wait(starting, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # Once: a start that is told a second time leaves behind what it was about to put away.
        for task in starting:
            task.cancel()
        await asyncio.wait(starting)
    for task in ended:
        task.result()


async def _start_telling(projector: Projector, parts: _Parts, tell: Callable[[str], None]) -> None:
    """Start a projector, and say now and then how far it is."""
    starting = asyncio.create_task(_start(projector, required=projector.name in parts.required))
    try:
        tell(f"catching up {projector.name} {projector.progress}/{projector.tail.position}")
        while not (await asyncio.wait({starting}, timeout=TELL_SECONDS))[0]:
            tell(f"catching up {projector.name} {projector.progress}/{projector.tail.position}")
    finally:
        starting.cancel()
        await asyncio.wait({starting})
    starting.result()


def _open_places(settings: Settings) -> tuple[Database, ObjectPlace]:
    """Open where rows and objects are kept, before anything is started that a wrong place would end."""
    with _naming_settings():
        if {"tracking", "registry"} & set(settings.services) and "://" not in settings.artifacts_location:
            Path(settings.artifacts_location).mkdir(parents=True, exist_ok=True)
        return Database(settings.database_location), open_objects(settings.artifacts_location)


async def _take_data_directory(settings: Settings, stack: AsyncExitStack) -> None:
    """Keep others off the data directory, and a second process with one of these services: it would deliver twice.

    A process that keeps nothing there may be in a file system that it must not write.
    """
    if not settings.keeps_files:
        return
    for service in settings.services:
        lock = await DirectoryLock.acquire(settings.data, f"locks/{service}")
        stack.callback(lock.release)
    await asyncio.to_thread(make_private, settings.data)


async def _open_logs(
    settings: Settings, knowledge: Knowledge, stack: AsyncExitStack, failed: asyncio.Future[None]
) -> dict[str, JetStreamStore]:
    logs = list(dict.fromkeys(log for service in settings.services for log in NEEDED_LOGS[service]))
    url, user, password = settings.nats, settings.nats_user, settings.nats_password
    why: Callable[[], str] = str  # of an outside server nothing is known
    flush = ask_monitor(settings.nats_monitor) if settings.nats_monitor else None
    if not url:
        refuse_missing_store(settings, knowledge, logs)
        nats = await stack.enter_async_context(EmbeddedNats(settings.data / "nats", port=settings.nats_port or None))
        url, user, password = nats.address.url, nats.address.user, nats.address.password
        why = partial(explain, nats)
        flush = ask_system_account(url, nats.address.system_user, nats.address.system_password)
        for looking_after in (_end_with(nats.failed, failed), keep_writable(nats)):
            stack.push_async_callback(end, asyncio.create_task(looking_after))
    # Reading the past has a connection of its own: acknowledgements must not wait behind it.
    client, history = [await connect(url, user or None, password or None) for _ in range(2)]
    stack.push_async_callback(client.close)
    stack.push_async_callback(history.close)
    stores = {}
    for log in logs:
        stores[log] = JetStreamStore(client, log, LOGS[log], flush, history, why)
    await refuse_losses(list(stores.values()), knowledge, settings)
    for log, store in stores.items():
        await open_log(store, knowledge, settings, erasable=log == "tracking")
        for warning in (await store.condition()).warnings:
            _logger.warning("an acknowledged event could be lost", log=log, why=warning)
    return stores


async def _followed(store: JetStreamStore, turns: Turns, stack: AsyncExitStack, failed: asyncio.Future[None]) -> Tail:
    tail = Tail(store, turns=turns)
    await tail.start()
    stack.push_async_callback(tail.stop)
    stack.callback(asyncio.create_task(_end_with(tail.failed, failed)).cancel)
    return tail


async def _end_with(ending: Callable[[], Awaitable[None]], failed: asyncio.Future[None]) -> None:
    """Ends the process when its NATS server is given up, or the log that it follows was rewritten.

    After that only a new start helps: it compares the rows with the log and computes them anew.
    """
    try:
        await ending()
    except (NatsServerError, LogRewritten) as error:
        if not failed.done():
            failed.set_exception(error)
    except Exception:  # noqa: BLE001 - logged where it happened; the other services go on
        return


def _blobs(settings: Settings) -> BlobStore:
    direct = settings.direct_transfers != 0
    return open_blob_store(settings.artifacts_location, settings.data / "uploads", direct=direct)


def _add_tracking(parts: _Parts) -> None:
    store = parts.stores["tracking"]
    rows = parts.projector("tracking", TrackingProjection(), "TrackingService")
    parts.edge.rows["rollforward.v1.LoggedModelService"] = [rows]
    blobs = _blobs(parts.settings)
    runs = CommandHandler(store, RUNS, rows)
    attendance = Liveness(runs, rows, parts.tails["tracking"], parts.settings.attendance_patience)
    parts.workers.append(attendance)
    experiments, models = CommandHandler(store, EXPERIMENTS, rows), CommandHandler(store, LOGGED_MODELS, rows)
    commands = TrackingCommands(experiments, runs, models, attendance.heard)
    v1.add_TrackingServiceServicer_to_server(TrackingServicer(commands, attendance, rows, blobs), parts.server)
    v1.add_LoggedModelServiceServicer_to_server(LoggedModelServicer(commands, rows, blobs), parts.server)
    named = parts.projector("registry", NamedArtifactsProjection(), "ArtifactService", required=False)
    parts.edge.rows["rollforward.v1.ArtifactService"] = []  # a collection waits for them itself
    collector = Collector(blobs, LiveDigests(rows, named).digests)
    v1.add_ArtifactServiceServicer_to_server(ArtifactServicer(blobs, collector), parts.server)


def _add_registry(parts: _Parts) -> None:
    rows = parts.projector("registry", RegistryProjection(), "RegistryService")
    runs = parts.projector("tracking", RunsProjection(), "RegistryService", required=False)
    blobs = _blobs(parts.settings)

    async def artifact_exists(digest: str) -> bool:
        return await manifests.exists(blobs, digest)

    async def compose(artifacts: Mapping[str, str], path: str) -> str | None:
        return await run_artifacts.compose(blobs, artifacts, path)

    store = parts.stores["registry"]
    live = Live(rows, parts.tails["registry"])
    gate_evaluator = GateEvaluator(runs)
    commands = RegistryCommands(CommandHandler(store, MODELS, rows), gate_evaluator, live)
    for service in _NAMES["registry"]:
        parts.edge.memory[f"rollforward.v1.{service}"] = [live]
    parts.edge.rows["rollforward.v1.PolicyService"] = [rows]
    parts.workers += [live, Scheduler(commands, rows, parts.tails["registry"])]
    servicer = RegistryServicer(
        commands, Rollbacks(commands, rows, live), live, rows, parts.tails["registry"], runs, artifact_exists, compose
    )
    v1.add_RegistryServiceServicer_to_server(servicer, parts.server)
    policies = PolicyServicer(CommandHandler(store, POLICIES, rows), rows, live, gate_evaluator)
    v1.add_PolicyServiceServicer_to_server(policies, parts.server)


def _add_serving(parts: _Parts) -> None:
    rows = parts.projector("serving", ServingProjection(), "ServingService")
    assignments = parts.projector("registry", AssignmentsProjection(), "ServingService", required=False)
    commands = CommandHandler(parts.stores["serving"], PODS, rows)
    v1.add_ServingServiceServicer_to_server(ServingServicer(commands, rows, assignments), parts.server)


def _add_audit(parts: _Parts) -> None:
    rows = {log: parts.projector(log, AuditProjection(log), "AuditService") for log in LOGS}
    types = {name for log in LOGS.values() for name in log.names}
    v1.add_AuditServiceServicer_to_server(AuditServicer(rows, types), parts.server)


def _add_webhooks(parts: _Parts) -> None:
    rows = parts.projector("webhooks", WebhooksProjection(), "WebhookService")
    allow_private = bool(parts.settings.webhooks_allow_private)
    means = Means(
        registry=parts.tails["registry"],
        commands=CommandHandler(parts.stores["webhooks"], WEBHOOKS, rows),
        signer=Signer(master_key(parts.settings.webhook_key, parts.settings.data)),
        client=open_client(allow_private=allow_private, user_agent=USER_AGENT, timeout=REQUEST_SECONDS),
        patience=parts.settings.webhook_patience,
        allow_private=allow_private,
    )
    senders = Dispatcher(rows, means)
    parts.workers.append(senders)
    v1.add_WebhookServiceServicer_to_server(WebhooksServicer(rows, senders), parts.server)


_ROWS: Mapping[str, Sequence[tuple[str, Projection]]] = {
    "tracking": [("tracking", TrackingProjection()), ("registry", NamedArtifactsProjection())],
    "registry": [("registry", RegistryProjection()), ("tracking", RunsProjection())],
    "serving": [("serving", ServingProjection()), ("registry", AssignmentsProjection())],
    "audit": [(log, AuditProjection(log)) for log in LOGS],
    "webhooks": [("webhooks", WebhooksProjection())],
}
"""The rows that each service keeps, with the log that they are computed from."""

_ADD = {
    "tracking": _add_tracking,
    "registry": _add_registry,
    "serving": _add_serving,
    "audit": _add_audit,
    "webhooks": _add_webhooks,
}

_NAMES = {
    "tracking": ["TrackingService", "LoggedModelService", "ArtifactService"],
    "registry": ["RegistryService", "PolicyService"],
    "serving": ["ServingService"],
    "audit": ["AuditService"],
    "webhooks": ["WebhookService"],
}
