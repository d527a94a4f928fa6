"""Transfers of a large artifact use bounded memory, and resume after a crash of either side.

ROLLFORWARD_LARGE_BYTES says how large; 256 MiB unless it is set.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.program import Program, until
from tests.integration.up import Up
from tests.servers.seaweedfs import running_seaweedfs
from tests.timeouts import scaled

MIB = 1024 * 1024
SIZE = int(os.environ.get("ROLLFORWARD_LARGE_BYTES", str(256 * MIB)))
MAX_MEMORY = 200_000_000
TRANSFER_SECONDS = scaled(120) + SIZE / 5_000_000

CLIENT = """
import sys
import rollforward as rf

verb, address, what, where = sys.argv[1:]
said = 0

def say(done, total):
    global said
    if done >= said + 8 * 1024 * 1024 or not said:
        said = done
        print("at", done, flush=True)

with rf.Client(address, actor="trainer", timeout=60) as link:
    if verb == "up":
        print("stored", link.artifacts.upload(what, progress=say)[0], flush=True)
    else:
        link.artifacts.download(what, where, progress=say)
        print("done", flush=True)
"""


@pytest.fixture(params=["local", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield where the services keep artifacts."""
    if request.param == "local":
        yield str(tmp_path / "artifacts")
        return
    with running_seaweedfs() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield f"s3://{server.bucket}/{uuid.uuid4().hex}"


def client(log: Path, verb: str, address: str, what: str, where: str = "") -> Program:
    """Start a program that uploads or downloads."""
    return Program([sys.executable, "-c", CLIENT, verb, address, what, where], log)


@contextmanager
def peak_memory(*pids: int) -> Iterator[list[int]]:
    """Yield the peak memory of each process, in bytes."""
    peaks = [0] * len(pids)
    ending = threading.Event()

    def watch() -> None:
        processes = [psutil.Process(pid) for pid in pids]
        while not ending.wait(0.02):
            for number, process in enumerate(processes):
                try:
                    peaks[number] = max(peaks[number], process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ending.set()
        thread.join()


def write(path: Path, size: int) -> None:
    """Write a file of which no two blocks are equal."""
    block = random.Random(size).randbytes(MIB)
    with path.open("wb") as file:
        for number in range(-(-size // MIB)):
            file.write((number.to_bytes(8, "big") + block[8:])[: size - number * MIB])


def equal_bytes(left: Path, right: Path) -> bool:
    """Return whether two files have the same bytes."""
    with left.open("rb") as one, right.open("rb") as other:
        while chunk := one.read(MIB):
            if chunk != other.read(MIB):
                return False
        return not other.read(1)


def first_offset(program: Program) -> int:
    """Return where a transfer began, in bytes."""
    return int(program.line(r"^at ")[1].split()[1])


@pytest.mark.timeout(TRANSFER_SECONDS * 3)
def test_transfers_use_bounded_memory(artifacts: str, tmp_path: Path) -> None:
    source, back = tmp_path / "weights", tmp_path / "back"
    write(source, SIZE)
    services = Up(tmp_path / "data", "--artifacts", artifacts)
    try:
        began = time.monotonic()
        up = client(tmp_path / "up.log", "up", services.address, str(source))
        with peak_memory(services.pid, up.pid) as memory:
            digest = up.line(r"^stored ", TRANSFER_SECONDS)[1].split()[1]
            assert up.wait() == 0
        print(f"up: {time.monotonic() - began:.1f} s, memory of server and client {memory}")
        assert max(memory) < MAX_MEMORY
        began = time.monotonic()
        down = client(tmp_path / "down.log", "down", services.address, digest, str(back))
        with peak_memory(services.pid, down.pid) as memory:
            down.line(r"^done", TRANSFER_SECONDS)
            assert down.wait() == 0
        print(f"down: {time.monotonic() - began:.1f} s, memory of server and client {memory}")
        assert max(memory) < MAX_MEMORY
        assert equal_bytes(source, back / "weights")
    finally:
        services.channel.close()
        services.program.terminate()


def test_transfers_resume_after_client_is_killed(tmp_path: Path) -> None:
    source, back = tmp_path / "weights", tmp_path / "back"
    write(source, 256 * MIB)
    services = Up(tmp_path / "data")
    try:
        first = client(tmp_path / "first.log", "up", services.address, str(source))
        assert first_offset(first) == 0
        first.line(r"^at \d{8,}")
        first.kill()
        again = client(tmp_path / "again.log", "up", services.address, str(source))
        digest = again.line(r"^stored ", 60)[1].split()[1]
        assert again.wait() == 0
        # It says 0 before it has asked what is there.
        assert next(number for number in reported_offsets(again) if number) >= 8 * MIB
        first = client(tmp_path / "first-down.log", "down", services.address, digest, str(back))
        first.line(r"^at \d{8,}")
        first.kill()
        assert not back.exists()
        again = client(tmp_path / "again-down.log", "down", services.address, digest, str(back))
        again.line(r"^done", 60)
        assert again.wait() == 0
        assert next(number for number in reported_offsets(again) if number) >= 8 * MIB
        assert equal_bytes(source, back / "weights")
        assert not list(tmp_path.glob(".*"))
    finally:
        services.channel.close()
        services.program.terminate()


def reported_offsets(program: Program) -> list[int]:
    """Return the offsets that a transfer has reported."""
    return [int(found[1]) for _, line in program._lines if (found := re.match(r"at (\d+)", line))]


def test_upload_resumes_after_service_is_killed(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    write(source, 256 * MIB)
    services = Up(tmp_path / "data")
    upload = client(tmp_path / "up.log", "up", services.address, str(source))
    upload.line(r"^at \d{8,}")
    services.program.kill()
    services.channel.close()
    command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path / "data"), "--grpc", services.address]
    again = Program(command, tmp_path / "data.log")
    try:
        upload.line(r"^stored ", 90)
        assert upload.wait() == 0
        numbers = reported_offsets(upload)
        assert numbers == sorted(numbers)
        until(lambda: not list((tmp_path / "data" / "artifacts" / "tmp").iterdir()), "no upload is left")
    finally:
        again.terminate()
