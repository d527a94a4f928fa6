"""The embedded NATS server with real processes: readiness, supervision, the lock, credentials and files."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import psutil
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from services.nats.process import MAX_PAYLOAD
from services.nats.server import (
    DataDirectoryInUse,
    DataDirectoryUnusable,
    EmbeddedNats,
    NatsAddress,
    NatsServerFailed,
    NatsServerMissing,
    PortInUse,
)
from tests.servers.nats import until

pytestmark = pytest.mark.busy


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def send_signal(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


async def connect(address: NatsAddress, **options: object) -> Client:
    credentials = {"user": address.user, "password": address.password}
    return await nats.connect(address.url, **(credentials | {"reconnect_time_wait": 0.05} | options))


async def publish(address: NatsAddress, payloads: range) -> None:
    client = await connect(address)
    stream = client.jetstream()
    await stream.add_stream(StreamConfig(name="LOG", subjects=["log"]))
    for number in payloads:
        assert (await stream.publish("log", b"%d" % number)).seq == number
    await client.close()


async def message_count(address: NatsAddress) -> int:
    client = await connect(address)
    try:
        return (await client.jetstream().stream_info("LOG")).state.messages
    finally:
        await client.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(tmp_path / "data") as server:
        yield server


async def test_start_is_ready_and_stop_leaves_no_process(tmp_path: Path) -> None:
    server = EmbeddedNats(tmp_path / "data")
    address = await server.start()
    await publish(address, range(1, 4))
    pid = server.pid
    assert pid is not None
    await server.stop()
    assert has_ended(pid)
    assert server.pid is None
    assert not list((tmp_path / "data").glob("*.ports"))
    await server.stop()


async def test_restart_keeps_messages_and_renews_credentials(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path / "data") as first:
        await publish(first.address, range(1, 11))
    async with EmbeddedNats(tmp_path / "data") as second:
        assert await message_count(second.address) == 10
        assert second.address.password != first.address.password


async def test_killed_server_restarts_on_its_port_with_all_acknowledged_messages(server: EmbeddedNats) -> None:
    await publish(server.address, range(1, 101))
    follower = await connect(server.address, max_reconnect_attempts=-1)
    for restart in (1, 2):
        assert server.pid is not None
        send_signal(server.pid)
        await until(lambda restart=restart: server.restarts == restart)  # type: ignore[misc]
        await until(lambda: follower.is_connected)
        ack = await follower.jetstream().publish("log", b"after")
        assert ack.seq == 100 + restart
    assert await message_count(server.address) == 102
    await follower.close()


async def test_server_stopped_from_outside_restarts(server: EmbeddedNats) -> None:
    assert server.pid is not None
    send_signal(server.pid, signal.SIGTERM)
    await until(lambda: server.restarts == 1)
    await (await connect(server.address)).close()


async def test_stop_during_restart_leaves_no_process(server: EmbeddedNats, tmp_path: Path) -> None:
    first = server.pid
    assert first is not None
    others = {child.pid for child in psutil.Process().children()} - {first}
    send_signal(first)
    await until(lambda: server.pid is None)
    await server.stop()
    assert {child.pid for child in psutil.Process().children() if child.name() == "nats-server"} <= others
    async with EmbeddedNats(tmp_path / "data"):
        pass


async def test_restart_fails_if_port_is_taken(server: EmbeddedNats) -> None:
    port = int(server.address.url.rpartition(":")[2])
    assert server.pid is not None
    with socket.socket() as intruder:
        intruder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        send_signal(server.pid)
        await until(lambda: binds(intruder, port))
        intruder.listen()
        with pytest.raises(PortInUse) as caught:
            await server.failed()
        assert caught.value.port == port
        intruder.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing connected, so no password was sent
            intruder.accept()


def binds(intruder: socket.socket, port: int) -> bool:
    try:
        intruder.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


async def test_server_that_does_not_stop_is_killed(server: EmbeddedNats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.nats.process._STOP_LIMIT", 0.2)
    pid = server.pid
    assert pid is not None
    send_signal(pid, signal.SIGSTOP)
    await server.stop()
    assert has_ended(pid)


async def test_failed_returns_when_stopped(server: EmbeddedNats) -> None:
    waiting = asyncio.create_task(server.failed())
    await server.stop()
    await waiting
    assert not waiting.cancelled()


async def test_second_start_is_rejected_with_pid_of_holder(server: EmbeddedNats, tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryInUse) as caught:
        await EmbeddedNats(tmp_path / "data").start()
    assert (caught.value.pid, caught.value.path) == (os.getpid(), tmp_path / "data")
    with pytest.raises(DataDirectoryInUse):
        await server.start()
    await (await connect(server.address)).close()


async def ping(address: NatsAddress, options: dict[str, object]) -> list[bytes]:
    """Return the verbs of the server's protocol messages, up to PONG or until it disconnects."""
    host, _, port = address.url.removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"CONNECT {json.dumps({'verbose': False, **options})}\r\nPING\r\n".encode())
    verbs = []
    with contextlib.suppress(ConnectionError):
        while b"PONG" not in verbs and (line := await reader.readline()):
            verbs.append(line.split()[0])
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return verbs


@pytest.mark.parametrize(
    "credentials",
    [
        {},
        {"user": "rollforward"},
        {"user": "rollforward", "pass": ""},
        {"user": "rollforward", "pass": "wrong"},
        {"user": "admin", "pass": "wrong"},
        {"auth_token": "wrong"},
    ],
)
async def test_wrong_credentials_are_rejected(server: EmbeddedNats, credentials: dict[str, object]) -> None:
    correct: dict[str, object] = {"user": server.address.user, "pass": server.address.password}
    assert b"PONG" in await ping(server.address, correct)
    verbs = await ping(server.address, credentials)
    assert b"PONG" not in verbs
    assert b"-ERR" in verbs


async def test_password_is_not_shown(server: EmbeddedNats, tmp_path: Path) -> None:
    secret = server.address.password
    command = psutil.Process(server.pid).cmdline()
    log = (tmp_path / "data" / "nats-server.log").read_text()
    for shown in (repr(server.address), str(server.address), server.address.url, log, *command):
        assert secret not in shown


async def test_directories_and_files_are_private_to_owner(server: EmbeddedNats, tmp_path: Path) -> None:
    await publish(server.address, range(1, 3))
    data = tmp_path / "data"
    paths = [data, *data.rglob("*")]
    assert {data / "store", data / "lock", data / "nats-server.conf", data / "nats-server.log"} <= set(paths)
    assert not [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]


async def test_listens_on_loopback_only_without_monitoring(server: EmbeddedNats) -> None:
    listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [c.laddr.ip for c in listening] == ["127.0.0.1"]


async def test_payload_limit_is_set(server: EmbeddedNats) -> None:
    client = await connect(server.address)
    assert client.max_payload == MAX_PAYLOAD
    await client.close()


@pytest.mark.parametrize(("sync_always", "setting"), [(True, True), (False, False)])
async def test_sync_setting_is_written(tmp_path: Path, sync_always: bool, setting: bool) -> None:
    async with EmbeddedNats(tmp_path / "data", sync_always=sync_always):
        config = (tmp_path / "data" / "nats-server.conf").read_text()
        assert ("sync_interval: always" in config) == setting


@pytest.mark.parametrize("name", ["with spaces", 'quote " and \\ and $HOME {x} #', "ü-目", "/".join(["d" * 100] * 6)])
async def test_any_path_works(tmp_path: Path, name: str) -> None:
    data = tmp_path / name
    async with EmbeddedNats(data) as server:
        await publish(server.address, range(1, 3))
    assert (data / "store" / "jetstream").is_dir()


async def test_relative_path_is_resolved_at_construction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = EmbeddedNats(Path("data"))
    monkeypatch.chdir("/")
    async with server:
        await publish(server.address, range(1, 3))
    assert (tmp_path / "data" / "store" / "jetstream").is_dir()


async def test_unwritable_directory_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryUnusable) as caught:
        await EmbeddedNats(tmp_path / "file" / "data").start()
    assert caught.value.path == tmp_path / "file" / "data"


async def test_world_writable_directory_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    with pytest.raises(DataDirectoryUnusable):
        await EmbeddedNats(tmp_path / "data").start()


async def test_given_port_is_used_and_rejected_if_taken(server: EmbeddedNats, tmp_path: Path) -> None:
    port = int(server.address.url.rpartition(":")[2])
    other = EmbeddedNats(tmp_path / "other", port=port)
    with pytest.raises(PortInUse) as caught:
        await other.start()
    assert caught.value.port == port
    assert other.pid is None
    await server.stop()
    async with other:
        assert other.address.url == f"nats://127.0.0.1:{port}"


async def test_missing_program_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLFORWARD_NATS_SERVER", str(tmp_path / "absent"))
    with pytest.raises(NatsServerMissing) as caught:
        await EmbeddedNats(tmp_path / "data").start()
    assert caught.value.path == tmp_path / "absent"


async def test_unusable_store_fails_with_message_of_server(tmp_path: Path) -> None:
    (tmp_path / "data" / "store").mkdir(parents=True)
    (tmp_path / "data" / "store" / "jetstream").write_text("in the way")
    with pytest.raises(NatsServerFailed) as caught:
        await EmbeddedNats(tmp_path / "data").start()
    assert caught.value.exit_code == 1
    assert caught.value.last_line
    (tmp_path / "data" / "store" / "jetstream").unlink()
    async with EmbeddedNats(tmp_path / "data"):  # the failed start has released the directory
        pass


@pytest.mark.parametrize("given", [None, "1GiB"])
async def test_memory_is_limited(given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if given:
        monkeypatch.setenv("GOMEMLIMIT", given)
    else:
        monkeypatch.delenv("GOMEMLIMIT", raising=False)
    async with EmbeddedNats(tmp_path / "nats") as server:
        assert psutil.Process(server.pid).environ()["GOMEMLIMIT"] == (given or "256MiB")
