"""What the contract's tests share: a store of blobs in a directory, and one in a real S3 server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.blob_places import Place, local_place, s3_place
from tests.servers.seaweedfs import SeaweedFS, running_seaweedfs


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """A real S3 server; each test takes a prefix of its own."""
    with running_seaweedfs() as server:
        yield server


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A store in a bucket."""
    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    return s3_place(f"s3://{seaweedfs.bucket}/{uuid.uuid4().hex}", tmp_path / "uploads")


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A store, once in a directory and once in a bucket."""
    if request.param == "local":
        return local_place(tmp_path / "blobs")
    found: Place = request.getfixturevalue("bucket")
    return found
