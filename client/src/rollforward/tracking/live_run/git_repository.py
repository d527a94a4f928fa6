"""The checked-out commit of a Git repository, read from its files without running git."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SECTION: Final = re.compile(r"""\s*\[\s*(\w[\w.-]*)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]""")
_URL: Final = re.compile(r"\s*url\s*=\s*(.*?)\s*", re.IGNORECASE)
# Maximum length of a chain of refs that name another ref.
_REF_DEPTH: Final = 5


class Head(NamedTuple):
    """The checked-out state of a repository."""

    commit: str
    """Empty before the first commit, or if the repository uses an unknown format of refs."""
    branch: str
    """Empty when HEAD is detached."""
    url: str
    """The URL of the remote "origin"; empty without."""


def read_head(folder: Path) -> Head | None:
    """Return the checked-out state of the repository that contains a folder; None outside of a repository."""
    git_dir = _git_dir(folder)
    if git_dir is None:
        return None
    common = _common_dir(git_dir)
    head = _read(git_dir / "HEAD")
    branch = head.removeprefix("ref: refs/heads/") if head.startswith("ref: refs/heads/") else ""
    return Head(_commit(head, git_dir, common), branch, _origin(common))


def _git_dir(folder: Path) -> Path | None:
    if configured := os.environ.get("GIT_DIR"):
        return _if_repository(folder / configured)
    for place in (folder, *folder.parents):
        link = place / ".git"
        if link.is_file():
            # In a worktree or submodule, .git is a file that names the repository.
            target = _read(link).removeprefix("gitdir: ")
            return _if_repository(place / target)
        if repository := _if_repository(link):
            return repository
    return None


def _if_repository(git_dir: Path) -> Path | None:
    return git_dir if (git_dir / "HEAD").is_file() else None


def _common_dir(git_dir: Path) -> Path:
    shared = _read(git_dir / "commondir")
    return git_dir / shared if shared else git_dir


def _commit(head: str, git_dir: Path, common: Path) -> str:
    text = head
    for _ in range(_REF_DEPTH):
        if not text.startswith("ref: "):
            break
        ref = text.removeprefix("ref: ")
        text = _read(git_dir / ref) or _read(common / ref) or _packed(common, ref)
    return text if _COMMIT.fullmatch(text) else ""


def _packed(common: Path, ref: str) -> str:
    for line in _read(common / "packed-refs").splitlines():
        commit, _, name = line.partition(" ")
        if name == ref:
            return commit
    return ""


def _origin(common: Path) -> str:
    inside = False
    for line in _read(common / "config").splitlines():
        if section := _SECTION.match(line):
            inside = section[1].lower() == "remote" and section[2] == "origin"
            line = line[section.end() :]  # noqa: PLW2901 - a key may follow in the same line
        if inside and (url := _URL.fullmatch(line)):
            return url[1].strip('"')
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
