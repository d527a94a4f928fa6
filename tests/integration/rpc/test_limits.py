"""Resources that callers may occupy are bounded, and those who occupy them do not block others."""

from __future__ import annotations

import hashlib
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from rollforward import v1
from rollforward.errors import Unavailable, from_rpc_error
from services.rpc.limits import CallKind
from tests.e2e.program import until
from tests.integration.up import SECONDS, Client, Up, up

SILENT = 1_100


@contextmanager
def few_files(count: int) -> Iterator[None]:
    """Set a limit of open files for programs started within the block."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Up]:
    """Run a separate system with the usual limit of open files."""
    with ExitStack() as stack:
        with few_files(1024):
            system = stack.enter_context(up(tmp_path / "data"))
        yield system


@contextmanager
def connections(address: str, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections over which only `first` is sent."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(socket.create_connection((host, int(port)))))
            opened[-1].sendall(first)
        yield opened


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other side has closed a connection."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_new_client_connects_despite_idle_connections(started: Up) -> None:
    with connections(started.address, SILENT) as idle:
        new = Client(started.address)
        assert new.heads() == started.heads()
        new.channel.close()
        until(lambda: all(map(is_closed, idle)), "all idle connections are closed", SECONDS)
    assert psutil.Process(started.pid).num_fds() < SILENT


def test_new_client_connects_with_fixed_file_limit(tmp_path: Path) -> None:
    with up(tmp_path / "data") as system:
        psutil.Process(system.pid).rlimit(psutil.RLIMIT_NOFILE, (1024, 1024))
        with connections(system.address, SILENT):
            until(lambda: is_reachable(system.address), "a new client connects", SECONDS)


def is_reachable(address: str) -> bool:
    """Return whether a new client gets a response."""
    client = Client(address)
    try:
        return bool(client.heads())
    except grpc.RpcError:
        return False
    finally:
        client.channel.close()


def test_incomplete_http_requests_block_nobody_and_are_closed(started: Up) -> None:
    address = started.http.removeprefix("http://")
    with connections(address, 500, b"GET /livez HTTP/1.1\r\nHost: x\r\n") as incomplete:
        assert httpx.get(f"{started.http}/livez", timeout=SECONDS).status_code == 200
        until(lambda: all(map(is_closed, incomplete)), "all incomplete requests are closed", SECONDS)


def test_compressed_message_is_not_decompressed(system: Up) -> None:
    # 64 MB that compress well: they exceed the limit of 4 MB only when decompressed.
    large = v1.GetModelRequest(name="x" * 64_000_000)
    with pytest.raises(grpc.RpcError) as refused:
        system.registry.GetModel(large, compression=grpc.Compression.Gzip, timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert system.heads()


_MEGABYTE = bytes(1024 * 1024)


class Uploads:
    """Uploads that begin at once and continue when the test calls `end`."""

    def __init__(self, system: Up, count: int, megabytes: int = 0) -> None:
        """Begin `count` uploads, each with `megabytes` of data."""
        self._end = threading.Event()
        self._begun = [_MEGABYTE] * megabytes
        stub = system.artifacts
        self.calls = [stub.UploadBlob.future(self._parts(number), timeout=SECONDS) for number in range(count)]

    def _parts(self, number: int) -> Iterator[v1.UploadBlobRequest]:
        whole = hashlib.sha256(b"".join(self._begun) + bytes([number % 256])).hexdigest()
        yield v1.UploadBlobRequest(digest=f"sha256:{whole}")
        for chunk in self._begun:
            yield v1.UploadBlobRequest(chunk=chunk)
        self._end.wait(SECONDS)
        yield v1.UploadBlobRequest(chunk=bytes([number % 256]))

    def end(self) -> None:
        """Let all uploads finish."""
        self._end.set()


def test_concurrent_uploads_are_limited_and_starve_no_call(system: Up) -> None:
    limit = CallKind.UPLOAD.limit
    uploads = Uploads(system, limit + 20)
    try:
        until(lambda: sum(call.done() for call in uploads.calls) == 20, "excess uploads are rejected")
        for call in uploads.calls:
            if call.done():
                refusal = from_rpc_error(call.exception())  # type: ignore[arg-type]
                assert (type(refusal), refusal.reason) == (Unavailable, "TOO_MANY_UPLOADS")
        assert system.heads()
    finally:
        uploads.end()
    until(lambda: all(call.done() for call in uploads.calls), "all uploads end")
    assert sum(call.exception() is None for call in uploads.calls) == limit
    assert system.upload(b"after all")


def test_open_uploads_have_bounded_memory(started: Up) -> None:
    process = psutil.Process(started.pid)
    before = process.memory_info().rss
    uploads = Uploads(started, 300, megabytes=8)
    until(
        lambda: sum(call.done() for call in uploads.calls) == 300 - CallKind.UPLOAD.limit, "excess uploads are rejected"
    )
    uploads.end()
    until(lambda: all(call.done() for call in uploads.calls), "all uploads end")
    # Each may send 8 MB, 2.4 GB in all.
    assert process.memory_info().rss - before < 700_000_000
