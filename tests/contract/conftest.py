"""Fixtures of the contract tests: logs, rows, objects and blob stores."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from eventstore.jetstream import JetStreamStore
from eventstore.memory import MemoryStore
from eventstore.store import EventStore
from services.artifacts.objects import ObjectPlace, open_objects
from services.nats.server import NatsAddress
from tests.contract.artifacts.blob_places import Place, local_place, s3_place
from tests.contract.store.events import TYPES
from tests.servers.nats import open_log
from tests.servers.seaweedfs import SeaweedFS, running_seaweedfs


@pytest.fixture
async def log(nats_address: NatsAddress) -> AsyncIterator[JetStreamStore]:
    """Open a new log."""
    async with open_log(nats_address, TYPES) as store:
        yield store


@pytest.fixture(params=["memory", "jetstream", "cluster"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[EventStore]:
    """Open a new log of every kind."""
    if request.param == "memory":
        yield MemoryStore("test", TYPES)
        return
    servers, replicas = {"jetstream": ("nats_address", 1), "cluster": ("nats_cluster", 3)}[request.param]
    async with open_log(request.getfixturevalue(servers), TYPES, replicas=replicas) as log:
        yield log


@pytest.fixture(params=["sqlite", "postgres"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the location of the rows."""
    return str(tmp_path / "rows") if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def objects_url(tmp_path: Path) -> str:
    """Return the URL of the objects."""
    return str(tmp_path / "objects")


@pytest.fixture
def objects(objects_url: str) -> ObjectPlace:
    """Return object storage in a directory."""
    return open_objects(objects_url)


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """Run a real S3 server; each test uses its own prefix."""
    with running_seaweedfs() as server:
        yield server


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return a store in a bucket."""
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    return s3_place(f"s3://{seaweedfs.bucket}/{uuid.uuid4().hex}", tmp_path / "uploads")


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a store in a directory, then one in a bucket."""
    if request.param == "local":
        return local_place(tmp_path / "blobs")
    bucket: Place = request.getfixturevalue("bucket")
    return bucket
