"""What the tests of runs share: a tracking service, a place for journals, and a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollforward import v1
from rollforward._transport.connection import Connection
from rollforward.tracking.live_run.run import Run
from tests.unit.client.conftest import Serve
from tests.unit.client.runs.tracking_service import Tracking, open_run


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's journals are."""
    monkeypatch.setenv("ROLLFORWARD_JOURNAL", str(tmp_path / "journal"))
    return tmp_path / "journal"


@pytest.fixture
def tracking() -> Tracking:
    return Tracking()


@pytest.fixture
def link(serve: Serve, tracking: Tracking) -> Connection:
    return serve(tracking, v1.add_TrackingServiceServicer_to_server)


@pytest.fixture
def run(link: Connection) -> Iterator[Run]:
    live = open_run(link)
    yield live
    live.finish()
