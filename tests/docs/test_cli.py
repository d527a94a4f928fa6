"""docs/cli.md shows every command, and each command line of every page is one that the program takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from rollforward.cli.app import command_line
from tests.docs.shell import ROOT, commands
from tests.unit.client.cli.command_tree import leaves

PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *(ROOT / name for name in ("README.md", "client/README.md"))]
PAGES += [ROOT / "CONTRIBUTING.md", ROOT / "deploy/README.md"]


def lines_of(page: Path) -> list[list[str]]:
    """Return the command lines of a page, without what is the shell's business."""
    shown = [line for line in commands(page) if line.startswith("rollforward ")]
    tokens = [shlex.split(line, comments=True)[1:] for line in shown]
    return [[*line[: next((at for at, token in enumerate(line) if token in {">", "&"}), None)]] for line in tokens]


LINES = lines_of(ROOT / "docs/cli.md")
ALL_LINES = {shlex.join(line): line for page in PAGES for line in lines_of(page)}


@pytest.mark.parametrize("path", sorted(leaves()), ids=" ".join)
def test_it_shows_every_command(path: tuple[str, ...]) -> None:
    assert [line for line in LINES if tuple(line[: len(path)]) == path]


@pytest.mark.parametrize("line", ALL_LINES)
def test_each_line_of_each_page_is_a_command(line: str) -> None:
    tokens = ALL_LINES[line]
    command_line(tokens).parse_args(tokens, exit_on_error=False, print_error=False)
