"""The HTTP side of a process: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from services.operations.http_connections import MAX_CONNECTIONS, ImpatientProtocol
from services.operations.readiness import Readiness
from services.rpc.addresses import AddressInUse, address_of, bound_socket
from services.rpc.interceptor import METRICS


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the process."""
        yield


class _State(Collector):
    """The metrics of projections and readiness, read at each scrape."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def collect(self) -> list[Metric]:
        """Return each projection's position, and what is and is not as it should be."""
        ready = GaugeMetricFamily("rollforward_ready", "1 while nothing is known to be wrong")
        ready.add_metric([], float(not self._readiness.problems and not self._readiness.failed))
        writable = GaugeMetricFamily("rollforward_log_writable", "1 while the log takes writes", labels=["log"])
        for log in self._readiness.logs:
            writable.add_metric([log], float(f"log {log}" not in self._readiness.problems))
        return [ready, writable, *self._of_projections()]

    def _of_projections(self) -> list[Metric]:
        position = GaugeMetricFamily("rollforward_projection_position", "Last position applied", labels=["projection"])
        failed = GaugeMetricFamily("rollforward_projection_failed", "1 once it cannot go on", labels=["projection"])
        stuck = GaugeMetricFamily(
            "rollforward_projection_stuck", "1 while it does not follow its log", labels=["projection"]
        )
        for name, projector in self._readiness.projectors.items():
            position.add_metric([name], projector.position)
            failed.add_metric([name], float(projector.failure is not None))
            stuck.add_metric([name], float(bool(self._readiness.problem_of(name))))
        return [position, failed, stuck]


@asynccontextmanager
async def serving_http(
    address: str,
    readiness: Readiness,
    is_ready: Callable[[], bool],
    metrics: Iterable[Collector] = (),
    routes: Sequence[BaseRoute] = (),
) -> AsyncIterator[str]:
    """Listen on ``host:port`` (port 0: a free one) and yield the URL.

    Args:
        address: Where to listen.
        readiness: What is known to be wrong.
        is_ready: Whether the process takes calls.
        metrics: Metrics that are shown with its own.
        routes: Further routes, such as those of an API.

    Raises:
        AddressInUse: Another program listens there.
    """
    registry = CollectorRegistry()
    for shown in [_State(readiness), METRICS, *metrics]:
        registry.register(shown)
    app = Starlette(routes=[*_routes(registry, readiness, is_ready), *routes])
    with bound_socket(address) as socket:
        try:
            socket.listen()  # now: another program may have bound it at the same moment
        except OSError as error:
            raise AddressInUse(f"cannot listen on {address}: {error.strerror}") from error
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            ws="none",
            log_level="warning",
            access_log=False,
            lifespan="off",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve([socket]))
        try:
            host, port = socket.getsockname()[:2]
            yield f"http://{address_of(host, port)}"
        finally:
            server.should_exit = True
            await task


def _routes(registry: CollectorRegistry, readiness: Readiness, is_ready: Callable[[], bool]) -> list[Route]:
    async def live(_: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_: Request) -> Response:
        problems = list(readiness.problems.values())
        well = is_ready() and not problems and not readiness.failed
        body = {"ready": well, "failed_projections": readiness.failed} | ({"problems": problems} if problems else {})
        return JSONResponse(body, status_code=200 if well else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/livez", live), Route("/readyz", ready), Route("/metrics", metrics)]
