"""Manifests: the canonical form of a tree of files, what paths it may hold, and how one is built from a directory."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rollforward import v1
from rollforward.errors import InvalidRequest
from rollforward.references import is_digest, normal_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

CHUNK_BYTES: Final = 1024 * 1024
# Of the canonical form: what the service takes.
MANIFEST_BYTES: Final = 4_000_000
# In UTF-8: what every file system of Linux and macOS can hold.
NAME_BYTES: Final = 255
PATH_BYTES: Final = 1024


class Tree(NamedTuple):
    """A manifest with the files on this machine that it was built from."""

    manifest: v1.Manifest
    sources: dict[str, Path]
    """A file for each blob's digest."""


def canonical(manifest: v1.Manifest) -> bytes:
    """Return the bytes that are hashed and stored.

    They are JSON in UTF-8 without white space, files sorted by the UTF-8 bytes of their paths.
    """
    files = [
        {"path": file.path, "size": file.size_bytes, "digest": file.digest}
        for file in sorted(manifest.files, key=lambda file: file.path.encode())
    ]
    return json.dumps({"schemaVersion": 1, "files": files}, ensure_ascii=False, separators=(",", ":")).encode()


def parse_canonical(data: bytes) -> v1.Manifest:
    """Return the manifest that canonical() wrote. Raises ValueError, KeyError or TypeError for anything else."""
    files = json.loads(data)["files"]
    return v1.Manifest(
        files=[v1.ManifestFile(path=file["path"], size_bytes=file["size"], digest=file["digest"]) for file in files]
    )


def manifest_digest(manifest: v1.Manifest) -> str:
    """Return a manifest's digest: "sha256:" and the hash of its canonical form in hex."""
    return f"sha256:{hashlib.sha256(canonical(manifest)).hexdigest()}"


def check_manifest(manifest: v1.Manifest) -> None:
    """Refuse a manifest that does not describe a tree below one directory.

    Raises:
        InvalidRequest: INVALID_PATH, INVALID_DIGEST, MANIFEST_EMPTY.
    """
    _check_paths([file.path for file in manifest.files])
    for file in manifest.files:
        if not is_digest(file.digest):
            raise InvalidRequest("INVALID_DIGEST", f"{file.digest!r} is not a digest", {"path": file.path})


def part_of(manifest: v1.Manifest, path: str) -> v1.Manifest:
    """Return the part of a tree at a path, a file or all below a directory; empty when nothing is there.

    An empty path is the whole tree.
    """
    path = normal_path(path)
    inside = f"{path.rstrip('/')}/"
    return v1.Manifest(
        files=[file for file in manifest.files if not path or file.path == path or file.path.startswith(inside)]
    )


def check_path(path: str) -> None:
    """Refuse what is not a relative path of plain names in normal form C, or too long for a file system.

    Raises:
        InvalidRequest: INVALID_PATH.
    """
    names = path.split("/")
    if any(name in {"", ".", ".."} for name in names):
        raise _invalid_path(path, 'it is not relative, or has an empty name, "." or ".."')
    if "\\" in path or any(unicodedata.category(character) in {"Cc", "Cs"} for character in path):
        raise _invalid_path(path, "it has a backslash, a control character or something that is not Unicode")
    if not unicodedata.is_normalized("NFC", path):
        raise _invalid_path(path, "it is not in Unicode normal form C")
    if len(path.encode()) > PATH_BYTES or any(len(name.encode()) > NAME_BYTES for name in names):
        raise _invalid_path(path, f"it has more than {PATH_BYTES} bytes, or a name of more than {NAME_BYTES}")


def build_tree(path: Path) -> Tree:
    """Build the tree of a directory, or of a single file under its own name. Empty directories are left out.

    Symbolic links are followed as long as they stay within the directory.

    Raises:
        InvalidRequest: NOT_A_FILE for what is neither file nor directory, SYMLINK_ESCAPES, SYMLINK_LOOP, INVALID_PATH,
            also for names that only case or Unicode form tell apart, MANIFEST_EMPTY, MANIFEST_TOO_LARGE.
        OSError: For what cannot be read.
    """
    files = dict(_walk(path, _resolve(path), ())) if path.is_dir() else {path.name: _plain_file(path)}
    names = {normal_path(name): source for name, source in files.items()}
    if len(names) < len(files):
        raise _invalid_path(path.name, "two names in it differ in their Unicode form only")
    _check_paths(names)
    sources: dict[str, Path] = {}
    manifest = v1.Manifest()
    for name, source in sorted(names.items()):
        size, digest = _hash_file(source)
        sources[digest] = source
        manifest.files.add(path=name, size_bytes=size, digest=digest)
    _refuse_too_large(manifest)
    return Tree(manifest, sources)


def _walk(directory: Path, root: Path, above: tuple[Path, ...], prefix: str = "") -> Iterator[tuple[str, Path]]:
    here = _resolve(directory)
    if here in above:
        raise _loop(directory)
    with os.scandir(directory) as listing:
        entries = list(listing)
    for entry in entries:
        found = Path(entry.path)
        if entry.is_symlink() and not _resolve(found).is_relative_to(root):
            raise InvalidRequest("SYMLINK_ESCAPES", f"{str(found)!r} points out of the directory", {"path": str(found)})
        if entry.is_dir():
            yield from _walk(found, root, (*above, here), f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", _plain_file(found)


def _resolve(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except RuntimeError as error:
        # Python before 3.13 says so when links point at each other.
        raise _loop(path) from error


def _plain_file(path: Path) -> Path:
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidRequest("NOT_A_FILE", f"{str(path)!r} is neither a file nor a directory", {"path": str(path)})
    return path


def _hash_file(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), f"sha256:{digest.hexdigest()}"


def _refuse_too_large(manifest: v1.Manifest) -> None:
    size = len(canonical(manifest))
    if size > MANIFEST_BYTES:
        message = f"the manifest has {size} bytes, {MANIFEST_BYTES} are allowed: pack small files into archives"
        raise InvalidRequest("MANIFEST_TOO_LARGE", message, {"size_bytes": str(size)})


def _check_paths(paths: Collection[str]) -> None:
    if not paths:
        raise InvalidRequest("MANIFEST_EMPTY", "an artifact has at least one file")
    for path in paths:
        check_path(path)
    _refuse_collisions(paths)


def _refuse_collisions(paths: Iterable[str]) -> None:
    # Also where only case tells two names apart: on most Macs one would overwrite the other.
    files: set[str] = set()
    directories: dict[str, str] = {}
    for path in paths:
        names = path.split("/")
        for directory in ("/".join(names[:depth]) for depth in range(1, len(names))):
            if directories.setdefault(_caseless(directory), directory) != directory:
                raise _invalid_path(path, "another directory differs from one of its own in case only")
        if _caseless(path) in files:
            raise _invalid_path(path, "it is there twice, or another differs from it in case only")
        files.add(_caseless(path))
    for name in files & directories.keys():
        raise _invalid_path(directories[name], "it is both a file and a directory")


def _caseless(path: str) -> str:
    decomposed = unicodedata.normalize("NFD", path).casefold()
    return unicodedata.normalize("NFD", decomposed)


def _loop(path: Path) -> InvalidRequest:
    return InvalidRequest("SYMLINK_LOOP", f"{str(path)!r} leads back to itself", {"path": str(path)})


def _invalid_path(path: str, why: str) -> InvalidRequest:
    return InvalidRequest("INVALID_PATH", f"the path {path!r} cannot be used: {why}", {"path": path})
