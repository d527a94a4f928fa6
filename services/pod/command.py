"""The command `rollforward serve`: its options, and the pod that it runs."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import structlog
from cyclopts import Parameter

from eventstore import Rejected
from rollforward import Client
from rollforward.errors import InvalidRequest, RollforwardError
from rollforward.references import parse_alias
from services.failures import report
from services.pod import models
from services.pod.follower import PodRefused
from services.pod.pod import Pod, Settings
from services.pod.runtime import Target
from services.rpc.addresses import check_reach
from services.rpc.limits import raise_file_limit


def command(
    *targets: Annotated[str, Parameter(name="MODEL@ALIAS", required=True, help="The aliases to serve; one or more.")],
    server: Annotated[
        str | None,
        Parameter(metavar="ADDRESS", help="HOST:PORT, or service=HOST:PORT,...; default ROLLFORWARD_URI."),
    ] = None,
    grpc: Annotated[
        str,
        Parameter(
            env_var="ROLLFORWARD_POD_GRPC",
            metavar="HOST:PORT",
            help="The address of predictions. Port 0: a free one.",
        ),
    ] = "127.0.0.1:9000",
    cache: Annotated[
        Path | None,
        Parameter(metavar="DIR", help="Directory of artifacts and the last state; default ~/.cache/rollforward/pod."),
    ] = None,
    allow_pickle: Annotated[
        bool,
        Parameter(negative=(), show_default=False, help="Open pickled models. A pickle runs any code of its author."),
    ] = False,
    trust: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="TYPE",
            negative=(),
            show_default=False,
            help="A type that a skops file may contain beyond scikit-learn's own; may be repeated.",
        ),
    ] = (),
    insecure: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Listen where other machines can call. Callers are neither authenticated nor encrypted.",
        ),
    ] = False,
) -> int:
    """Serve the versions that aliases point to, and follow the aliases as they move.

    Answers the Open Inference Protocol over gRPC until Ctrl-C or SIGTERM. Continues to serve while the services are
    away, and starts from what it served last when they are.

    Examples:

        rollforward serve fraud-detector@champion
        rollforward serve fraud-detector@champion limits@champion --grpc 127.0.0.1:9001
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    raise_file_limit()
    # Loading a model holds the interpreter; requests meanwhile wait a tenth of what they would by default.
    sys.setswitchinterval(0.0005)
    try:
        check_reach(grpc, insecure=insecure)
        settings = _settings(targets, server, grpc, cache, models.Options(frozenset(trust), allow_pickle))
        asyncio.run(_run(settings))
    except (RollforwardError, PodRefused, Rejected, OSError) as error:
        report(error)
        return 2 if isinstance(error, InvalidRequest | Rejected) else 1
    return 0


def _settings(
    targets: tuple[str, ...], server: str | None, grpc: str, cache: Path | None, options: models.Options
) -> Settings:
    host, colon, port = grpc.rpartition(":")
    if not targets or not (host and colon and port.isdigit() and int(port) < 65536):
        raise InvalidRequest("INVALID_ARGUMENTS", "expected one or more MODEL@ALIAS, and --grpc HOST:PORT")
    followed = dict.fromkeys(Target(*parse_alias(text)) for text in targets)
    return Settings(tuple(followed), server, host, int(port), cache or _default_cache(), options)


def _default_cache() -> Path:
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        home = chosen if chosen.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise InvalidRequest("NO_CACHE", "no home directory for the cache. Set --cache") from error
    return home / "rollforward" / "pod"


async def _run(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        # A second signal ends the process at once.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with Client(settings.server) as client:
        await Pod(settings, client).run(stopping)
