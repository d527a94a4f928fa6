"""What callers may occupy is bounded, and those who occupy it keep no others out."""

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
    """A usual limit of open files for what is started within."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Up]:
    """A system of its own, started with the limit that most systems set."""
    with ExitStack() as stack:
        with few_files(1024):
            system = stack.enter_context(up(tmp_path / "data"))
        yield system


@contextmanager
def connections(address: str, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections over which no more than this is sent."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(socket.create_connection((host, int(port)))))
            opened[-1].sendall(first)
        yield opened


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended a connection."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def test_a_new_client_gets_in_beside_silent_connections_which_are_ended(started: Up) -> None:
    with connections(started.address, SILENT) as silent:
        new = Client(started.address)
        assert new.heads() == started.heads()
        new.channel.close()
        until(lambda: all(map(is_closed, silent)), "all silent connections are ended", SECONDS)
    assert psutil.Process(started.pid).num_fds() < SILENT


def test_a_new_client_gets_in_where_no_limit_can_be_raised(tmp_path: Path) -> None:
    with up(tmp_path / "data") as system:
        psutil.Process(system.pid).rlimit(psutil.RLIMIT_NOFILE, (1024, 1024))
        with connections(system.address, SILENT):
            until(lambda: answers(system.address), "a new client gets in", SECONDS)


def answers(address: str) -> bool:
    """Whether a new client is answered."""
    client = Client(address)
    try:
        return bool(client.heads())
    except grpc.RpcError:
        return False
    finally:
        client.channel.close()


def test_half_a_request_over_http_keeps_nobody_out_and_is_ended(started: Up) -> None:
    address = started.http.removeprefix("http://")
    with connections(address, 500, b"GET /livez HTTP/1.1\r\nHost: x\r\n") as half:
        assert httpx.get(f"{started.http}/livez", timeout=SECONDS).status_code == 200
        until(lambda: all(map(is_closed, half)), "all halves are ended", SECONDS)


def test_a_compressed_message_is_not_unpacked(system: Up) -> None:
    # 64 MB that compress to little: over the limit of 4 MB only when they are unpacked.
    large = v1.GetModelRequest(name="x" * 64_000_000)
    with pytest.raises(grpc.RpcError) as refused:
        system.registry.GetModel(large, compression=grpc.Compression.Gzip, timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert system.heads()


_MEGABYTE = bytes(1024 * 1024)


class Uploads:
    """Uploads that have begun and do not end before they are told to."""

    def __init__(self, system: Up, count: int, megabytes: int = 0) -> None:
        """Begin `count` uploads, each with so much data."""
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
        """Have all of them go on."""
        self._end.set()


def test_uploads_are_as_many_as_fit_and_starve_no_other_call(system: Up) -> None:
    limit = CallKind.UPLOAD.limit
    uploads = Uploads(system, limit + 20)
    try:
        until(lambda: sum(call.done() for call in uploads.calls) == 20, "what is too much is refused")
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
    until(lambda: sum(call.done() for call in uploads.calls) == 300 - CallKind.UPLOAD.limit, "the others are refused")
    uploads.end()
    until(lambda: all(call.done() for call in uploads.calls), "all uploads end")
    # Each may send 8 MB, 2.4 GB in all.
    assert process.memory_info().rss - before < 700_000_000
