"""What a place for objects promises, in a directory and in a real S3 server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.artifacts.objects import PART, ObjectPlace, open_objects
from tests.servers.seaweedfs import SeaweedFS


@pytest.fixture(params=["directory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectPlace:
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
def test_an_object_comes_back_as_it_was_put(anywhere: ObjectPlace, size: int) -> None:
    anywhere.put("snapshots/a/b", iter([b"something else"]))
    anywhere.put("snapshots/a/b", _pieces(size))
    assert b"".join(anywhere.get("snapshots/a/b")) == b"".join(_pieces(size))


def test_objects_are_listed_and_dropped(anywhere: ObjectPlace) -> None:
    for name in ("snapshots/a/b/1", "snapshots/a/2", "snapshots/ab/3"):
        anywhere.put(name, iter([b"x"]))
    assert sorted(anywhere.names("snapshots/a")) == ["snapshots/a/2", "snapshots/a/b/1"]
    for _ in range(2):
        anywhere.delete("snapshots/a/2")
    assert anywhere.names("snapshots/a") == ["snapshots/a/b/1"]
    assert anywhere.names("nothing") == []
    with pytest.raises(LookupError):
        next(anywhere.get("snapshots/a/2"))


@pytest.mark.parametrize("fails_at", [0, 1, 18])
def test_an_object_is_there_whole_or_not_at_all(anywhere: ObjectPlace, fails_at: int) -> None:
    with pytest.raises(ArithmeticError):
        anywhere.put("snapshots/a", _pieces(20_000_000, fails_at))
    assert anywhere.names("snapshots") == []
    assert anywhere.names("") == []


def test_unfinished_files_are_removed_once_they_are_old(tmp_path: Path) -> None:
    home = tmp_path / "snapshots/notes/0123456789"
    home.mkdir(parents=True)
    for name, age in (("a#1", 0), ("b#1", 90_000), ("c", 90_000)):
        (home / name).touch()
        written = (home / name).stat().st_mtime - age
        os.utime(home / name, (written, written))
    assert open_objects(str(tmp_path)).names("snapshots/notes") == ["snapshots/notes/0123456789/c"]
    assert sorted(path.name for path in home.iterdir()) == ["a#1", "c"]


def test_objects_live_in_a_directory_or_in_a_bucket() -> None:
    with pytest.raises(ValueError):
        open_objects("gs://bucket/prefix")
