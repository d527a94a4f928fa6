"""The services of docker-compose.yml as local processes, started exactly as the file says.

Only names, ports and paths of the containers are replaced, by explicit mappings; PostgreSQL is the one that the tests
share.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import yaml

from services.nats.process import leashed
from tests.e2e.program import until
from tests.servers.ports import free_port
from tests.servers.postgres import PostgresServer
from tests.timeouts import scaled

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
SERVICES = ("tracking", "registry", "serving", "audit", "webhooks")
VARIABLES = {
    # Digits, which NATS may parse as numbers, and characters that a URL must escape.
    "NATS_PASSWORD": "0123456789",
    "POSTGRES_PASSWORD": "a/b@c:d 100%",
    "S3_SECRET_KEY": "the-secret-of-the-test",
    "WEBHOOK_KEY": "the-key-of-the-webhooks-of-the-test",
}
STOP_SECONDS = scaled(30.0)

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<words>[^}]*))?\})")


class VariableMissing(Exception):
    """The file needs a variable that is not set."""


def read_compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with its variables substituted as Compose does it.

    Raises:
        VariableMissing: A required variable is not set.
    """

    def value(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        if given := variables.get(found["name"], ""):
            return given
        if found["kind"] != "-":
            raise VariableMissing(found["name"])
        return found["words"]

    filled = _mapped(yaml.safe_load(COMPOSE_FILE.read_text()), lambda text: _VARIABLE.sub(value, text))
    assert isinstance(filled, dict)
    return filled


def instructions(name: str) -> list[str]:
    """Return the arguments of each instruction of this name in the Dockerfile, on one line."""
    lines = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{name} ").strip() for line in lines if line.startswith(f"{name} ")]


class Container:
    """One service of the file as a process in an empty directory; its output goes to `log`."""

    def __init__(self, definition: Mapping[str, Any], entrypoint: list[str], home: Path, extra: list[str]) -> None:
        self._definition = definition
        program, *arguments = list(definition.get("entrypoint", entrypoint)) + list(definition["command"]) + extra
        self._command = [_program(program), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = home / "directory"
        self.directory.mkdir()
        self.log = home / "log"
        # As in the image, in a volume: a service without one may not write.
        self._data = {"ROLLFORWARD_DATA": str(home / "data")} if definition.get("volumes") else {}

    def start(self) -> None:
        """Start the container; it is not ready yet."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                leashed(self._command),
                cwd=self.directory,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.directory),
                    **self._data,
                    **self._definition["environment"],
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def healthy(self) -> bool:
        """Return the result of the file's health check."""
        kind, program, *arguments = self._definition["healthcheck"]["test"]
        assert kind == "CMD"
        if program == "wget":  # not installed everywhere
            return _answers(arguments[-1])
        return subprocess.run([_program(program), *arguments], capture_output=True, check=False).returncode == 0

    def wait_until_healthy(self) -> None:
        """Wait until the container is healthy; fail the test when it ends or takes too long."""

        def healthy() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text(errors="replace")[-4000:]
            return self.healthy()

        until(healthy, f"{self._command} is healthy", 60.0)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop the container with a signal; return its exit status, or the earlier one if it has already ended."""
        assert self._process is not None
        with self._process as process:
            process.send_signal(number)
            try:
                return process.wait(STOP_SECONDS)
            finally:
                process.kill()


@dataclass(frozen=True)
class Stack:
    """The running services and what they stand on; `address` is how a client finds them."""

    containers: dict[str, Container]
    places: dict[str, str]
    address: str


@contextmanager
def running_stack(postgres: PostgresServer) -> Iterator[Stack]:
    """Start all default services of the file; kill them at the end unless they were stopped before."""
    with (
        tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp") as home,
        ExitStack() as stack,
    ):  # sockets need a short path
        ports = {name: free_port() for name in ("nats:4222", "nats:8222", "s3:8333", *SERVICES)}
        places = {name: f"127.0.0.1:{port}" for name, port in ports.items() if name not in SERVICES}
        places["@postgres:5432/rollforward"] = stack.enter_context(_database(postgres))
        address = ",".join(f"{name}=127.0.0.1:{ports[name]}" for name in SERVICES)
        running = Stack({}, places, address)
        for name, make in {"nats": _nats, "s3": _s3}.items():
            (Path(home) / name).mkdir()
            stack.enter_context(make(running, Path(home) / name))
        for name in SERVICES:
            (Path(home) / name).mkdir()
            stack.enter_context(_service(running, name, ports[name], Path(home) / name))
        for container in running.containers.values():
            container.wait_until_healthy()
        yield running


@contextmanager
def running_pod(stack: Stack, target: str) -> Iterator[Container]:
    """Start the pod that the file has as an example; yield it once it serves the alias."""
    address = f"127.0.0.1:{free_port()}"
    containers = dict(part.split("=") for part in stack.address.split(","))
    here = {f"{name}:50051": endpoint for name, endpoint in containers.items()}
    here |= {"0.0.0.0:9000": address, "127.0.0.1:9000": address, "fraud-detector@champion": target}
    with tempfile.TemporaryDirectory(prefix="rf-") as home, _run(stack, "pod", here, Path(home), []) as pod:
        pod.wait_until_healthy()
        yield pod


@contextmanager
def _run(stack: Stack, name: str, here: Mapping[str, str], home: Path, extra: list[str]) -> Iterator[Container]:
    definition = _placed(read_compose(VARIABLES)["services"][name], {**stack.places, **here})
    # The nats image runs this when the command begins with an option.
    entrypoint = ["nats-server"] if name == "nats" else json.loads(instructions("ENTRYPOINT")[0])
    container = Container(definition, entrypoint, home, extra)
    container.start()
    stack.containers[name] = container
    try:
        yield container
    finally:
        container.stop(signal.SIGKILL)


@contextmanager
def _nats(stack: Stack, home: Path) -> Iterator[None]:
    configuration = home / "nats.conf"
    here = {
        "/etc/rollforward/nats.conf": str(configuration),
        "/data": str(home / "data"),
        **{f"0.0.0.0:{port}": stack.places[f"nats:{port}"] for port in (4222, 8222)},
        "127.0.0.1:8222": stack.places["nats:8222"],
    }
    configuration.write_text(str(_placed((ROOT / "deploy" / "nats.conf").read_text(), here)))
    with _run(stack, "nats", here, home, []) as container:
        container.wait_until_healthy()
        yield


@contextmanager
def _s3(stack: Stack, home: Path) -> Iterator[None]:
    host, _, port = stack.places["s3:8333"].partition(":")
    names = [f"{part}.port{kind}" for part in ("s3", "filer", "master", "volume") for kind in ("", ".grpc")]
    ports = {name: free_port() for name in names} | {"s3.port": int(port)}
    extra = [f"-{name}={port}" for name, port in ports.items()]
    extra += [f"-{part}.localSocket={home}/{part}" for part in ("filer", "s3")]
    (home / "data").mkdir()
    here = {"=/data": f"={home}/data", "=0.0.0.0": f"={host}", "127.0.0.1:8333": stack.places["s3:8333"]}
    try:
        with _run(stack, "s3", here, home, extra) as container:
            container.wait_until_healthy()
            yield
    finally:
        for name in ("s3", "filer", "master", "volume"):
            port = str(ports[f"{name}.port.grpc"])
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108 - it leaves them there


@contextmanager
def _service(stack: Stack, name: str, port: int, home: Path) -> Iterator[None]:
    http = free_port()
    here = {
        "0.0.0.0:50051": f"127.0.0.1:{port}",
        "0.0.0.0:8080": f"127.0.0.1:{http}",
        "127.0.0.1:8080": f"127.0.0.1:{http}",
    }
    with _run(stack, name, here, home, []):
        yield


@contextmanager
def _database(server: PostgresServer) -> Iterator[str]:
    """Create a database with a password as the image of PostgreSQL does; yield its URL from the server on."""
    settings = read_compose(VARIABLES)["services"]["postgres"]["environment"]
    user, name, password = (settings[f"POSTGRES_{what}"] for what in ("USER", "DB", "PASSWORD"))
    place = f"@/{name}?host={server.url.query['host']}"
    url = server.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as admin:
        found = admin.execute("SHOW hba_file").fetchone()
        assert found is not None
        rules = Path(found[0])
        others = rules.read_text()
        admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'".encode())
        admin.execute(f"CREATE DATABASE {name} OWNER {user}".encode())
        rules.write_text(f"local {name} {user} scram-sha-256\n{others}")
        try:
            admin.execute("SELECT pg_reload_conf()")
            until(lambda: _refuses(f"postgresql://{user}:wrong{place}"), "PostgreSQL asks for the password")
            yield place
        finally:
            rules.write_text(others)
            admin.execute("SELECT pg_reload_conf()")
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
            admin.execute(f"DROP ROLE {user}".encode())


def _refuses(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return True
    return False


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=scaled(5)):  # noqa: S310 - one of the file's own
            return True
    except OSError:  # connection refused, or "not healthy"
        return False


def _program(name: str) -> str:
    """Return the program of this environment that the containers have under the same name."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    assert found is not None, f"no program {name}: is this environment complete?"
    return found


def _placed(tree: Any, places: Mapping[str, str]) -> Any:
    """Return the tree with every text of `places` replaced."""
    pattern = re.compile("|".join(map(re.escape, places)))
    return _mapped(tree, lambda text: pattern.sub(lambda found: places[found[0]], text))


def _mapped(tree: Any, change: Callable[[str], str]) -> Any:
    match tree:
        case str():
            return change(tree)
        case list():
            return [_mapped(item, change) for item in tree]
        case dict():
            return {key: _mapped(value, change) for key, value in tree.items()}
        case _:
            return tree
