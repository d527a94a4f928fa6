"""docs/architecture.md names files that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/architecture.md"
ROOTS = ("client/", "eventstore/", "protos/", "services/", "tests/")


def named() -> Iterator[Path]:
    """Yield the files that the page names; a name without its root is of the folder named before it on the line."""
    for line in PAGE.read_text().splitlines():
        folder = None
        for name in re.findall(r"`([\w./]+\.(?:py|proto))`", line):
            if name.startswith(ROOTS):
                folder = (ROOT / name).parent
                yield ROOT / name
            elif folder is not None:
                yield folder / name


def missing(files: list[Path]) -> list[str]:
    """Return those that neither exist nor, as `projection/apply.py` may, exist in a folder above."""
    return [
        str(file) for file in files if not file.exists() and not (file.parents[2] / "/".join(file.parts[-2:])).exists()
    ]


def test_the_files_of_every_path_exist() -> None:
    files = [*named()]
    assert len(files) > 40
    assert missing(files) == []
