"""The code that a run executes: its program, git commit, packages and host."""

from __future__ import annotations

import logging
import os
import platform
import re
import socket
import subprocess
import sys
import unicodedata
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from rollforward import v1
from rollforward.tracking.live_run.git_repository import read_head

_GIT_SECONDS: Final = 2.0
# The service's limits, in characters: texts are cut, because a long branch name must not stop a job.
_MAX_CHARACTERS: Final = {"entry_point": 4096, "git_branch": 500, "git_url": 2000, "runtime": 200, "host": 255}
_PACKAGES: Final = 10_000
_SEPARATORS: Final = re.compile(r"[-_.]+")

_logger: Final = logging.getLogger("rollforward")


def source() -> v1.RunSource:
    """Return the source of this process; unknown fields are empty."""
    result = v1.RunSource()
    result.CopyFrom(_of_process())
    for name, max_characters in _MAX_CHARACTERS.items():
        setattr(result, name, _plain(getattr(result, name), max_characters))
    return result


@cache
def _of_process() -> v1.RunSource:
    program = _entry_point()
    result = v1.RunSource(
        entry_point=os.fsencode(program).decode(errors="replace"),
        runtime=f"{platform.python_implementation().replace('CPython', 'Python')} {platform.python_version()}",
        packages=_packages(),
        host=socket.gethostname(),
    )
    folder = Path(program).parent if Path(program).is_file() else Path.cwd()
    _describe_commit(result, folder)
    return result


def _entry_point() -> str:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        # Started as `python -m`: the module's name says more than the path.
        return str(spec.name.removesuffix(".__main__"))
    file = getattr(main, "__file__", None)
    return str(Path(file).resolve()) if file else ""


def _packages() -> list[str]:
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name, version = _name_and_version(distribution)
        # Python imports the first distribution on the path.
        versions.setdefault(_SEPARATORS.sub("-", name).lower(), version)
    return [f"{name}=={version}" for name, version in sorted(versions.items()) if name][:_PACKAGES]


def _name_and_version(distribution: metadata.Distribution) -> tuple[str, str]:
    # The name of a wheel's folder, NAME-VERSION.dist-info, avoids reading hundreds of metadata files.
    folder = getattr(distribution, "_path", None)
    if folder is not None and folder.name.endswith(".dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        if version:
            return name, version
    return str(distribution.metadata["Name"] or ""), distribution.version


def _describe_commit(result: v1.RunSource, folder: Path) -> None:
    head = read_head(folder)
    if head is None:
        return
    result.git_url = without_credentials(head.url)
    result.git_commit, result.git_branch = head.commit, head.branch
    status = _git_status(folder)
    branch_lines = [line for line in status or () if line.startswith("# branch.") and line.count(" ") > 1]
    headers = dict(line[2:].split(" ", 1) for line in branch_lines)
    if not result.git_commit:
        result.git_commit = headers.get("branch.oid", "").replace("(initial)", "")
        result.git_branch = headers.get("branch.head", "").replace("(detached)", "") if result.git_commit else ""
    if status is None:
        result.git_dirty_unknown = True
        field = "git_dirty" if result.git_commit else "git_commit"
        _logger.warning("git failed or timed out, unknown=%s, timeout=%g s, folder=%s", field, _GIT_SECONDS, folder)
    elif result.git_commit:
        result.git_dirty = any(not line.startswith("#") for line in status)


def _git_status(folder: Path) -> list[str] | None:
    """Return the lines of `git status`; None if it fails or times out."""
    options = ["--porcelain=v2", "--branch", "--untracked-files=no"]
    command = ["git", "--no-optional-locks", "-C", str(folder), "status", *options]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        # git is not installed, or the repository is on a disk that does not answer.
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def without_credentials(url: str) -> str:
    """Return a repository's URL without user name and password; "git@host:path" is unchanged."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if not parts.scheme or "@" not in parts.netloc:
        return url
    if parts.scheme == "ssh" and ":" not in parts.netloc.rpartition("@")[0]:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _plain(text: str, max_characters: int) -> str:
    return "".join(character for character in text if unicodedata.category(character) != "Cc")[:max_characters]
