"""A log that lost its end, as an operator meets it: the start is refused until the loss is accepted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from rollforward import v1
from tests.integration.databases import BOTH, place
from tests.integration.up import SECONDS, Up, up
from tests.timeouts import scaled


class Lost:
    """A data directory whose NATS data is older than what was computed from it.

    Attributes:
        kept: The last position of the registry log that it still has.
        known: The last that was acknowledged.
    """

    def __init__(self, data: Path, options: tuple[str, ...]) -> None:
        self.data = data
        self.options = options
        copy = data.with_name("copy")
        with up(data, *options) as services:
            self.model = services.new_model(2)
            for number in range(6):
                services.move(self.model, 1 + number % 2)
            self.kept = services.heads()["registry"]
        shutil.copytree(data / "nats", copy)
        with up(data, *options) as services:
            for number in range(9):
                services.move(self.model, 1 + number % 2)
            self.known = services.heads()["registry"]
        self.copy = copy

    def restore(self) -> None:
        """Put the older copy in the place of the log."""
        shutil.rmtree(self.data / "nats")
        shutil.copytree(self.copy, self.data / "nats")

    def refused(self, *options: str) -> str:
        """Return what a start that is refused says; rows and snapshots are as they were."""
        before = self.kept_files()
        command = [sys.executable, "-m", "services", "up", "--data", str(self.data), "--grpc", "127.0.0.1:0"]
        done = subprocess.run(
            [*command, *self.options, *options], capture_output=True, text=True, timeout=scaled(90), check=False
        )
        assert done.returncode == 1, done
        assert self.kept_files() == before
        return done.stderr

    def kept_files(self) -> dict[str, bytes]:
        """Return the files that are computed from the logs, but for what SQLite keeps beside them."""
        folders = [self.data / "rows", self.data / "artifacts", self.data / "known"]
        files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".db", ".sqlite", ".json"}]
        return {str(path): path.read_bytes() for path in files}

    def accepted(self, *logs: str) -> AbstractContextManager[Up]:
        """Start with accepted losses."""
        return up(self.data, *self.options, *(part for log in logs for part in ("--accept-log-loss", log)))


@pytest.fixture(params=BOTH)
def rows(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where rows live."""
    with place(request) as location:
        yield location


@pytest.fixture
def lost(tmp_path: Path, rows: str) -> Lost:
    """A log that is about to be lost."""
    return Lost(tmp_path / "data", ("--database", rows))


def champion(services: Up, model: str) -> v1.Alias:
    """Return what an alias names."""
    return services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"), timeout=SECONDS).alias


def events(services: Up, kind: str) -> list[v1.RecordedEvent]:
    """Return the events of a type in the registry log, newest first."""
    services.heads()
    request = v1.ListEventsRequest(log="registry", type=f"rollforward.v1.{kind}")
    return list(services.audit.ListEvents(request, timeout=SECONDS).events)


def test_an_older_copy_of_the_log_is_refused_until_its_loss_is_accepted(lost: Lost) -> None:
    lost.restore()
    said = lost.refused()
    assert "LOG_LOST" in said
    assert f"positions {lost.kept + 1} to {lost.known}" in said
    assert "LOG_LOST" in lost.refused("--accept-log-loss", "tracking")
    with lost.accepted("registry") as services:
        assert champion(services, lost.model).revision == lost.kept
        assert services.heads()["registry"] == lost.kept + 1
        (began,) = events(services, "LogEpochBegan")
        payload = v1.LogEpochBegan()
        assert began.data.Unpack(payload)
        assert (payload.previous_epoch, payload.kept_until, payload.lost_until) == (1, lost.kept, lost.known)
        assert services.move(lost.model, 1).position == lost.kept + 2
    with up(lost.data, *lost.options) as services:
        assert champion(services, lost.model).version == 1
        assert len(events(services, "LogEpochBegan")) == 1


def test_the_log_put_back_whole_is_taken_as_it_was(lost: Lost) -> None:
    whole = lost.data.with_name("whole")
    shutil.copytree(lost.data / "nats", whole)
    lost.restore()
    lost.refused()
    shutil.rmtree(lost.data / "nats")
    whole.rename(lost.data / "nats")
    with up(lost.data, *lost.options) as services:
        assert champion(services, lost.model).revision == lost.known


def test_a_volume_that_is_not_mounted_is_refused_and_nothing_is_made_in_its_place(lost: Lost) -> None:
    whole = (lost.data / "nats").rename(lost.data.with_name("unmounted"))
    said = lost.refused()
    assert "LOG_LOST" in said
    assert "the registry log ends at position 0" in said
    assert not (lost.data / "nats").exists()
    whole.rename(lost.data / "nats")
    with up(lost.data, *lost.options) as services:
        assert champion(services, lost.model).revision == lost.known


def test_a_lost_log_is_noticed_without_rows(tmp_path: Path) -> None:
    lost = Lost(tmp_path / "data", ())
    shutil.rmtree(lost.data / "rows")
    lost.restore()
    said = lost.refused()
    assert f"positions {lost.kept + 1} to {lost.known}" in said
    with lost.accepted("registry", "tracking", "webhooks") as services:
        assert champion(services, lost.model).revision == lost.kept
    with up(lost.data) as services:
        assert champion(services, lost.model).revision == lost.kept


def test_a_log_that_is_unknown_is_a_usage_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path / "data"), "--accept-log-loss", "audit"]
    assert subprocess.run(command, capture_output=True, timeout=scaled(60), check=False).returncode == 2
    assert not (tmp_path / "data").exists()
