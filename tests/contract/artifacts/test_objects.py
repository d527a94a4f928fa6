"""The contract of object storage, in a directory and on a real S3 server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.artifacts.objects import PART, ObjectPlace, open_objects
from tests.servers.seaweedfs import SeaweedFS


@pytest.fixture(params=["directory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectPlace:
    if request.param == "directory":
        return open_objects(str(tmp_path / "objects"))
    server: SeaweedFS = request.getfixturevalue("seaweedfs")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return open_objects(f"s3://{server.bucket}/{uuid.uuid4().hex}")


def _pieces(size: int, fails_at: int = -1) -> Iterator[bytes]:
    for at in range(0, size, 1_000_000):
        if at // 1_000_000 == fails_at:
            raise ArithmeticError("no more")
        yield bytes([at % 251]) * min(1_000_000, size - at)


@pytest.mark.parametrize("size", [0, 1, PART, 2 * PART + 1])
def test_object_is_read_as_it_was_put(place: ObjectPlace, size: int) -> None:
    place.put("snapshots/a/b", iter([b"something else"]))
    place.put("snapshots/a/b", _pieces(size))
    assert b"".join(place.get("snapshots/a/b")) == b"".join(_pieces(size))


def test_objects_are_listed_and_deleted(place: ObjectPlace) -> None:
    for name in ("snapshots/a/b/1", "snapshots/a/2", "snapshots/ab/3"):
        place.put(name, iter([b"x"]))
    assert sorted(place.names("snapshots/a")) == ["snapshots/a/2", "snapshots/a/b/1"]
    for _ in range(2):
        place.delete("snapshots/a/2")
    assert place.names("snapshots/a") == ["snapshots/a/b/1"]
    assert place.names("nothing") == []
    with pytest.raises(LookupError):
        next(place.get("snapshots/a/2"))


@pytest.mark.parametrize("fails_at", [0, 1, 18])
def test_object_is_stored_whole_or_not_at_all(place: ObjectPlace, fails_at: int) -> None:
    with pytest.raises(ArithmeticError):
        place.put("snapshots/a", _pieces(20_000_000, fails_at))
    assert place.names("snapshots") == []
    assert place.names("") == []


def test_old_unfinished_files_are_removed(tmp_path: Path) -> None:
    home = tmp_path / "snapshots/notes/0123456789"
    home.mkdir(parents=True)
    for name, age in (("a#1", 0), ("b#1", 90_000), ("c", 90_000)):
        (home / name).touch()
        written = (home / name).stat().st_mtime - age
        os.utime(home / name, (written, written))
    assert open_objects(str(tmp_path)).names("snapshots/notes") == ["snapshots/notes/0123456789/c"]
    assert sorted(path.name for path in home.iterdir()) == ["a#1", "c"]


def test_unsupported_url_is_rejected() -> None:
    with pytest.raises(ValueError):
        open_objects("gs://bucket/prefix")
