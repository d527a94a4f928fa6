"""The pod's directory: only verified bytes leave it, and the last known good state survives restarts."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from rollforward.v1 import Assignment, Target
from services.pod.cache import ArtifactCache, DigestMismatch, LastKnownGood


def digest_of(path: Path) -> str:
    """Return the digest of an artifact of one file."""
    return f"sha256:{hashlib.sha256((path / 'file').read_bytes()).hexdigest()}"


GOOD = f"sha256:{hashlib.sha256(b'good').hexdigest()}"


def names_in(path: Path) -> list[str]:
    """Return the names of a directory's entries."""
    return [entry.name for entry in path.iterdir()]


class Store:
    """A downloader that writes the same bytes for every digest and counts its calls."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.downloads = 0

    async def __call__(self, _: str, path: Path) -> None:
        """Write the artifact."""
        self.downloads += 1
        await asyncio.to_thread(self._write, path)

    def _write(self, path: Path) -> None:
        path.mkdir()
        (path / "file").write_bytes(self.content)


async def test_artifact_is_downloaded_once(tmp_path: Path) -> None:
    store = Store(b"good")
    cache = ArtifactCache(tmp_path, store, digest_of)
    paths = await asyncio.gather(*(cache.get(GOOD) for _ in range(5)))
    assert {(path / "file").read_bytes() for path in paths} == {b"good"}
    assert store.downloads == 1
    assert names_in(tmp_path / "artifacts") == [GOOD.removeprefix("sha256:")]


async def test_corrupted_artifact_is_downloaded_again(tmp_path: Path) -> None:
    store = Store(b"good")
    cache = ArtifactCache(tmp_path, store, digest_of)
    (await cache.get(GOOD) / "file").write_bytes(b"evil")
    assert (await cache.get(GOOD) / "file").read_bytes() == b"good"
    assert store.downloads == 2


async def test_artifact_with_wrong_digest_is_not_cached(tmp_path: Path) -> None:
    cache = ArtifactCache(tmp_path, Store(b"evil"), digest_of)
    with pytest.raises(DigestMismatch):
        await cache.get(GOOD)
    assert names_in(tmp_path / "artifacts") == []


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc", f"{GOOD}0", GOOD.upper()])
async def test_invalid_digest_is_rejected(digest: str, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        await ArtifactCache(tmp_path, Store(b"good"), digest_of).get(digest)


def assignment(model: str, version: int, revision: int) -> Assignment:
    """Return an assignment of a model's champion."""
    return Assignment(target=Target(model=model, alias="champion"), version=version, digest=GOOD, revision=revision)


async def test_state_keeps_entries_of_other_pods(tmp_path: Path) -> None:
    await LastKnownGood(tmp_path, "here:1").write([assignment("a", 1, 2**63)])
    await LastKnownGood(tmp_path, "here:1").write([assignment("b", 1, 5)])
    await LastKnownGood(tmp_path, "here:1").write([assignment("b", 2, 6)])
    assert LastKnownGood(tmp_path, "here:1").read() == [assignment("a", 1, 2**63), assignment("b", 2, 6)]
    assert names_in(tmp_path) == ["state.json"]


async def test_state_of_other_server_is_ignored(tmp_path: Path) -> None:
    await LastKnownGood(tmp_path, "here:1").write([assignment("a", 1, 1)])
    assert LastKnownGood(tmp_path, "there:1").read() == []
    await LastKnownGood(tmp_path, "there:1").write([assignment("b", 1, 1)])
    assert LastKnownGood(tmp_path, "there:1").read() == [assignment("b", 1, 1)]


INVALID_STATES = ["", "{", "[]", "3", '{"server": "here:1"}', '{"server": "here:1", "assignments": [3]}']


@pytest.mark.parametrize("text", INVALID_STATES)
async def test_unreadable_state_is_replaced(text: str, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(text)
    state = LastKnownGood(tmp_path, "here:1")
    assert state.read() == []
    await state.write([assignment("a", 1, 1)])
    assert state.read() == [assignment("a", 1, 1)]
