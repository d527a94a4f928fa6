"""A log that lost its end: services do not start on it until an operator accepts the loss."""

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


class LossyDirectory:
    """A data directory whose NATS data can be replaced by an older copy.

    Attributes:
        kept: The registry log's last position in the older copy.
        known: The registry log's last acknowledged position.
    """

    def __init__(self, data: Path, options: tuple[str, ...]) -> None:
        self.data = data
        self.options = options
        older_copy = data.with_name("copy")
        with up(data, *options) as services:
            self.model = services.new_model(2)
            for number in range(6):
                services.move(self.model, 1 + number % 2)
            self.kept = services.heads()["registry"]
        shutil.copytree(data / "nats", older_copy)
        with up(data, *options) as services:
            for number in range(9):
                services.move(self.model, 1 + number % 2)
            self.known = services.heads()["registry"]
        self.older_copy = older_copy

    def restore(self) -> None:
        """Replace the log by the older copy."""
        shutil.rmtree(self.data / "nats")
        shutil.copytree(self.older_copy, self.data / "nats")

    def failed_start(self, *options: str) -> str:
        """Return the errors of a start that fails, and check that it leaves rows and snapshots unchanged."""
        before = self.computed_files()
        command = [sys.executable, "-m", "services", "up", "--data", str(self.data), "--grpc", "127.0.0.1:0"]
        done = subprocess.run(
            [*command, *self.options, *options], capture_output=True, text=True, timeout=scaled(90), check=False
        )
        assert done.returncode == 1, done
        assert self.computed_files() == before
        return done.stderr

    def computed_files(self) -> dict[str, bytes]:
        """Return the files that are computed from the logs, except SQLite's own side files."""
        folders = [self.data / "rows", self.data / "artifacts", self.data / "known"]
        files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".db", ".sqlite", ".json"}]
        return {str(path): path.read_bytes() for path in files}

    def start_accepting(self, *logs: str) -> AbstractContextManager[Up]:
        """Start with accepted losses."""
        return up(self.data, *self.options, *(part for log in logs for part in ("--accept-log-loss", log)))


@pytest.fixture(params=BOTH)
def rows(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the location of the rows."""
    with place(request) as location:
        yield location


@pytest.fixture
def directory(tmp_path: Path, rows: str) -> LossyDirectory:
    """Return a data directory whose log can lose its end."""
    return LossyDirectory(tmp_path / "data", ("--database", rows))


def champion(services: Up, model: str) -> v1.Alias:
    """Return the champion alias of a model."""
    return services.registry.ResolveAlias(v1.ResolveAliasRequest(model=model, alias="champion"), timeout=SECONDS).alias


def events(services: Up, kind: str) -> list[v1.RecordedEvent]:
    """Return the events of a type in the registry log, newest first."""
    services.heads()
    request = v1.ListEventsRequest(log="registry", type=f"rollforward.v1.{kind}")
    return list(services.audit.ListEvents(request, timeout=SECONDS).events)


def test_older_log_is_rejected_until_loss_is_accepted(directory: LossyDirectory) -> None:
    directory.restore()
    errors = directory.failed_start()
    assert "LOG_LOST" in errors
    assert f"positions {directory.kept + 1} to {directory.known}" in errors
    assert "LOG_LOST" in directory.failed_start("--accept-log-loss", "tracking")
    with directory.start_accepting("registry") as services:
        assert champion(services, directory.model).revision == directory.kept
        assert services.heads()["registry"] == directory.kept + 1
        (epoch_event,) = events(services, "LogEpochBegan")
        payload = v1.LogEpochBegan()
        assert epoch_event.data.Unpack(payload)
        assert (payload.previous_epoch, payload.kept_until, payload.lost_until) == (1, directory.kept, directory.known)
        assert services.move(directory.model, 1).position == directory.kept + 2
    with up(directory.data, *directory.options) as services:
        assert champion(services, directory.model).version == 1
        assert len(events(services, "LogEpochBegan")) == 1


def test_complete_log_is_accepted_after_rejected_copy(directory: LossyDirectory) -> None:
    complete = directory.data.with_name("whole")
    shutil.copytree(directory.data / "nats", complete)
    directory.restore()
    directory.failed_start()
    shutil.rmtree(directory.data / "nats")
    complete.rename(directory.data / "nats")
    with up(directory.data, *directory.options) as services:
        assert champion(services, directory.model).revision == directory.known


def test_missing_volume_is_rejected_and_not_created(directory: LossyDirectory) -> None:
    unmounted = (directory.data / "nats").rename(directory.data.with_name("unmounted"))
    errors = directory.failed_start()
    assert "LOG_LOST" in errors
    assert "the registry log ends at position 0" in errors
    assert not (directory.data / "nats").exists()
    unmounted.rename(directory.data / "nats")
    with up(directory.data, *directory.options) as services:
        assert champion(services, directory.model).revision == directory.known


def test_lost_log_is_noticed_without_rows(tmp_path: Path) -> None:
    directory = LossyDirectory(tmp_path / "data", ())
    shutil.rmtree(directory.data / "rows")
    directory.restore()
    errors = directory.failed_start()
    assert f"positions {directory.kept + 1} to {directory.known}" in errors
    with directory.start_accepting("registry", "tracking", "webhooks") as services:
        assert champion(services, directory.model).revision == directory.kept
    with up(directory.data) as services:
        assert champion(services, directory.model).revision == directory.kept


def test_unknown_log_is_usage_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "services", "up", "--data", str(tmp_path / "data"), "--accept-log-loss", "audit"]
    assert subprocess.run(command, capture_output=True, timeout=scaled(60), check=False).returncode == 2
    assert not (tmp_path / "data").exists()
