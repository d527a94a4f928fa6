"""The pod: one process that answers predictions with the versions that its aliases name, whoever else is up."""

import asyncio
import contextlib
import socket
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from rollforward import Client
from rollforward._artifacts.manifests import build_tree, manifest_digest
from rollforward._transport.address import is_loopback, parse_address
from rollforward.errors import InvalidRequest, Unavailable
from rollforward.inference.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
from rollforward.v1 import ServingServiceStub, StartPodRequest
from rollforward.v1 import Target as TargetMessage
from services.pod import models
from services.pod.cache import ArtifactCache, LastKnownGood
from services.pod.decoding import Decoding
from services.pod.follower import Follower
from services.pod.inference import SERVICE, InferenceServicer
from services.pod.loader import Loader, patient
from services.pod.runtime import Outcome, Runtime, Target
from services.rpc.server import bounds

GRACE_SECONDS = 2.0  # before the pod boots from its last known good state
DRAIN_SECONDS = 10.0  # for requests under way when the pod stops
MESSAGE_BYTES = 64 * 1024 * 1024

MAX_CALLS = 1_000  # requests that wait for a version are bounded by its lane; this bounds those still on their way

_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # Two pods on one port would share its calls without either knowing.
    ("grpc.so_reuseport", 0),
)
_CHANNEL_OPTIONS = (
    # A service that vanished without a word is noticed within 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a pod was started."""

    targets: tuple[Target, ...]
    server: str | None
    host: str
    port: int
    cache: Path
    options: models.Options


class Pod:
    """The parts of a running pod, put together."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self._settings = settings
        endpoint = parse_address(client.address)["serving"]
        options = [*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0 if is_loopback(endpoint) else 1)]
        self._channel = aio.insecure_channel(endpoint, options=options)
        self._connection = client
        self._known_good = LastKnownGood(settings.cache, client.address)
        fetch = patient(lambda digest, path: _download(client, digest, path), Unavailable)
        loader = Loader(ArtifactCache(settings.cache, fetch, _digest_of), settings.options)
        self._runtime = Runtime(settings.targets, loader, self._conclude)
        self._health = health.aio.HealthServicer()
        self._server = aio.server(
            interceptors=[Decoding()], options=[*_SERVER_OPTIONS, *bounds()], maximum_concurrent_rpcs=MAX_CALLS
        )
        self._port = self._bind()
        self._follower = self._make_follower()
        self._answering: set[Target] = set()
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping` is set, then shut down gracefully. Raises PodRefused."""
        await self._set_health()
        await self._server.start()
        _log.info("listening", address=self._address)
        works = [asyncio.create_task(work) for work in (self._follower.watch(), self._follower.send())]
        self._spawn(_prepare())
        boot = asyncio.create_task(self._boot())
        ended = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait([ended, *works], return_when=asyncio.FIRST_COMPLETED)
            for work in works:
                if work.done():
                    work.result()
        finally:
            await self._stop([ended, boot, *works])

    @property
    def _address(self) -> str:
        return f"{self._settings.host}:{self._port}"

    def _bind(self) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        add_GRPCInferenceServiceServicer_to_server(
            InferenceServicer(self._runtime, metadata.version("rollforward-server")), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}. Is another program using it?") from error

    def _make_follower(self) -> Follower:
        everywhere = self._settings.host in {"0.0.0.0", "[::]"}  # noqa: S104 - compared, not bound
        announcement = StartPodRequest(
            pod_id=uuid.uuid4().hex,
            host=socket.gethostname(),
            endpoint=f"{socket.gethostname() if everywhere else self._settings.host}:{self._port}",
            targets=[TargetMessage(model=model, alias=alias) for model, alias in self._settings.targets],
            request_id=uuid.uuid4().hex,
        )
        stub = ServingServiceStub(self._channel)
        return Follower(stub, announcement, self._connection.connection.metadata, self._runtime.offer)

    async def _boot(self) -> None:
        """Serve the last known good assignments if the service does not send any in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._follower.received.wait()
                return
        for assignment in self._known_good.read():
            target = Target(assignment.target.model, assignment.target.alias)
            if target in self._settings.targets:
                _log.warning("starting from the last known good state", target=str(target))
                self._runtime.offer(assignment)

    def _conclude(self, outcome: Outcome) -> None:
        """Report the outcome of an assignment, after the swap."""
        self._spawn(self._settle(outcome))
        if outcome.error:
            return
        _say(self._line(outcome))
        self._spawn(self._set_health())

    async def _settle(self, outcome: Outcome) -> None:
        """Save what is served, then acknowledge it: a pod that restarts alone must serve what it acknowledged."""
        await self._known_good.write(self._runtime.assignments())
        self._follower.acknowledge(outcome)

    def _line(self, outcome: Outcome) -> str:
        version, revision = outcome.assignment.version, outcome.assignment.revision
        if not version:
            self._answering.discard(outcome.target)
            return f"stopped serving {outcome.target}: the alias was removed (revision {revision})"
        line = f"serving {outcome.target} v{version} (revision {revision}) on {self._address}"
        if outcome.target in self._answering:
            return f"{line}, swapped in {outcome.seconds * 1000:.2f} ms"
        self._answering.add(outcome.target)
        return line

    async def _set_health(self) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if self._runtime.ready else _NOT_SERVING
        for service in ("", SERVICE):
            await self._health.set(service, status)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_ended)

    def _background_ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("background work failed", exc_info=error)

    async def _stop(self, works: list[asyncio.Task[Any]]) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(DRAIN_SECONDS)
        for work in works:
            work.cancel()
        await asyncio.wait(works)
        await self._follower.stop()
        await self._runtime.close()
        # A download in a thread ends when its channel does.
        self._connection.close()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._channel.close()


_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _download(client: Client, digest: str, path: Path) -> None:
    client.artifacts.download(digest, path)


def _digest_of(path: Path) -> str:
    try:
        return manifest_digest(build_tree(path).manifest)
    except InvalidRequest as error:
        raise ValueError(str(error)) from error


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError as error:
        # The reader of the lines is gone; the predictions matter more.
        _log.warning("standard output is closed", line=line, error=str(error))


async def _prepare() -> None:
    """Do the slow imports while waiting for the assignments."""
    started = time.monotonic()
    try:
        await asyncio.to_thread(models.prepare)
    except models.ModelRefused as error:
        _log.warning("models cannot be loaded", error=str(error))
    else:
        _log.info("libraries imported", seconds=round(time.monotonic() - started, 3))
