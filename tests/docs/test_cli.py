"""docs/cli.md shows every command, and each line of it is one that the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rollforward.cli.app import command_line
from tests.unit.client.command_tree import leaves

TEXT = (Path(__file__).resolve().parents[2] / "docs/cli.md").read_text()
LINES = [
    shlex.split(line, comments=True)[1:]
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("rollforward ")
]


@pytest.mark.parametrize("path", sorted(leaves()), ids=" ".join)
def test_it_shows_every_command(path: tuple[str, ...]) -> None:
    assert [line for line in LINES if tuple(line[: len(path)]) == path]


@pytest.mark.parametrize("words", LINES, ids=shlex.join)
def test_each_line_is_a_command(words: list[str]) -> None:
    # What the shell does with ">" is none of the program's business.
    taken = words[: words.index(">")] if ">" in words else words
    command_line(taken).parse_args(taken, exit_on_error=False, print_error=False)
