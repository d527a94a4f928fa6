"""Manifests: the canonical form of a tree of files, its valid paths, and its construction from a directory."""

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
# The service's limit for the canonical form.
MANIFEST_BYTES: Final = 4_000_000
# In UTF-8: the limits of file systems of Linux and macOS.
NAME_BYTES: Final = 255
PATH_BYTES: Final = 1024


class LocalTree(NamedTuple):
    """A manifest, and the local files that it was built from."""

    manifest: v1.Manifest
    sources: dict[str, Path]
    """A local file for each blob's digest."""


def canonical(manifest: v1.Manifest) -> bytes:
    """Return the bytes that are hashed and stored: compact JSON in UTF-8.

    Files are sorted by the UTF-8 bytes of their paths.
    """
    files = [
        {"path": file.path, "size": file.size_bytes, "digest": file.digest}
        for file in sorted(manifest.files, key=lambda file: file.path.encode())
    ]
    return json.dumps({"schemaVersion": 1, "files": files}, ensure_ascii=False, separators=(",", ":")).encode()


def parse_canonical(data: bytes) -> v1.Manifest:
    """Parse the result of canonical(). Raises ValueError, KeyError or TypeError for anything else."""
    files = json.loads(data)["files"]
    return v1.Manifest(
        files=[v1.ManifestFile(path=file["path"], size_bytes=file["size"], digest=file["digest"]) for file in files]
    )


def manifest_digest(manifest: v1.Manifest) -> str:
    """Return a manifest's digest: "sha256:" and the hash of its canonical form in hex."""
    return f"sha256:{hashlib.sha256(canonical(manifest)).hexdigest()}"


def check_manifest(manifest: v1.Manifest) -> None:
    """Check that a manifest describes a tree below one directory.

    Raises:
        InvalidRequest: INVALID_PATH, INVALID_DIGEST, MANIFEST_EMPTY.
    """
    _check_paths([file.path for file in manifest.files])
    for file in manifest.files:
        if not is_digest(file.digest):
            message = f"invalid digest {file.digest!r}: expected 'sha256:' and 64 lower-case hex digits"
            raise InvalidRequest("INVALID_DIGEST", message, {"path": file.path})


def part_of(manifest: v1.Manifest, path: str) -> v1.Manifest:
    """Return the file at a path, or the files below it, as a manifest; an empty one if there are none.

    An empty path is the whole tree.
    """
    path = normal_path(path)
    inside = f"{path.rstrip('/')}/"
    return v1.Manifest(
        files=[file for file in manifest.files if not path or file.path == path or file.path.startswith(inside)]
    )


def check_path(path: str) -> None:
    """Check that a path is relative, of plain names in Unicode normal form C, and short enough for file systems.

    Raises:
        InvalidRequest: INVALID_PATH.
    """
    names = path.split("/")
    if any(name in {"", ".", ".."} for name in names):
        raise _invalid_path(path, 'expected a relative path without empty names, "." and ".."')
    if "\\" in path or any(unicodedata.category(character) in {"Cc", "Cs"} for character in path):
        raise _invalid_path(path, "backslashes, control characters and lone surrogates are not allowed")
    if not unicodedata.is_normalized("NFC", path):
        raise _invalid_path(path, "expected Unicode normal form C (NFC)")
    if len(path.encode()) > PATH_BYTES or any(len(name.encode()) > NAME_BYTES for name in names):
        raise _invalid_path(path, f"expected at most {PATH_BYTES} bytes, and {NAME_BYTES} for each name")


def build_tree(path: Path) -> LocalTree:
    """Build the tree of a directory, or of a single file under its own name.

    Empty directories are skipped. Symbolic links are followed if they stay within the directory.

    Raises:
        InvalidRequest: NOT_A_FILE for devices and the like, SYMLINK_ESCAPES, SYMLINK_LOOP, MANIFEST_EMPTY,
            MANIFEST_TOO_LARGE; INVALID_PATH, also for names that differ only in case or Unicode form.
        OSError: A file cannot be read.
    """
    files = dict(_walk(path, _resolve(path), ())) if path.is_dir() else {path.name: _plain_file(path)}
    names = {normal_path(name): source for name, source in files.items()}
    if len(names) < len(files):
        raise _invalid_path(path.name, "two names in it differ only in their Unicode form; rename one")
    _check_paths(names)
    sources: dict[str, Path] = {}
    manifest = v1.Manifest()
    for name, source in sorted(names.items()):
        size, digest = _hash_file(source)
        sources[digest] = source
        manifest.files.add(path=name, size_bytes=size, digest=digest)
    _check_size(manifest)
    return LocalTree(manifest, sources)


def _walk(directory: Path, root: Path, above: tuple[Path, ...], prefix: str = "") -> Iterator[tuple[str, Path]]:
    here = _resolve(directory)
    if here in above:
        raise _loop(directory)
    with os.scandir(directory) as listing:
        entries = list(listing)
    for entry in entries:
        child = Path(entry.path)
        if entry.is_symlink() and not _resolve(child).is_relative_to(root):
            message = f"symbolic link leads out of the directory: {str(child)!r}. Remove it, or copy its target"
            raise InvalidRequest("SYMLINK_ESCAPES", message, {"path": str(child)})
        if entry.is_dir():
            yield from _walk(child, root, (*above, here), f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", _plain_file(child)


def _resolve(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except RuntimeError as error:
        # Python before 3.13 raises it for links that point at each other.
        raise _loop(path) from error


def _plain_file(path: Path) -> Path:
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidRequest("NOT_A_FILE", f"not a file or directory: {str(path)!r}", {"path": str(path)})
    return path


def _hash_file(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), f"sha256:{digest.hexdigest()}"


def _check_size(manifest: v1.Manifest) -> None:
    size = len(canonical(manifest))
    if size > MANIFEST_BYTES:
        message = f"manifest too large: {size} bytes, expected at most {MANIFEST_BYTES}. Pack small files into archives"
        raise InvalidRequest("MANIFEST_TOO_LARGE", message, {"size_bytes": str(size)})


def _check_paths(paths: Collection[str]) -> None:
    if not paths:
        raise InvalidRequest("MANIFEST_EMPTY", "artifact has no files: expected at least one")
    for path in paths:
        check_path(path)
    _check_collisions(paths)


def _check_collisions(paths: Iterable[str]) -> None:
    # Names that differ only in case too: on most Macs one file would overwrite the other.
    files: set[str] = set()
    directories: dict[str, str] = {}
    for path in paths:
        names = path.split("/")
        for directory in ("/".join(names[:depth]) for depth in range(1, len(names))):
            if directories.setdefault(_caseless(directory), directory) != directory:
                raise _invalid_path(path, "another directory's name differs only in case; rename one")
        if _caseless(path) in files:
            raise _invalid_path(path, "it is a duplicate, or another path differs only in case; rename one")
        files.add(_caseless(path))
    for name in files & directories.keys():
        raise _invalid_path(directories[name], "it is both a file and a directory")


def _caseless(path: str) -> str:
    decomposed = unicodedata.normalize("NFD", path).casefold()
    return unicodedata.normalize("NFD", decomposed)


def _loop(path: Path) -> InvalidRequest:
    return InvalidRequest("SYMLINK_LOOP", f"symbolic link leads back to itself: {str(path)!r}", {"path": str(path)})


def _invalid_path(path: str, fault: str) -> InvalidRequest:
    return InvalidRequest("INVALID_PATH", f"invalid path {path!r}: {fault}", {"path": path})
