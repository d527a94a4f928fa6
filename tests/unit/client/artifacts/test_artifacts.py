"""Upload and download of trees of files, with the real artifact service."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc
import pytest

from rollforward import Client, v1
from rollforward._artifacts.manifests import build_tree, manifest_digest
from rollforward._artifacts.trees import download_tree
from rollforward.errors import InternalError, InvalidRequest, NotFound, RollforwardError, Unavailable
from services.artifacts.directory_store import LocalBlobs
from tests.unit.client.conftest import Serve, Service

BIG = bytes(range(256)) * 12_289  # a little more than three chunks


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "model"
    (source / "weights").mkdir(parents=True)
    (source / "weights" / "big.bin").write_bytes(BIG)
    (source / "weights" / "twin.bin").write_bytes(BIG)
    (source / "empty").write_bytes(b"")
    for number in range(20):
        (source / f"{number}.txt").write_text(str(number))
    return source


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rollforward"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def blob_file(blobs: LocalBlobs, tmp_path: Path, data: bytes) -> Path:
    name = hashlib.sha256(data).hexdigest()
    return next(path for path in (tmp_path / "blobs").rglob(name) if path.is_file())


def test_uploaded_tree_can_be_downloaded(artifacts: Client, model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    digest, name = artifacts.artifacts.upload(model, progress=lambda done, total: seen.append((done, total)))
    assert name == "model"
    assert digest == manifest_digest(build_tree(model).manifest)
    unique = len(BIG) + sum(len(str(number)) for number in range(20))
    assert seen[-1] == (unique, unique)
    assert seen == sorted(seen)
    target = tmp_path / "new" / "place"
    assert artifacts.artifacts.download(digest, target) == target
    assert contents(target) == contents(model)
    assert [path.name for path in target.parent.iterdir()] == ["place"]


def test_a_second_upload_sends_no_blob(artifacts: Client, model: Path) -> None:
    artifacts.artifacts.upload(model)
    seen: list[tuple[int, int]] = []
    artifacts.artifacts.upload(model, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == 1
    assert seen[0][0] == seen[0][1]


def test_destination_that_is_not_empty_is_rejected(artifacts: Client, model: Path, tmp_path: Path) -> None:
    digest, _ = artifacts.artifacts.upload(model)
    full, symlink = tmp_path / "full", tmp_path / "link"
    full.mkdir()
    (full / "mine").write_text("mine")
    symlink.symlink_to(tmp_path / "nowhere")
    for target in (full, full / "mine", symlink):
        with pytest.raises(InvalidRequest) as refused:
            artifacts.artifacts.download(digest, target)
        assert refused.value.reason == "DESTINATION_NOT_EMPTY"
    assert contents(full) == {"mine": b"mine"}


def test_damaged_download_leaves_no_files(
    artifacts: Client, blobs: LocalBlobs, model: Path, tmp_path: Path, cache: Path
) -> None:
    digest, _ = artifacts.artifacts.upload(model)
    stored = blob_file(blobs, tmp_path, BIG)
    for damaged in (BIG[:-1] + b"!", BIG[:-1], BIG + b"!"):
        stored.write_bytes(damaged)
        with pytest.raises(InternalError) as refused:
            artifacts.artifacts.download(digest, tmp_path / "target")
        assert refused.value.reason == "DIGEST_MISMATCH"
        with pytest.raises(InternalError):
            artifacts.artifacts.download(digest)
    assert not (tmp_path / "target").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert list(cache.iterdir()) == []


def test_missing_artifact_raises_not_found(artifacts: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as refused:
        artifacts.artifacts.download(f"sha256:{'0' * 64}", tmp_path / "target")
    assert refused.value.reason == "ARTIFACT_NOT_FOUND"


def test_cached_artifact_needs_no_service(artifacts: Client, model: Path, cache: Path) -> None:
    digest, _ = artifacts.artifacts.upload(model)
    first = artifacts.artifacts.download(digest)
    assert first.is_relative_to(cache)
    assert contents(first) == contents(model)
    with Client("127.0.0.1:1", timeout=0.2) as nobody:
        assert nobody.artifacts.download(digest) == first
        (first / "0.txt").write_text("changed")
        with pytest.raises(Unavailable):
            nobody.artifacts.download(digest)
    assert contents(artifacts.artifacts.download(digest)) == contents(model)
    assert [path.name for path in cache.iterdir()] == [digest.removeprefix("sha256:")]


@pytest.mark.parametrize("path", ["../escaped", "/escaped", "a/../../escaped"])
def test_escaping_manifest_writes_nothing(path: str, artifacts: Client, tmp_path: Path) -> None:
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    manifest = v1.Manifest(files=[v1.ManifestFile(path=path, digest=digest)])
    with pytest.raises(InvalidRequest) as refused:
        download_tree(manifest, tmp_path / "a" / "target", artifacts.connection, None)
    assert refused.value.reason == "INVALID_PATH"
    with pytest.raises(RollforwardError) as from_service:
        artifacts.connection.call(
            artifacts.connection.artifacts.CreateManifest, v1.CreateManifestRequest(manifest=manifest)
        )
    assert from_service.value.reason == "INVALID_PATH"
    assert list(tmp_path.rglob("*escaped*")) == []
    assert not (tmp_path / "a").exists()


def test_manifest_with_a_wrong_digest_is_rejected(serve: Serve) -> None:
    class Lying(Service):
        """An artifact service that returns the same manifest for every digest."""

        def GetManifest(self, request: v1.GetManifestRequest, _context: grpc.ServicerContext) -> v1.GetManifestResponse:  # noqa: N802
            return v1.GetManifestResponse(
                manifest=v1.Manifest(files=[v1.ManifestFile(path="x", digest=request.digest)])
            )

    client = serve(Lying(), v1.add_ArtifactServiceServicer_to_server)
    with pytest.raises(InternalError) as refused:
        client.artifacts.get_manifest(f"sha256:{'0' * 64}")
    assert refused.value.reason == "DIGEST_MISMATCH"


def test_directory_is_rejected_where_a_file_is_expected(artifacts: Client, model: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        artifacts.artifacts.upload(model, only_file=True)
    assert refused.value.reason == "NOT_A_FILE"
