"""Manifests: which trees may be artifacts, and the bytes that are hashed."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Kind, Rejected
from rollforward import v1
from services.artifacts import manifests
from services.artifacts.open_store import open_directory
from services.artifacts.paths import check_paths
from services.artifacts.store import BlobStore

ANY = f"sha256:{'a' * 64}"
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12).map(
    lambda name: unicodedata.normalize("NFC", name)
)
PATHS = st.lists(NAMES.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4).map("/".join)


def manifest_of(*paths: str) -> v1.Manifest:
    return v1.Manifest(files=[v1.ManifestFile(path=path, size_bytes=3, digest=ANY) for path in paths])


def refusal(manifest: v1.Manifest) -> str:
    with pytest.raises(Rejected) as refused:
        manifests.canonical_bytes(manifest)
    assert refused.value.kind is Kind.INVALID
    return refused.value.reason


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_directory(tmp_path)


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def stored(store: BlobStore, path: str, data: bytes) -> v1.ManifestFile:
    await store.put(digest_of(data), once(data))
    return v1.ManifestFile(path=path, size_bytes=len(data), digest=digest_of(data))


def test_canonical_bytes_follow_contract() -> None:
    files = manifest_of("b/ä.txt", 'a "b"', "b/\U0001f600", "b/\uffee", "B0")
    expected = ",".join(
        f'{{"path":"{path}","size":3,"digest":"{ANY}"}}'
        for path in ("B0", 'a \\"b\\"', "b/ä.txt", "b/\uffee", "b/\U0001f600")
    )
    assert manifests.canonical_bytes(files) == f'{{"schemaVersion":1,"files":[{expected}]}}'.encode()


def test_known_manifest_has_known_bytes() -> None:
    file = v1.ManifestFile(path="model.bin", size_bytes=0, digest=digest_of(b""))
    data = manifests.canonical_bytes(v1.Manifest(files=[file]))
    assert data == (
        b'{"schemaVersion":1,"files":[{"path":"model.bin","size":0,'
        b'"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]}'
    )


@given(st.lists(PATHS, min_size=1, max_size=6).flatmap(lambda paths: st.tuples(st.just(paths), st.permutations(paths))))
def test_order_of_files_does_not_matter(orders: tuple[list[str], list[str]]) -> None:
    first, second = (manifest_of(*paths) for paths in orders)
    try:
        data = manifests.canonical_bytes(first)
    except Rejected:
        refusal(second)
    else:
        assert manifests.canonical_bytes(second) == data
        assert sorted(orders[0]) == [file["path"] for file in json.loads(data)["files"]]


@pytest.mark.parametrize(
    "path",
    [
        "model.bin",
        "a/b/c",
        "…",
        "...",
        ".hidden",
        "trailing.",
        "trailing ",
        " leading",
        "C:drive",
        "a:b?*<>|",
        "日本/é",
        "n" * 255,
        "/".join(["n" * 255] * 4),
    ],
)
def test_valid_path_is_accepted(path: str) -> None:
    check_paths([path])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/absolute",
        "trailing/",
        "a//b",
        ".",
        "..",
        "./a",
        "a/./b",
        "a/../b",
        "a/..",
        "a\\b",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "e\u0301",
        "n" * 256,
        "é" * 128,
        "/".join(["n" * 204] * 5) + "/n",
        "n" * 100_000,
    ],
)
def test_invalid_path_is_rejected(path: str) -> None:
    assert refusal(manifest_of("fine", path)) == "INVALID_PATH"


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"),
        ("a", "A"),
        ("a", "a/b"),
        ("a/b/c", "a/b"),
        ("a/b", "A"),
        ("data/x", "Data/y"),
        ("é", "É"),
        ("ῼ", "ῳ"),
    ],
)
def test_colliding_paths_are_rejected(paths: tuple[str, str]) -> None:
    assert refusal(manifest_of(*paths)) == "INVALID_PATH"
    assert refusal(manifest_of(*reversed(paths))) == "INVALID_PATH"


def test_paths_with_common_prefix_are_accepted() -> None:
    check_paths(["a", "a.b", "ab/c", "a b/c", "a-/c", "x/a", "x/ab"])


def test_empty_manifest_is_rejected() -> None:
    assert refusal(v1.Manifest()) == "MANIFEST_EMPTY"


def test_file_with_invalid_digest_is_rejected() -> None:
    assert refusal(v1.Manifest(files=[v1.ManifestFile(path="a", digest="sha256:abc")])) == "INVALID_DIGEST"


def test_largest_manifest_fits_in_message() -> None:
    budget = manifests.MAX_BYTES - len(manifests.canonical_bytes(manifest_of("0" * 8))) + len("{}")
    each = len(manifests.canonical_bytes(manifest_of("0" * 8, "1" * 8))) - len(
        manifests.canonical_bytes(manifest_of("0" * 8))
    )
    fits = manifest_of(*(f"{number:08}" for number in range(budget // each)))
    assert len(manifests.canonical_bytes(fits)) <= manifests.MAX_BYTES
    assert v1.GetManifestResponse(manifest=fits).ByteSize() < 4 * 1024 * 1024
    fits.files.extend(manifest_of("more", "and more").files)
    assert refusal(fits) == "MANIFEST_TOO_LARGE"


async def test_saved_manifest_is_loaded_sorted(store: BlobStore) -> None:
    files = [await stored(store, "b/c", b"123"), await stored(store, "a", b""), await stored(store, "b/B", b"123")]
    digest = await manifests.save(store, v1.Manifest(files=files))
    assert await manifests.save(store, v1.Manifest(files=reversed(files))) == digest
    loaded = await manifests.load(store, digest)
    assert [file.path for file in loaded.files] == ["a", "b/B", "b/c"]
    assert digest_of(manifests.canonical_bytes(loaded)) == digest
    assert await manifests.describe(store, digest) == (6, 3)


async def test_manifest_is_stored_as_blob(store: BlobStore) -> None:
    manifest = v1.Manifest(files=[await stored(store, "a", b"1")])
    digest = await manifests.save(store, manifest)
    data = b"".join([chunk async for chunk in store.open(digest)])
    assert data == manifests.canonical_bytes(manifest)


async def test_uploaded_blob_with_manifest_bytes_is_not_an_artifact(store: BlobStore) -> None:
    data = manifests.canonical_bytes(v1.Manifest(files=[await stored(store, "a", b"1")]))
    await store.put(digest_of(data), once(data))
    for statement in (manifests.load(store, digest_of(data)), manifests.describe(store, digest_of(data))):
        with pytest.raises(Rejected) as refused:
            await statement
        assert (refused.value.kind, refused.value.reason) == (Kind.NOT_FOUND, "ARTIFACT_NOT_FOUND")


async def test_manifest_with_missing_blob_is_rejected(store: BlobStore) -> None:
    manifest = v1.Manifest(files=[await stored(store, "a", b"1"), v1.ManifestFile(path="b", size_bytes=1, digest=ANY)])
    with pytest.raises(Rejected) as refused:
        await manifests.save(store, manifest)
    assert (refused.value.kind, refused.value.reason) == (Kind.PRECONDITION, "BLOB_MISSING")
    assert refused.value.metadata == {"path": "b", "digest": ANY}


async def test_manifest_with_wrong_size_is_rejected(store: BlobStore) -> None:
    file = await stored(store, "a", b"1")
    file.size_bytes = 2
    with pytest.raises(Rejected) as refused:
        await manifests.save(store, v1.Manifest(files=[file]))
    assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "SIZE_MISMATCH")
