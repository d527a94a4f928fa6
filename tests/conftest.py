"""The real servers that tests share, each started at its first use."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from services.nats.server import NatsAddress
from tests.servers.nats import running_cluster, running_nats
from tests.servers.postgres import PostgresServer, running_postgres
from tests.timeouts import scaled


def pytest_configure(config: pytest.Config) -> None:
    """Make the tests independent of how they are run."""
    # Runs log through journals, which must not be the user's own.
    os.environ["ROLLFORWARD_JOURNAL"] = journal = tempfile.mkdtemp(prefix="rollforward-journal-")
    config.add_cleanup(lambda: shutil.rmtree(journal, ignore_errors=True))
    # A shell that runs them in the background has Ctrl-C ignored, here and in every child.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # An error report with the values of all variables takes longer than most tests.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], console])
    # The duration of an example depends on the machine more than on the code.
    settings.register_profile("rollforward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("rollforward")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale the time limit of each test."""
    limit = float(config.getini("timeout"))
    for item in items:
        marked = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(scaled(marked.args[0] if marked else limit)), append=False)


@pytest.fixture(scope="session")
def nats_address() -> Iterator[NatsAddress]:
    """Yield the address of a real nats-server; each test uses a log of its own."""
    with running_nats() as address:
        yield address


@pytest.fixture(scope="module")
def nats_cluster() -> Iterator[NatsAddress]:
    """Yield the address of three real nats-servers; each test uses a log of its own."""
    with running_cluster() as address:
        yield address


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Yield a real PostgreSQL server; each test uses a database of its own."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """Yield the URL of a new database."""
    with postgres.database() as url:
        yield url
