"""The data directory is its owner's alone: whoever else may read it sees runs, webhook URLs and the audit trail."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

from services.nats.data_directory import DataDirectoryUnusable

_OTHERS = 0o077
_BLOBS = ("blobs", "manifests")  # many files, which were always made private

_logger = structlog.get_logger(__name__)


def keep_files_private() -> None:
    """Make new files and directories of this process and its children readable by their owner only."""
    os.umask(_OTHERS)


def make_private(data: Path) -> None:
    """Make a data directory, or take from an existing one what others may do in it.

    Raises:
        DataDirectoryUnusable: It is no directory, not ours, or every local user may write to it.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if data.stat().st_mode & stat.S_IWOTH:
            raise DataDirectoryUnusable(data, "every local user can write to it. Restrict it with chmod o-w")
        tightened = [path for path in (data, *_inside(data)) if _tighten(path)]
    except OSError as error:
        raise DataDirectoryUnusable.from_os_error(data, error) from error
    if tightened:
        _logger.warning("data directory made private", data=str(data), paths=len(tightened), first=str(tightened[0]))


def _inside(data: Path) -> Iterator[Path]:
    for root, directories, files in os.walk(data):
        directories[:] = [name for name in directories if name not in _BLOBS]
        yield from (Path(root, name) for name in (*directories, *files))


def _tighten(path: Path) -> bool:
    """Take from others what they may do with a path; return whether they could do anything."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False  # another service of this directory runs
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return False
    path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
    return True
