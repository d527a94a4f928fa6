"""Paths in a manifest: which names a tree of files may hold on every file system. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from eventstore import Kind, Rejected

MAX_NAME = 255
"""Bytes of one name of a path in UTF-8, the limit of Linux's file systems."""

MAX_PATH = 1024
"""Bytes of a path in UTF-8, the limit of macOS."""

_SHOWN = 200  # characters


def check_paths(paths: Iterable[str]) -> None:
    """Check that these paths are one tree of files on Linux and on macOS, whose file systems tell no case apart.

    A blank or a dot at a name's end is allowed: only Windows, which is not supported, would drop it.
    Raises `Rejected` INVALID_PATH.
    """
    files: set[str] = set()
    folders: dict[str, str] = {}
    for path in paths:
        _check_path(path)
        key = _caseless(path)
        if key in files:
            raise _invalid(path, "is a duplicate, or differs from another only in case")
        files.add(key)
        for folder in _folders(path):
            if folders.setdefault(_caseless(folder), folder) != folder:
                raise _invalid(path, "has a folder that differs from another only in case")
    for key in files & folders.keys():
        raise _invalid(folders[key], "is both a file and a folder")


def _check_path(path: str) -> None:
    if len(path.encode()) > MAX_PATH:
        raise _invalid(path, f"has more than {MAX_PATH} bytes")
    if not unicodedata.is_normalized("NFC", path):
        raise _invalid(path, "is not in Unicode normal form C")
    if any(character == "\\" or unicodedata.category(character) == "Cc" for character in path):
        raise _invalid(path, "has a backslash or a control character")
    for name in path.split("/"):
        if name in {"", ".", ".."}:
            raise _invalid(path, 'is absolute or has an empty name, "." or ".."')
        if len(name.encode()) > MAX_NAME:
            raise _invalid(path, f"has a name of more than {MAX_NAME} bytes")


def _folders(path: str) -> Iterable[str]:
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _caseless(path: str) -> str:
    """Return Unicode's canonical caseless form: equal for two names that are one file on macOS."""
    return (
        path.lower() if path.isascii() else unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())
    )


def _invalid(path: str, why: str) -> Rejected:
    return Rejected(Kind.INVALID, "INVALID_PATH", f"the path {shortened(path)!r} {why}", path=shortened(path))


def shortened(path: str) -> str:
    """Return a path as an error shows it: the whole would not fit gRPC's trailers."""
    return path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
