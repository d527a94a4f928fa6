"""Start services: `up` starts all of them with NATS built in, `start` starts one."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import uvloop
from cyclopts import App, Parameter

from eventstore import Kind, LogLost, LogRewritten, Rejected, StoreUnavailable, UnsafeStore
from services.app import LOGS, SERVICES, Running, running
from services.failures import report
from services.file_permissions import keep_files_private
from services.log_output import configure_logging
from services.nats.data_directory import DataDirectoryError
from services.nats.server import NatsServerError
from services.rpc.addresses import AddressInUse
from services.rpc.limits import raise_file_limit
from services.settings import Settings, from_environment

# A call must not wait for as long as 5 ms while a projection's thread computes.
SWITCH_SECONDS = 0.0005

WebhooksAllowPrivate = Annotated[
    bool,
    Parameter(help="Send webhooks to loopback, private and link-local addresses too.", negative=(), show_default=False),
]

Insecure = Annotated[
    bool,
    Parameter(
        help="Listen where other machines can call. Callers are neither authenticated nor encrypted.",
        negative=(),
        show_default=False,
    ),
]

USAGE = 2
_WRONG_USE = {"INVALID_SETTING", "INVALID_ADDRESS"}

REFUSALS = (
    *(Rejected, StoreUnavailable, UnsafeStore, AddressInUse, DataDirectoryError, NatsServerError),
    *(LogRewritten, LogLost),
)

AcceptLogLoss = Annotated[
    tuple[str, ...],
    Parameter(
        metavar="LOG",
        help="Continue a log (tracking, registry, serving, webhooks) that lost events, in a new epoch.",
        negative=(),
        show_default=False,
    ),
]


Data = Annotated[
    Path | None, Parameter(metavar="DIR", help="Data directory; default ROLLFORWARD_DATA, else ./rollforward-data.")
]
Grpc = Annotated[
    str | None,
    Parameter(metavar="HOST:PORT", help="The address of gRPC; default 127.0.0.1:50051. Port 0: a free one."),
]
Http = Annotated[
    str | None,
    Parameter(metavar="HOST:PORT", help="The address of MLflow's REST API, health checks and metrics; '' for none."),
]
Nats = Annotated[
    str | None,
    Parameter(
        metavar="URL",
        help="An outside NATS server, or several of one cluster with commas: nats://a:4222,nats://b:4222.",
    ),
]
Database = Annotated[
    str | None, Parameter(metavar="URL", help="postgresql://..., or a directory for SQLite; default in DIR.")
]
Artifacts = Annotated[str | None, Parameter(metavar="URL", help="s3://BUCKET/PREFIX, or a directory; default in DIR.")]


DEFAULT_HTTP = "127.0.0.1:5000"
"""Where MLflow's server listens, too."""


def up(
    *,
    data: Data = None,
    grpc: Grpc = None,
    http: Http = None,
    nats: Nats = None,
    database: Database = None,
    artifacts: Artifacts = None,
    without: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="SERVICE",
            help="Leave out a service, such as one that cannot start; may be repeated.",
            negative=(),
            show_default=False,
        ),
    ] = (),
    accept_log_loss: AcceptLogLoss = (),
    insecure: Insecure = False,
    webhooks_allow_private: WebhooksAllowPrivate = False,
) -> int:
    """Start NATS and all services in one process.

    ROLLFORWARD_* variables set what no option does. Ctrl-C and SIGTERM stop it in good order. It is ready when it
    prints "listens on".

    HTTP listens on 127.0.0.1:5000, or the next free port.

    Examples:

        rollforward up
        rollforward up --data /var/lib/rollforward --http 127.0.0.1:8080
        rollforward up --database postgresql://localhost/rollforward --without webhooks
    """
    if not _are_services(without) or not _are_logs(accept_log_loss):
        return 2
    services = tuple(service for service in SERVICES if service not in without)
    if not services:
        print("rollforward: no service is left: give --without for fewer", file=sys.stderr)
        return USAGE

    def settings() -> Settings:
        given = _settings(services, data, grpc, http, nats, database, artifacts, webhooks_allow_private)
        if http is None and "ROLLFORWARD_HTTP" not in os.environ:
            given = replace(given, http=DEFAULT_HTTP, http_may_move=True)
        return replace(given, accept_log_loss=accept_log_loss, insecure=insecure)

    return _main(settings)


def start(
    service: Annotated[str, Parameter(name="SERVICE", help="tracking, registry, serving, audit or webhooks.")],
    /,
    *,
    data: Data = None,
    grpc: Grpc = None,
    http: Http = None,
    nats: Nats = None,
    database: Database = None,
    artifacts: Artifacts = None,
    accept_log_loss: AcceptLogLoss = (),
    insecure: Insecure = False,
    webhooks_allow_private: WebhooksAllowPrivate = False,
) -> int:
    """Start one service on an outside NATS server.

    ROLLFORWARD_* variables set what no option does. Ctrl-C and SIGTERM stop it in good order.

    Examples:

        rollforward start registry --nats nats://localhost:4222 --database postgresql://localhost/registry
        rollforward start tracking --nats nats://localhost:4222 --artifacts s3://models/artifacts
    """
    if not _are_services([service]) or not _are_logs(accept_log_loss):
        return 2

    def settings() -> Settings:
        given = _settings((service,), data, grpc, http, nats, database, artifacts, webhooks_allow_private)
        if not given.nats:
            fault = "no NATS server: a single service needs --nats or ROLLFORWARD_NATS"
            raise Rejected(Kind.INVALID, "INVALID_SETTING", fault, name="ROLLFORWARD_NATS")
        return replace(given, accept_log_loss=accept_log_loss, insecure=insecure)

    return _main(settings)


def _are_logs(names: Sequence[str]) -> bool:
    for name in names:
        if name not in LOGS:
            print(f"rollforward: unknown log {name!r}: expected one of {', '.join(LOGS)}", file=sys.stderr)
            return False
    return True


def _are_services(names: Sequence[str]) -> bool:
    for name in names:
        if name not in SERVICES:
            print(f"rollforward: unknown service {name!r}: expected one of {', '.join(SERVICES)}", file=sys.stderr)
            return False
    return True


def _settings(
    services: tuple[str, ...],
    data: Path | None,
    grpc: str | None,
    http: str | None,
    nats: str | None,
    database: str | None,
    artifacts: str | None,
    webhooks_allow_private: bool,
) -> Settings:
    given: dict[str, Any] = {
        "data": data,
        "grpc": grpc,
        "http": http,
        "nats": nats,
        "database": database,
        "artifacts": artifacts,
        "webhooks_allow_private": webhooks_allow_private or None,
    }
    known = {name: value for name, value in given.items() if value is not None}
    return replace(from_environment(os.environ), services=services, **known)


COLLECTED_AFTER = 5_000, 10, 20
"""When the garbage collector looks for cycles, as `gc.set_threshold` has it: there are few, and calls wait for it."""


def _main(read_settings: Callable[[], Settings]) -> int:
    keep_files_private()
    configure_logging()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*COLLECTED_AFTER)
    raise_file_limit()
    try:
        settings = read_settings()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except REFUSALS as error:
        report(error)
        return USAGE if getattr(error, "reason", "") in _WRONG_USE else 1
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    process, stopped = asyncio.create_task(_run(settings)), asyncio.create_task(stop.wait())
    both: list[asyncio.Task[Any]] = [process, stopped]
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    # Once only, and at any time: a start that waits for others must be left, a drain under way must not.
    process.cancel()
    with suppress(asyncio.CancelledError):
        await process


async def _run(settings: Settings) -> None:
    async with running(settings, _tell) as process:
        _set_start_apart()
        _announce(settings, process)
        await process.failed


def _set_start_apart() -> None:
    """Keep the garbage collector from looking through what the start made, which stays: 80 ms each time."""
    gc.collect()
    gc.freeze()


def _announce(settings: Settings, process: Running) -> None:
    also = f" and {process.http}" if process.http else ""
    _tell(f"rollforward {'+'.join(settings.services)} listens on {process.grpc}{also}")
    _tell(f"version {version('rollforward-server')}, data directory {settings.data.absolute()}")
    _tell(f"next: export ROLLFORWARD_URI={process.grpc}, then `rollforward status`; Ctrl-C stops it")
    if process.http:
        _tell(f"for MLflow's clients: export MLFLOW_TRACKING_URI={process.http}")


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    app = App(name="services", help=__doc__)
    app.command(up)
    app.command(start)
    sys.exit(app())
