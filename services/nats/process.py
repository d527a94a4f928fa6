"""One run of the `nats-server` program as a child process that cannot outlive its parent.

The child has a session of its own, so a terminal's Ctrl-C reaches the parent only. If the parent dies without
stopping it (kill -9), then on Linux the kernel kills the child at once (PR_SET_PDEATHSIG, bound to the thread that
started the child). Elsewhere, macOS among them, a small shell process waits on a pipe that closes with the parent
and kills the child; were that shell killed as well, the child would live on, its copy of the directory lock
keeping a second server off the store.
"""

import asyncio
import errno
import json
import os
import shutil
import socket
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import structlog

from eventstore.jetstream import ask_ready
from services.nats.data_directory import DirectoryLock
from services.nats.errors import HOST, NatsServerFailed, NatsServerMissing, NoSpace, PortInUse

MAX_PAYLOAD = 4 * 1024 * 1024
"""Bytes of one message: an event of at most 1 MB and its headers, with room to spare."""

_LOG_BYTES = 16 * 1024 * 1024
_LOG_FILES = 4
_MEMORY = "256MiB"  # what Go tries to stay below: left to itself it keeps much of what was ever written
_READY_LIMIT = 120.0  # seconds: recovering a large store comes before listening
_STOP_LIMIT = 10.0  # seconds from SIGTERM to SIGKILL
_POLL = 0.005  # seconds
_BLOCK_BYTES = 4096
_NO_SPACE = b"no space left on device"

MIN_FREE_BYTES = 1024 * 1024
"""What must be free for a server to be started."""

# 1 is PR_SET_PDEATHSIG, 9 is SIGKILL. A parent that died before the call is told by the changed parent pid.
_LINUX_LEASH = """
import ctypes, os, sys
os.umask(0o077)
if ctypes.CDLL(None).prctl(1, 9) != 0: sys.exit("prctl failed")
if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[2], sys.argv[2:])
"""
# The subshell waits for the end of standard input, a pipe; $$ is the pid which becomes the command's.
_PIPE_LEASH = """
umask 077
exec 3<&0 </dev/null
(read -r _ <&3; kill -KILL $$) >/dev/null 2>&1 &
exec "$@" 3<&-
"""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NatsConfig:
    """The configuration of an embedded server; `port` None takes a free one.

    The system user may ask the server about itself and nothing else: it has no access to the log.
    """

    port: int | None
    user: str
    password: str = field(repr=False)
    system_user: str
    system_password: str = field(repr=False)
    sync_always: bool = True

    def write(self, data: Path) -> None:
        """Write `DATA/nats-server.conf`, mode 0600; the paths in it are relative to DATA, where the child runs."""
        store = data / "store"
        store.mkdir(mode=0o700, exist_ok=True)
        store.chmod(0o700)
        sync = "sync_interval: always" if self.sync_always else ""
        text = f"""\
server_name: rollforward
listen: "{HOST}:{self.port or -1}"
ports_file_dir: "."
max_payload: {MAX_PAYLOAD}
log_file: "nats-server.log"
logfile_size_limit: {_LOG_BYTES}
logfile_max_num: {_LOG_FILES}
authorization {{ users: [{{ user: "{self.user}", password: "{self.password}" }}] }}
accounts {{ $SYS: {{ users: [{{ user: "{self.system_user}", password: "{self.system_password}" }}] }} }}
jetstream {{ store_dir: "store", max_file_store: {_budget(store)}, {sync} }}
"""
        path = data / "nats-server.conf"
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)


class NatsChild:
    """A running server over the directory `data`."""

    def __init__(self, process: asyncio.subprocess.Process, data: Path, leash: int, logged: int = 0) -> None:
        self._process = process
        self._data = data
        self._logged = logged
        self._leash: int | None = leash

    @classmethod
    async def spawn(cls, binary: Path, data: Path, lock: DirectoryLock) -> Self:
        """Start the program with the configuration in `data`; it shares the lock. Raises `OSError`, `NoSpace`."""
        if shutil.disk_usage(data).free < MIN_FREE_BYTES:
            raise NoSpace(data)
        _drop_ports_files(data)
        reader, leash = os.pipe()
        log = os.open(data / "nats-server.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        logged = os.fstat(log).st_size
        try:
            process = await asyncio.create_subprocess_exec(
                *leashed([str(binary), "-c", str(data / "nats-server.conf")]),
                cwd=data,
                env={"GOMEMLIMIT": _MEMORY} | os.environ,
                stdin=reader,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fd,),
                start_new_session=True,
            )
        except BaseException:
            os.close(leash)
            raise
        finally:
            os.close(reader)
            os.close(log)
        child = cls(process, data, leash, logged)
        try:
            lock.name_holders(process.pid)
        except BaseException:
            await child.end()  # else the next server would write the same store
            raise
        return child

    @property
    def pid(self) -> int | None:
        """The process id, None once the process has ended."""
        return self._process.pid if self._process.returncode is None else None

    async def ready(self, config: NatsConfig) -> int:
        """Wait until JetStream answers a client with these credentials; return the port.

        Raises `PortInUse`, `NatsServerFailed`, `NoSpace`; no process is left then.
        """
        try:
            async with asyncio.timeout(_READY_LIMIT):
                port = await self._listening(config)
        except BaseException as error:
            await self.end()
            if isinstance(error, TimeoutError):
                raise self._failure(None) from error
            raise
        if port is not None:
            return port
        failure = await self.death()
        raise PortInUse(config.port) if config.port is not None and _taken(config.port) else failure

    async def death(self) -> NatsServerFailed:
        """Wait until the process ends; return what is known of the cause."""
        code = await self._process.wait()
        self._drop_leash()
        return self._failure(code)

    async def end(self) -> None:
        """End the process if it still runs: SIGTERM, then SIGKILL at a limit."""
        try:
            with suppress(ProcessLookupError):  # it has ended already
                self._process.terminate()
            async with asyncio.timeout(_STOP_LIMIT):
                await self._process.wait()
        except BaseException as error:
            with suppress(ProcessLookupError):
                self._process.kill()
            if not isinstance(error, TimeoutError):
                raise
            _log.warning("nats-server did not stop in time and was killed", pid=self._process.pid)
            await self._process.wait()
        finally:
            self._drop_leash()

    async def _listening(self, config: NatsConfig) -> int | None:
        while self._process.returncode is None:
            # The ports file names this very child: the password never goes to another program on the port.
            port = _bound_port(self._data, self._process.pid)
            if port is not None and await ask_ready(HOST, port, config.user, config.password):
                return port
            self._check_space()
            await asyncio.sleep(_POLL)
        self._check_space()
        return None

    def _check_space(self) -> None:
        """Raise `NoSpace` when the disk is full: the server waits or ends then, without a word to its clients."""
        full = shutil.disk_usage(self._data).free < _BLOCK_BYTES
        if full or _NO_SPACE in _written_since(self._data / "nats-server.log", self._logged):
            raise NoSpace(self._data)

    def _failure(self, code: int | None) -> NatsServerFailed:
        log = self._data / "nats-server.log"
        return NatsServerFailed(code, _last_line(log), log)

    def _drop_leash(self) -> None:
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None


def find_nats_server() -> Path:
    """Return the program to run: ROLLFORWARD_NATS_SERVER, else the wheel's beside Python, else the one on PATH.

    Raises `NatsServerMissing`.
    """
    configured = os.environ.get("ROLLFORWARD_NATS_SERVER")
    wheel = Path(sysconfig.get_path("scripts"), "nats-server")
    program = shutil.which(configured) if configured else shutil.which(wheel) or shutil.which("nats-server")
    if program is None:
        raise NatsServerMissing(Path(configured) if configured else None)
    return Path(program).absolute()


def leashed(command: list[str], platform: str = sys.platform) -> list[str]:
    """Return the command line that turns into `command`, same pid, such that it cannot outlive this process.

    Off Linux, its standard input must be a pipe of which this process alone has the writing end.
    """
    if platform == "linux":
        return [sys.executable, "-I", "-S", "-c", _LINUX_LEASH, str(os.getpid()), *command]
    return ["/bin/sh", "-c", _PIPE_LEASH, "sh", *command]


def _budget(store: Path) -> int:
    """Return how many bytes the store may grow to: its size and nine tenths of the free space.

    The server's own default leaves out what the store has already, so after a restart it can refuse events
    although the disk has room.
    """
    used = sum(Path(root, name).stat().st_size for root, _, names in os.walk(store) for name in names)
    return used + shutil.disk_usage(store).free * 9 // 10


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _drop_ports_files(data: Path) -> None:
    """Remove what killed servers left, lest one of them had the pid of the next."""
    for path in data.glob("*.ports"):
        path.unlink()


def _bound_port(data: Path, pid: int) -> int | None:
    """Return the port that server `pid` says it listens on, None as long as it has not said so."""
    text = "".join(path.read_text() for path in data.glob(f"*_{pid}.ports"))
    if not text.endswith("}"):  # absent, or still being written
        return None
    return int(json.loads(text)["nats"][0].rpartition(":")[2])


def _written_since(path: Path, size: int) -> bytes:
    """Return what was added to a log since it had a size, at most its last 64 KiB."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(size if size <= end else 0, end - 65536))
        return file.read()


def _last_line(path: Path) -> str:
    """Return the last line of a log, "" if it has none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
