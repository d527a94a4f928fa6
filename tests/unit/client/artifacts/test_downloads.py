"""Interrupted downloads: which parts are kept, when they are resumed, and that every byte is verified."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from rollforward import Client, v1
from rollforward._artifacts.manifests import CHUNK_BYTES, build_tree, manifest_digest
from rollforward._artifacts.partial_download import staging_directory
from rollforward._artifacts.transfer import RESUMABLE_BYTES
from rollforward.errors import InvalidRequest, Unavailable
from tests.unit.client.conftest import Serve, Service

LARGE = RESUMABLE_BYTES * 2 + 3
SENT = RESUMABLE_BYTES + 2 * CHUNK_BYTES


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a tree with two equal large files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("weights", "weights.copy"):
        (folder / name).write_bytes(hashlib.sha256(b"").digest() * (LARGE // 32) + b"end")
    (folder / "small").write_bytes(b"small")
    return folder


def break_off(digest: str, target: Path, size: int) -> None:
    """Interrupt a download after so many bytes."""
    with staging_directory(digest, target) as scratch:
        (scratch / "file").write_bytes(bytes(size))
        raise KeyboardInterrupt


def part_of(digest: str, folder: Path) -> Path:
    return folder / f".{digest.removeprefix('sha256:')}.part"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def left_over(digest: str, folder: Path, data: bytes) -> Path:
    """Return the large file in the staging directory of a killed process."""
    tree = part_of(digest, folder) / "tree"
    tree.parent.mkdir(mode=0o700)
    tree.mkdir()
    (tree / "weights").write_bytes(data)
    return tree


class BreakingOff(Service):
    """An artifact service with one artifact, which never sends all of its large file."""

    def __init__(self, folder: Path) -> None:
        self._tree = build_tree(folder)

    def PresignDownloads(self, _request: object, _context: grpc.ServicerContext) -> v1.PresignDownloadsResponse:  # noqa: N802
        return v1.PresignDownloadsResponse()

    def GetManifest(self, _request: object, _context: grpc.ServicerContext) -> v1.GetManifestResponse:  # noqa: N802
        return v1.GetManifestResponse(manifest=self._tree.manifest)

    def DownloadBlob(  # noqa: N802
        self, request: v1.DownloadBlobRequest, context: grpc.ServicerContext
    ) -> Iterator[v1.DownloadBlobResponse]:
        data = self._tree.sources[request.digest].read_bytes()
        for start in range(request.offset, min(len(data), SENT), CHUNK_BYTES):
            yield v1.DownloadBlobResponse(chunk=data[start : start + CHUNK_BYTES])
        if len(data) > SENT:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


@pytest.mark.parametrize("cached", [False, True])
def test_download_resumes_an_interrupted_one(
    artifacts: Client, serve: Serve, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digest, _ = artifacts.artifacts.upload(source)
    target = None if cached else tmp_path / "new" / "place"
    folder = tmp_path / "cache" / "rollforward" if cached else tmp_path / "new"
    dying = serve(BreakingOff(source), v1.add_ArtifactServiceServicer_to_server, timeout=0.3)
    with pytest.raises(Unavailable):
        dying.artifacts.download(digest, target)
    assert list(folder.iterdir()) == [part_of(digest, folder)]
    seen: list[int] = []
    found = artifacts.artifacts.download(digest, target, progress=lambda done, _: seen.append(done))
    assert SENT + len(b"small") in seen
    assert not [done for done in seen if len(b"small") < done < SENT]
    assert contents(found) == contents(source)
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "partial", [b"", b"not what was sent", bytes(LARGE), bytes(LARGE * 2), hashlib.sha256(b"").digest()], ids=len
)
def test_partial_download_of_a_killed_process_is_verified(
    artifacts: Client, source: Path, tmp_path: Path, partial: bytes
) -> None:
    digest, _ = artifacts.artifacts.upload(source)
    left_over(digest, tmp_path, partial)
    seen: list[tuple[int, int]] = []
    target = artifacts.artifacts.download(
        digest, tmp_path / "back", progress=lambda done, total: seen.append((done, total))
    )
    assert contents(target) == contents(source)
    assert seen[-1] == (LARGE + 5, LARGE + 5)
    assert not part_of(digest, tmp_path).exists()


def test_concurrent_downloads_do_not_interfere(artifacts: Client, source: Path, tmp_path: Path) -> None:
    digest, _ = artifacts.artifacts.upload(source)
    left_over(digest, tmp_path, bytes(LARGE))
    ready = threading.Barrier(4)

    def work(number: int) -> Path:
        ready.wait()
        return artifacts.artifacts.download(digest, tmp_path / f"back-{number}")

    with ThreadPoolExecutor(4) as pool:
        for target in pool.map(work, range(4)):
            assert contents(target) == contents(source)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_symbolic_link_in_place_of_a_partial_download_is_not_followed(
    artifacts: Client, source: Path, tmp_path: Path
) -> None:
    digest, _ = artifacts.artifacts.upload(source)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    part_of(digest, tmp_path).symlink_to(elsewhere)
    assert contents(artifacts.artifacts.download(digest, tmp_path / "back")) == contents(source)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("kind", ["mount point", "working directory"])
def test_directory_that_cannot_be_replaced_is_filled(
    artifacts: Client, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    digest, _ = artifacts.artifacts.upload(source)
    target = tmp_path / "here"
    target.mkdir()
    if kind == "mount point":
        monkeypatch.setattr(os.path, "ismount", target.__eq__)
    else:
        monkeypatch.chdir(target)
    left_over(digest, target, b"what a program that was killed left")
    before = target.stat().st_ino
    found = artifacts.artifacts.download(digest, target if kind == "mount point" else ".")
    assert contents(found) == contents(source)
    assert target.stat().st_ino == before
    with pytest.raises(InvalidRequest) as refused:
        artifacts.artifacts.download(digest, target)
    assert refused.value.reason == "DESTINATION_NOT_EMPTY"


def test_two_names_for_one_file_are_rejected(artifacts: Client, source: Path, tmp_path: Path) -> None:
    digest, _ = artifacts.artifacts.upload(source)
    tree = left_over(digest, tmp_path, b"")
    os.link(tree / "weights", tree / "small")  # like a file system that cannot tell "weights" and "small" apart
    with pytest.raises(FileExistsError):
        artifacts.artifacts.download(digest, tmp_path / "back")
    assert contents(artifacts.artifacts.download(digest, tmp_path / "back")) == contents(source)


def test_abandoned_partial_download_is_removed_after_a_week(tmp_path: Path) -> None:
    digests = [manifest_digest(v1.Manifest(files=[v1.ManifestFile(path=name)])) for name in ("a", "b", "c", "d")]
    old, fresh, locked, new = digests
    for digest in (old, fresh):
        with pytest.raises(KeyboardInterrupt):
            break_off(digest, tmp_path / "target", RESUMABLE_BYTES)
    with staging_directory(locked, tmp_path / "target") as scratch:
        eight_days_ago = time.time() - 8 * 24 * 60 * 60
        for digest in (old, locked):
            os.utime(part_of(digest, tmp_path) / "lock", (eight_days_ago, eight_days_ago))
        with staging_directory(new, tmp_path / "target"):
            assert {path.name for path in tmp_path.iterdir()} == {
                part_of(digest, tmp_path).name for digest in (fresh, locked, new)
            }
        assert scratch.exists()


def test_small_partial_download_is_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        break_off(f"sha256:{'0' * 64}", tmp_path / "target", RESUMABLE_BYTES - 1)
    assert list(tmp_path.iterdir()) == []
