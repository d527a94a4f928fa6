"""Manifests: which trees are valid, their canonical form, and that no path leads out of a tree."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.errors import Rejected
from rollforward import v1
from rollforward._artifacts import manifests
from rollforward._artifacts.manifests import (
    build_tree,
    canonical,
    check_manifest,
    check_path,
    manifest_digest,
    parse_canonical,
)
from rollforward.errors import InvalidRequest
from services.artifacts import manifests as server
from services.artifacts.paths import check_paths

ANY = f"sha256:{'a' * 64}"


def tree(*paths: str) -> v1.Manifest:
    return v1.Manifest(files=[v1.ManifestFile(path=path, size_bytes=3, digest=ANY) for path in paths])


def is_accepted(check: Callable[[], None]) -> bool:
    try:
        check()
    except (InvalidRequest, Rejected):
        return False
    return True


def refusal(path: Path) -> str:
    with pytest.raises(InvalidRequest) as refused:
        build_tree(path)
    return refused.value.reason


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), unique=True, min_size=1))
def test_canonical_form_equals_the_services(paths: list[str]) -> None:
    manifest = tree(*paths)
    if not is_accepted(lambda: check_manifest(manifest)):
        return
    assert canonical(manifest) == server.canonical_bytes(manifest)
    assert manifest_digest(parse_canonical(canonical(manifest))) == manifest_digest(manifest)


@pytest.mark.parametrize(
    ("path", "accepted"),
    [
        ("a" * 255, True),
        ("a" * 256, False),
        ("é" * 127, True),
        ("é" * 128, False),
        ("/".join(["a" * 127] * 8), True),
        ("/".join(["a" * 127] * 8) + "/a", False),
    ],
)
def test_path_limit_equals_the_services(path: str, accepted: bool) -> None:
    assert is_accepted(lambda: check_manifest(tree(path))) == accepted
    assert is_accepted(lambda: check_paths([path])) == accepted


def test_canonical_form_matches_the_contract() -> None:
    files = [f'{{"path":"{path}","size":3,"digest":"{ANY}"}}' for path in ("B", "ä")]
    assert canonical(tree("ä", "B")) == f'{{"schemaVersion":1,"files":[{",".join(files)}]}}'.encode()


@given(st.lists(st.sampled_from(["/", ".", "..", "a", "ä", "\\", "\0", "\n", "a\u0308"]), max_size=12).map("".join))
def test_accepted_path_stays_below_its_directory(path: str) -> None:
    accepted = is_accepted(lambda: check_path(path))
    assert accepted == is_accepted(lambda: check_paths([path]))
    if not accepted:
        return
    joined = PurePosixPath(os.path.normpath(PurePosixPath("/root/tree").joinpath(*path.split("/"))))
    assert joined.is_relative_to("/root/tree")
    assert joined != PurePosixPath("/root/tree")
    assert unicodedata.is_normalized("NFC", path)


NAMES = st.sampled_from(["a", "A", "b", "ä", "Ä", "a\u0308", "ß", "ss", "SS", "ẞ", "\u212a", "k", "..", "a.", " a"])


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=4))
def test_client_and_service_accept_the_same_trees(paths: list[str]) -> None:
    accepted = is_accepted(lambda: check_manifest(tree(*paths)))
    assert accepted == is_accepted(lambda: check_paths(paths))
    if accepted:
        places = {place for path in paths for place in (path, *map(str, PurePosixPath(path).parents))}
        folded = {unicodedata.normalize("NFD", unicodedata.normalize("NFD", place).casefold()) for place in places}
        assert len(folded) == len(places)


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", ".", "a/..", "../a", "a/./b", "a\\b", "a\nb", "\x7f", "a\u0308", "\udc80"]
)
def test_unsafe_path_is_rejected(path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_path(path)
    assert refused.value.reason == "INVALID_PATH"


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "A"), ("x/a", "X/b"), ("a", "a/b"), ("a/b", "A"), ("ß", "SS")])
def test_colliding_names_are_rejected(paths: tuple[str, ...]) -> None:
    for given_paths in (paths, paths[::-1]):
        with pytest.raises(InvalidRequest) as refused:
            check_manifest(tree(*given_paths))
        assert refused.value.reason == "INVALID_PATH"


def test_manifest_without_files_or_with_an_invalid_digest_is_rejected() -> None:
    wrong = {"MANIFEST_EMPTY": v1.Manifest(), "INVALID_DIGEST": v1.Manifest(files=[v1.ManifestFile(path="a")])}
    for reason, manifest in wrong.items():
        with pytest.raises(InvalidRequest) as refused:
            check_manifest(manifest)
        assert refused.value.reason == reason


def test_tree_includes_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.bin").write_bytes(b"abc" * 1_000_000)
    (tmp_path / "e\u0301.txt").write_bytes(b"")
    (tmp_path / "link").symlink_to("sub/data.bin")
    (tmp_path / "folder").symlink_to("sub")
    (tmp_path / "empty").mkdir()
    found = build_tree(tmp_path)
    digest = f"sha256:{hashlib.sha256(b'abc' * 1_000_000).hexdigest()}"
    sizes = {file.path: file.size_bytes for file in found.manifest.files}
    assert sizes == {"sub/data.bin": 3_000_000, "\u00e9.txt": 0, "link": 3_000_000, "folder/data.bin": 3_000_000}
    assert found.sources[digest].read_bytes() == b"abc" * 1_000_000
    assert len(found.sources) == 2


def test_single_file_is_a_tree(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(b"x")
    assert [file.path for file in build_tree(tmp_path / "plot.png").manifest.files] == ["plot.png"]


def test_escaping_or_circular_link_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    for name, target, reason in [
        ("file", "../secret", "SYMLINK_ESCAPES"),
        ("folder", "..", "SYMLINK_ESCAPES"),
        ("up", ".", "SYMLINK_LOOP"),
    ]:
        model = tmp_path / name
        model.mkdir()
        (model / "link").symlink_to(target)
        assert refusal(model) == reason


def test_links_that_point_at_each_other_are_rejected(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).mkdir()
        (tmp_path / one / "link").symlink_to(f"../{other}")
    assert refusal(tmp_path) == "SYMLINK_LOOP"


def test_special_file_is_rejected(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path) == refusal(tmp_path / "pipe") == "NOT_A_FILE"
    # The path of a socket must be short.
    with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{short}/socket")
        assert refusal(Path(short)) == "NOT_A_FILE"


def test_empty_directory_is_rejected(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "MANIFEST_EMPTY"


def test_names_that_differ_only_in_unicode_form_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "\u00e9").write_bytes(b"1")
    (tmp_path / "e\u0301").write_bytes(b"2")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes the two names for one")
    assert refusal(tmp_path) == "INVALID_PATH"


@pytest.mark.parametrize("name", [b"a\\b", b"a\nb", b"\xff"])
def test_file_name_that_is_not_portable_is_rejected(name: bytes, tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system does not take the name")
    assert refusal(tmp_path) == "INVALID_PATH"


def test_missing_path_raises_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build_tree(tmp_path / "missing")


def test_too_large_manifest_is_rejected_before_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert manifests.MANIFEST_BYTES == server.MAX_BYTES
    (tmp_path / "file").write_bytes(b"x")
    size = len(canonical(build_tree(tmp_path).manifest))
    monkeypatch.setattr(manifests, "MANIFEST_BYTES", size)
    assert build_tree(tmp_path).manifest.files
    monkeypatch.setattr(manifests, "MANIFEST_BYTES", size - 1)
    assert refusal(tmp_path) == "MANIFEST_TOO_LARGE"


def test_names_are_checked_before_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(manifests, "_hash_file", read.append)
    for name in ("readable", "back\\slash"):
        (tmp_path / name).write_bytes(b"x")
    assert refusal(tmp_path) == "INVALID_PATH"
    assert read == []
