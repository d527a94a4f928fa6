"""Fixtures for tests of runs: a tracking service, a directory for journals, and a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollforward import Client, v1
from rollforward.tracking.live_run.run import Run
from tests.unit.client.conftest import Serve
from tests.unit.client.runs.tracking_service import Tracking, open_run


@pytest.fixture(autouse=True)
def journal_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of this test's journals."""
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path / "journal"))
    return tmp_path / "journal"


@pytest.fixture
def tracking() -> Tracking:
    return Tracking()


@pytest.fixture
def client(serve: Serve, tracking: Tracking) -> Client:
    return serve(tracking, v1.add_TrackingServiceServicer_to_server)


@pytest.fixture
def run(client: Client) -> Iterator[Run]:
    live = open_run(client)
    yield live
    live.finish()
