"""The systems that histories are recorded on, by name, with real services, NATS servers and databases."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.nats.process import NatsConfig, find_nats_server
from tests.histories.systems.clocks import ProcessClock
from tests.histories.systems.cluster import SERVERS, Cluster
from tests.histories.systems.databases import Postgres, Sqlite
from tests.histories.systems.disks import small_disk
from tests.histories.systems.network import HOST, Network, Proxy
from tests.histories.systems.processes import Process
from tests.histories.systems.system import Nats, System
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresServer, running_postgres

PROGRAM = [sys.executable, "-m", "tests.histories.systems.program"]
READY = " listens on "
SETTINGS = {"ROLLFORWARD_WEBHOOKS_ALLOW_PRIVATE": "1"}


@dataclass
class _Build:
    """A system under construction; `stack` ends its parts."""

    home: Path
    bug: str
    stack: ExitStack
    network: Network
    clocks: list[ProcessClock] = field(default_factory=list)
    client_links: list[Proxy] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    def service(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Start the command of a service; return the address at which clients reach it."""
        port = free_port()
        clock = ProcessClock(self.home / f"{name}.clock")
        arguments = [
            *PROGRAM,
            self.bug,
            *command,
            "--grpc",
            f"{HOST}:{port}",
            "--artifacts",
            str(self.home / "artifacts"),
        ]
        process = Process(arguments, self.home / f"{name}.log", READY, {**environment, **SETTINGS, **clock.environment})
        self.stack.callback(process.kill)
        process.spawn()
        self.processes.append(process)
        self.clocks.append(clock)
        link = self.network.proxy(port)
        self.client_links.append(link)
        return f"{HOST}:{link.port}"

    def nats(self) -> tuple[Nats, Mapping[str, str], list[Proxy]]:
        """Start one NATS server; return it, the settings that lead services to it, and the network between."""
        data, port, secret = self.home / "nats", free_port(), secrets.token_hex(8)
        data.mkdir()
        NatsConfig(port, "rollforward", secret, "system", secret).write(data)
        command = ["/bin/sh", "-c", 'cd "$0" && exec "$1" -c nats-server.conf', str(data), str(find_nats_server())]
        process = Process(command, self.home / "nats.log", "", {})
        self.stack.callback(process.kill)
        process.start()
        link = self.network.proxy(port)
        credentials = {"ROLLFORWARD_NATS_USER": "rollforward", "ROLLFORWARD_NATS_PASSWORD": secret}
        environment = {"ROLLFORWARD_NATS": f"nats://{HOST}:{link.port}", **credentials}
        return Nats(f"nats://{HOST}:{port}", data, process), environment, [link]

    def ready(self) -> None:
        """Return once all services are ready."""
        for process in self.processes:
            process.ready()


@contextmanager
def _building(home: Path, bug: str) -> Iterator[_Build]:
    with ExitStack() as stack:
        yield _Build(home, bug, stack, stack.enter_context(Network()))


@contextmanager
def one_process(home: Path, bug: str = "none") -> Iterator[System]:
    """Run everything in one process with NATS built in, as `rollforward up` does, on a small disk of its own."""
    with _building(home, bug) as build:
        disk = build.stack.enter_context(small_disk(home / "disk"))
        data, port = home / "disk" / "data", free_port()
        address = build.service("up", ["up", "--data", str(data)], {"ROLLFORWARD_NATS_PORT": str(port)})
        build.ready()
        [process] = build.processes
        yield System(
            {address: process},
            Nats(f"nats://{HOST}:{port}", data / "nats", owner=process),
            processes=build.processes,
            clocks=build.clocks,
            client_links=build.client_links,
            disk=disk,
            database=Sqlite(data / "rows"),
            data=data,
            lacks="" if disk else "'full disk' is left out: this user may not mount a tmpfs",
        )


@contextmanager
def two_writers(home: Path, bug: str = "none") -> Iterator[System]:
    """Run two registry processes with their own rows over one log, and a third process for the other services."""
    with _building(home, bug) as build:
        nats, environment, log_links = build.nats()
        others = build.service("others", ["up", "--without", "registry", "--data", str(home / "others")], environment)
        rest = ",".join(f"{service}={others}" for service in ("tracking", "serving", "audit", "webhooks"))
        registries = {}
        for number in range(2):
            command = ["start", "registry", "--data", str(home / f"registry-{number}")]
            address = build.service(f"registry-{number}", command, environment)
            registries[f"{rest},registry={address}"] = build.processes[-1]
        build.ready()
        yield System(
            registries,
            nats,
            processes=build.processes,
            clocks=build.clocks,
            client_links=build.client_links,
            log_links=log_links,
        )


@contextmanager
def postgres(home: Path, bug: str = "none") -> Iterator[System]:
    """Run everything in one process, with its rows in PostgreSQL and a separate NATS server."""
    with _building(home, bug) as build:
        server = build.stack.enter_context(running_postgres())
        # Our own server stops completely, also when it was not restarted after a fault.
        url = _url(server) if server.ours else build.stack.enter_context(server.database())
        nats, environment, log_links = build.nats()
        address = build.service("up", ["up", "--data", str(home / "data"), "--database", url], environment)
        build.ready()
        yield System(
            {address: build.processes[0]},
            nats,
            processes=build.processes,
            clocks=build.clocks,
            client_links=build.client_links,
            log_links=log_links,
            database=Postgres(server) if server.ours else None,
            lacks="" if server.ours else "'database away' is left out: PostgreSQL is not ours to stop",
        )


@contextmanager
def cluster(home: Path, bug: str = "none") -> Iterator[System]:
    """Run a process for everything and one more registry, over three NATS servers."""
    with _building(home, bug) as build:
        servers = Cluster(home, build.stack)
        environment = {"ROLLFORWARD_NATS": servers.url, "ROLLFORWARD_REPLICAS": str(SERVERS)}
        first = build.service("up", ["up", "--data", str(home / "data")], environment)
        build.ready()
        second = build.service("registry", ["start", "registry", "--data", str(home / "registry")], environment)
        build.processes[-1].ready()
        rest = ",".join(f"{service}={first}" for service in ("tracking", "serving", "audit", "webhooks"))
        yield System(
            {first: build.processes[0], f"{rest},registry={second}": build.processes[1]},
            Nats(servers.url, None),
            processes=build.processes,
            clocks=build.clocks,
            client_links=build.client_links,
            cluster=servers,
        )


def _url(server: PostgresServer) -> str:
    return server.url.render_as_string(hide_password=False)


SHAPES: Mapping[str, Callable[..., AbstractContextManager[System]]] = {
    "one process": one_process,
    "two writers": two_writers,
    "postgres": postgres,
    "cluster": cluster,
}
