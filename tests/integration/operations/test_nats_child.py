"""The embedded NATS server ends with its owner, however the owner ends, and the lock of its directory is freed."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from services.nats.data_directory import DataDirectoryInUse, DataDirectoryUnusable, DirectoryLock
from services.nats.process import NatsChild, NatsConfig, find_nats_server, leashed
from services.nats.server import EmbeddedNats
from tests.servers.nats import until
from tests.timeouts import scaled

pytestmark = pytest.mark.busy

ROOT = Path(__file__).parents[3]
Spawn = Callable[..., "Parent"]

OWNER = """
import asyncio, signal, sys
from pathlib import Path
from services.nats.server import EmbeddedNats

async def main():
    stop = asyncio.Event()
    if sys.argv[2] == "graceful":
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with EmbeddedNats(Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await stop.wait()

asyncio.run(main())
"""
HOLDER = """
import subprocess, sys
from services.nats.process import leashed
child = subprocess.Popen(leashed(["/bin/sleep", "600"], sys.argv[1]), stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def start_process(
    command: list[str], *, pass_fds: tuple[int, ...] = (), stdin: int | None = None
) -> subprocess.Popen[str]:
    return subprocess.Popen(command, pass_fds=pass_fds, stdin=stdin, text=True)


@dataclass(frozen=True)
class Parent:
    """A Python program in a process group of its own, and the pid of the child it printed."""

    program: subprocess.Popen[str]
    child: int


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Return a function that starts a program that prints its child's pid; the fixture ends both afterwards."""
    parents: list[Parent] = []

    def start(source: str, *arguments: str) -> Parent:
        command = [sys.executable, "-c", source, *arguments]
        program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert program.stdout is not None
        parents.append(Parent(program, int(program.stdout.readline())))
        return parents[-1]

    yield start
    for parent in parents:
        if not has_ended(parent.child):
            os.kill(parent.child, signal.SIGKILL)
        parent.program.kill()
        parent.program.communicate()


async def test_start_is_rejected_while_other_process_uses_directory(spawn: Spawn, tmp_path: Path) -> None:
    program = spawn(OWNER, str(tmp_path / "data"), "plain").program
    with pytest.raises(DataDirectoryInUse) as caught:
        await EmbeddedNats(tmp_path / "data").start()
    assert caught.value.pid == program.pid


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_full_disk_is_rejected(full_disk: None, tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryUnusable):
        await EmbeddedNats(tmp_path / "data").start()


async def test_server_is_not_started_if_lock_cannot_be_written(tmp_path: Path) -> None:
    (await DirectoryLock.acquire(tmp_path)).release()
    fd = os.open(tmp_path / "lock", os.O_RDONLY)
    NatsConfig(None, "user", "password", "system", "password").write(tmp_path)
    before = psutil.Process().children()
    with pytest.raises(OSError, match="Invalid"):
        await NatsChild.spawn(find_nats_server(), tmp_path, DirectoryLock(fd))
    assert psutil.Process().children() == before
    os.close(fd)


async def test_server_that_outlives_its_owner_keeps_lock(tmp_path: Path) -> None:
    lock = await DirectoryLock.acquire(tmp_path / "data")
    orphan = start_process(["/bin/sleep", "600"], pass_fds=(lock.fd,))
    dead = start_process(["/bin/sleep", "0"])
    dead.wait()
    (tmp_path / "data" / "lock").write_text(f"{dead.pid} {orphan.pid}")
    lock.leave()
    try:
        with pytest.raises(DataDirectoryInUse) as caught:
            await DirectoryLock.acquire(tmp_path / "data")
        assert caught.value.pid == orphan.pid
    finally:
        orphan.kill()
        orphan.wait()
    (await DirectoryLock.acquire(tmp_path / "data")).release()


async def test_server_dies_with_killed_owner_and_frees_directory(spawn: Spawn, tmp_path: Path) -> None:
    parent = spawn(OWNER, str(tmp_path / "data"), "plain")
    parent.program.kill()
    parent.program.wait()
    async with EmbeddedNats(tmp_path / "data") as server:  # waits for the lock: the first server has gone
        assert has_ended(parent.child)
        assert server.pid != parent.child


@pytest.mark.parametrize("how", ["plain", "graceful"])
async def test_sigterm_of_owner_stops_server(spawn: Spawn, tmp_path: Path, how: str) -> None:
    parent = spawn(OWNER, str(tmp_path / "data"), how)
    parent.program.terminate()
    assert parent.program.wait(scaled(20)) == (0 if how == "graceful" else -signal.SIGTERM)
    await until(lambda: has_ended(parent.child))


@pytest.mark.parametrize("how", ["plain", "graceful"])
async def test_ctrl_c_reaches_owner_only_which_stops_server_cleanly(spawn: Spawn, tmp_path: Path, how: str) -> None:
    parent = spawn(OWNER, str(tmp_path / "data"), how)
    os.killpg(parent.program.pid, signal.SIGINT)
    parent.program.wait(scaled(20))
    assert has_ended(parent.child)
    log = (tmp_path / "data" / "nats-server.log").read_text()
    assert "terminated" in log
    assert "interrupt" not in log


@pytest.mark.parametrize("platform", sorted({sys.platform, "other"}))
async def test_leashed_process_dies_with_killed_parent(spawn: Spawn, platform: str) -> None:
    parent = spawn(HOLDER, platform)
    await until(lambda: psutil.Process(parent.child).name() == "sleep")
    parent.program.kill()
    parent.program.wait()
    await until(lambda: has_ended(parent.child))


async def test_pipe_leash_ends_when_parent_closes_it() -> None:
    child = start_process(leashed(["/bin/sleep", "600"], "other"), stdin=subprocess.PIPE)
    await until(lambda: psutil.Process(child.pid).name() == "sleep")
    watchers = psutil.Process(child.pid).children()
    assert len(watchers) == 1
    child.terminate()
    assert child.wait() == -signal.SIGTERM
    assert child.stdin is not None
    child.stdin.close()
    await until(lambda: has_ended(watchers[0].pid))
