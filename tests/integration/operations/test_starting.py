"""A start: what it checks first, what it prints, who may read its files, and who else may start."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.systems import far_history
from tests.e2e.program import Program, until
from tests.integration.up import SECONDS, up
from tests.servers.nats import running_nats

UP = [sys.executable, "-m", "services", "up"]


def start(*options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a start that ends by itself."""
    return subprocess.run(
        [*UP, *options], capture_output=True, text=True, timeout=SECONDS, check=False, env=environment
    )


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        (["--grpc", "localhost"], {}),
        (["--grpc", "localhost:99999"], {}),
        (["--grpc", "127.0.0.1:0", "--http", "nowhere"], {}),
        (["--grpc", "127.0.0.1:50999", "--http", "127.0.0.1:50999"], {}),
        (["--grpc", "127.0.0.1:0", "--database", "mysql://localhost/x"], {}),
        (["--grpc", "127.0.0.1:0"], {"ROLLFORWARD_REPLICAS": "0"}),
        (["--grpc", "127.0.0.1:0"], {"ROLLFORWARD_NATS_PORT": "many"}),
        (["--grpc", "127.0.0.1:0"], {"ROLLFORWARD_SNAPSHOT_INTERVAL": "-1"}),
        (["--grpc", "127.0.0.1:0"], {"ROLLFORWARD_LOG": "loud"}),
        (
            [part for name in ("tracking", "registry", "serving", "audit", "webhooks") for part in ("--without", name)],
            {},
        ),
    ],
)
def test_wrong_options_are_rejected_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = start("--data", str(tmp_path / "data"), *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data" / "nats").exists()


@pytest.mark.parametrize("option", ["--grpc", "--http"])
def test_used_port_is_rejected_before_anything_is_created(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = {"--data": str(tmp_path / "data"), "--grpc": "127.0.0.1:0"} | {option: address}
        done = start(*(part for pair in options.items() for part in pair))
    assert done.returncode == 1
    assert address in done.stderr
    assert not (tmp_path / "data").exists()


def test_start_prints_progress_addresses_and_next_step(tmp_path: Path) -> None:
    with up(tmp_path / "data") as services:
        services.program.line("^starting NATS$")
        services.program.line(r"^catching up registry \d+/\d+$")
        services.program.line(rf"^rollforward tracking.* listens on {services.address} and ")
        services.program.line(f"^version [0-9.]+.*, data directory {re.escape(str(tmp_path / 'data'))}$")
        services.program.line(f"^next: .*{services.address}")
        assert services.program.terminate() == 0


def test_start_stopped_while_filling_rows_ends_cleanly(tmp_path: Path) -> None:
    far_history.write(tmp_path / "data", models=2_000, events=12_000)
    command = [*UP, "--data", str(tmp_path / "data"), "--grpc", "127.0.0.1:0"]
    for seconds in (0.05, 0.1, 0.15):
        program = Program(command, tmp_path / "log")
        program.line("^catching up registry 0/12000$")
        time.sleep(seconds)
        assert program.terminate() == 0
        assert not any("listens on" in line for _, line in program.lines())
    assert "Traceback" not in (tmp_path / "log").read_text()


def accessible_to_others(path: Path) -> list[Path]:
    """Return a path and those below it that other users than the owner may access."""
    return [entry for entry in (path, *path.rglob("*")) if permissions(entry) & 0o077]


def permissions(path: Path) -> int:
    """Return the permission bits of a path, or 0 if it does not exist or is a link."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return 0
    return 0 if stat.S_ISLNK(mode) else stat.S_IMODE(mode)


def test_data_directory_is_private_to_owner(tmp_path: Path) -> None:
    with up(tmp_path / "data") as services:
        services.move(services.new_model(), 1)
        services.new_run()
        assert not accessible_to_others(tmp_path / "data")
        assert services.program.terminate() == 0
    others = [tmp_path / "data", tmp_path / "data" / "rows", *(tmp_path / "data" / "rows").iterdir()]
    for path in others:
        path.chmod(0o755)
    assert sorted(accessible_to_others(tmp_path / "data")) == sorted(others)
    with up(tmp_path / "data") as services:
        assert not accessible_to_others(tmp_path / "data")
        assert "data directory made private" in services.program.errors
        assert services.program.terminate() == 0


def test_world_writable_directory_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    done = start("--data", str(tmp_path / "data"), "--grpc", "127.0.0.1:0")
    assert done.returncode == 1
    assert "every local user can write" in done.stderr.splitlines()[-1]


def test_second_process_on_data_directory_is_rejected_with_external_nats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_nats() as nats:
        monkeypatch.setenv("ROLLFORWARD_NATS_USER", nats.user)
        monkeypatch.setenv("ROLLFORWARD_NATS_PASSWORD", nats.password)
        with up(tmp_path / "data", "--nats", nats.url) as services:
            options = ["--data", str(tmp_path / "data"), "--grpc", "127.0.0.1:0", "--nats", nats.url]
            done = start(*options)
            assert done.returncode == 1
            assert f"in use by process {services.pid}" in done.stderr
            services.program.kill()
            until(lambda: not services.program.running, "ended")
        with up(tmp_path / "data", "--nats", nats.url) as services:
            assert services.new_model()
            assert services.program.terminate() == 0
