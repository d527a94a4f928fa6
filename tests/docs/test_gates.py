"""The gates that docs/gates.md shows are gates."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.registry.gates.expression import check_expression

TEXT = (Path(__file__).resolve().parents[2] / "docs/gates.md").read_text()
ROW = re.compile(r"^\| `(.+?)` \| a (registration|move) \|", re.MULTILINE)
OPTION = re.compile(r"(?:--gate|gates test|gates replay) '(.+?)'")

TABLE = [(found[1].replace("\\|", "|"), found[2] == "move") for found in ROW.finditer(TEXT) if "." in found[1]]
COMMANDS = [(found[1], "candidate" in found[1]) for found in OPTION.finditer(TEXT)]


@pytest.mark.parametrize(("expression", "of_move"), dict.fromkeys(TABLE + COMMANDS))
def test_an_example_is_a_gate(expression: str, of_move: bool) -> None:
    check_expression(expression, of_move=of_move)


def test_examples_are_found() -> None:
    assert (len(TABLE), len(COMMANDS)) == (7, 6)
