"""Tests of the means of faults: full disks, cut and slow networks, set clocks, locked databases."""

from __future__ import annotations

import errno
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.histories.systems.clocks import ProcessClock
from tests.histories.systems.databases import Sqlite
from tests.histories.systems.disks import small_disk
from tests.histories.systems.losing import cut_tail
from tests.histories.systems.network import HOST, Network, Proxy
from tests.timeouts import LIMIT

DAY = 86_400


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Yield a proxy to an echo server."""
    with Network() as network, socket.create_server((HOST, 0)) as server:
        threading.Thread(target=_echo, args=(server,), daemon=True).start()
        yield network.proxy(server.getsockname()[1])


def _echo(server: socket.socket) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client:
            while data := client.recv(100):
                client.sendall(data)


def _connected(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), LIMIT)


def test_proxy_forwards_bytes_both_ways(proxy: Proxy) -> None:
    with _connected(proxy) as client:
        client.sendall(b"there")
        assert client.recv(100) == b"there"


def test_cut_resets_old_and_new_connections(proxy: Proxy) -> None:
    with _connected(proxy) as old:
        old.sendall(b"a")
        assert old.recv(100) == b"a"
        with proxy.cut():
            assert _ends(old)
            with _connected(proxy) as new:
                assert _ends(new)
    with _connected(proxy) as client:
        client.sendall(b"b")
        assert client.recv(100) == b"b"


def _ends(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def test_stalled_connection_delays_bytes_and_loses_none(proxy: Proxy) -> None:
    with _connected(proxy) as client:
        client.settimeout(0.2)
        with proxy.stalled():
            client.sendall(b"later")
            with pytest.raises(TimeoutError):
                client.recv(100)
        client.settimeout(LIMIT)
        assert client.recv(100) == b"later"


def test_delay_applies_in_both_directions(proxy: Proxy) -> None:
    with _connected(proxy) as client, proxy.delayed(0.1):
        begun = time.monotonic()
        client.sendall(b"slow")
        assert client.recv(100) == b"slow"
        assert time.monotonic() - begun >= 0.2


def test_full_disk_rejects_writes_until_space_is_freed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("this user may not mount a tmpfs")
        with disk.full(), pytest.raises(OSError) as caught:
            (tmp_path / "disk" / "file").write_bytes(bytes(100_000))
        assert caught.value.errno == errno.ENOSPC
        (tmp_path / "disk" / "file").write_bytes(bytes(100_000))


def test_clock_is_set_in_running_process(tmp_path: Path) -> None:
    clock = ProcessClock(tmp_path / "clock")
    program = """
import time
from tests.histories.systems.clocks import follow_clock
follow_clock()
for _ in range(2):
    print(time.time() - time.time_ns() / 1e9, time.time(), flush=True)
    input()
"""
    command, root = [sys.executable, "-c", program], Path(__file__).parents[3]
    environment = {**clock.environment, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        first = process.stdout.readline().split()
        clock.set(DAY)
        process.stdin.write("\n\n")
        process.stdin.flush()
        second = process.stdout.readline().split()
    assert abs(float(first[0])) < 1
    assert DAY <= float(second[1]) - float(first[1]) < 2 * DAY


def test_locked_database_rejects_writes(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with closing(sqlite3.connect(path, timeout=0.05)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
        with Sqlite(tmp_path).away(crash=False), pytest.raises(sqlite3.OperationalError, match="locked"):
            connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("INSERT INTO t VALUES (1)")


def test_tail_is_cut_off_last_file(tmp_path: Path) -> None:
    messages = tmp_path / "streams" / "rf-registry" / "msgs"
    messages.mkdir(parents=True)
    for number in (2, 10):
        (messages / f"{number}.blk").write_bytes(bytes(5_000))
    (messages / "index.db").touch()
    cut_tail(tmp_path)
    assert (messages / "2.blk").stat().st_size == 5_000
    assert (messages / "10.blk").stat().st_size < 5_000
    assert not (messages / "index.db").exists()
